"""Search for numbers that nobody else should have: as text, as fixed-point words, as float64.

A vector is found by three neighbours that carry at least six digits together; one number alone
only with eight digits or more. So chance finds nothing, and a row, an update or an answer that
somebody wrote down in any usual way is found, also inside base64 or hex.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

FRACTIONAL_BITS = (16, 20)
LEAST_DIGITS = 6
ALONE_DIGITS = 8
TABLE_BITS = 20
TAIL_BYTES = 1 << 16  # of what is searched a second time, with a needle in it
_MIX = np.uint64(0x9E3779B97F4A7C15)

_NO_NUMBER = re.compile(rb"\d{2}:\d{2}:\d{2}(?:[.,]\d+)?|\\[nrt]")  # clocks, escapes
_NUMBER = re.compile(rb"(?<![\w.])-?\d{1,19}(?:\.\d{1,25})?(?:[eE][-+]?\d{1,3})?(?!\w)")
# All bytes but those of a writing made blank: much quicker than to match.
_BASE64 = bytes(b if re.match(rb"[A-Za-z0-9+/_-]", bytes([b])) else 32 for b in range(256))
_HEX = bytes(b if re.match(rb"[0-9a-fA-F]", bytes([b])) else 32 for b in range(256))
BASE64_LEAST, HEX_LEAST = 24, 32


class Needles:
    """Vectors and single numbers to look for; `found_in(data)` names those that appear."""

    def __init__(self) -> None:
        self._text: dict[tuple[str, str, str], str] = {}
        self._alone: dict[str, str] = {}
        self._words: dict[int, list[tuple[bytes, str]]] = {}
        self._table: np.ndarray | None = None
        self.example: tuple[str, list[float]] = ("", [])  # to plant, where a search must find it

    def __len__(self) -> int:
        return len(self._text)

    def vector(self, name: str, values: Sequence[float] | np.ndarray) -> None:
        """Any three neighbours of these, in decimal, in fixed point or as float64."""
        floats = np.asarray(values, dtype=float).reshape(-1)
        self.example = self.example if self.example[0] else (name, floats.tolist())
        self._add(name, floats, floats.astype("<f8"))
        for f in FRACTIONAL_BITS:
            fixed = np.round(floats * 2.0**f).astype("<i8")
            self._add(name, fixed, fixed)

    def words(self, name: str, values: Sequence[float] | np.ndarray) -> None:
        """All of these side by side, in fixed point or as float64: for rows of two and more."""
        floats = np.asarray(values, dtype=float).reshape(-1)
        if len(floats) < 2:
            raise ValueError("one word alone may be chance")
        self._word(floats.astype("<f8").tobytes(), name)
        for f in FRACTIONAL_BITS:
            self._word(np.round(floats * 2.0**f).astype("<i8").tobytes(), name)

    def number(self, name: str, value: float) -> None:
        """This very number, where it is written with eight digits or more, or as float64."""
        for digits in range(ALONE_DIGITS, 18):
            text = f"{value:.{digits - 1}e}"
            if len(set(text.split("e")[0]) - {"-", "."}) > 3:  # 0.99999999 is in many places
                self._alone[text] = name
        self._word(np.array([value], dtype="<f8").tobytes(), name)

    def secret(self, name: str, raw: bytes) -> None:
        """These bytes, a key's say: as they are, in base64 or in hex."""
        if len(raw) < 16:
            raise ValueError("so few bytes may be chance")
        self._word(raw, name)

    def found_in(self, data: bytes) -> set[str]:
        """Names of all needles in these bytes, and in what they hold as base64 or hex."""
        found = set(self._found_plain(data))
        for inner in _decoded(data):
            found |= set(self._found_words(inner))
        return found

    def _add(self, name: str, values: np.ndarray, words: np.ndarray) -> None:
        for i in range(len(values) - 2):
            three = [_text(v) for v in values[i : i + 3]]
            digits = sum(
                len(t.split("e")[0].strip("-").replace(".", "").rstrip("0")) for t in three
            )
            if digits < LEAST_DIGITS or not all(values[i : i + 3]):
                continue
            self._text[three[0], three[1], three[2]] = name
            self._word(words[i : i + 3].tobytes(), name)

    def _word(self, raw: bytes, name: str) -> None:
        self._words.setdefault(int.from_bytes(raw[:8], "little"), []).append((raw, name))
        self._table = None

    def _found_plain(self, data: bytes) -> Iterator[str]:
        numbers = _NUMBER.findall(_NO_NUMBER.sub(b" ", data))
        written = {token: _text(float(token)) for token in set(numbers)}
        texts = [written[token] for token in numbers]
        for three in zip(texts, texts[1:], texts[2:], strict=False):
            if three in self._text:
                yield self._text[three]
        for token in written:
            digits = len(re.sub(rb"[eE].*|[-.]", b"", token).lstrip(b"0"))
            if digits >= ALONE_DIGITS:
                name = self._alone.get(f"{float(token):.{min(digits, 17) - 1}e}")
                if name:
                    yield name
        yield from self._found_words(data)

    def _found_words(self, data: bytes) -> Iterator[str]:
        if self._table is None:
            self._table = np.zeros(1 << TABLE_BITS, dtype=bool)
            self._table[_slot(np.array(list(self._words), dtype=np.uint64))] = True
        for offset in range(8):
            count = (len(data) - offset) // 8
            if count <= 0:
                return
            words = np.frombuffer(data, dtype="<u8", count=count, offset=offset)
            for at in np.flatnonzero(self._table[_slot(words)]):
                start = offset + 8 * int(at)
                for raw, name in self._words.get(int(words[at]), ()):
                    if data.startswith(raw, start):
                        yield name


def assert_clean(needles: Needles, where: str, content: bytes) -> None:
    """Nothing of it is there; and had it been there, it would have been found."""
    assert content, where
    assert not needles.found_in(content), where
    planted = b"\nx " + b", ".join(f"{value:g}".encode() for value in needles.example[1])
    assert needles.found_in(content[-TAIL_BYTES:] + planted) == {needles.example[0]}, where


def _slot(words: np.ndarray) -> np.ndarray:
    return (words * _MIX) >> np.uint64(64 - TABLE_BITS)


def _text(value: float) -> str:
    """Six significant digits, the same for 0.1234567, "0.1234567" and 1.234567e-1."""
    return f"{value:.{LEAST_DIGITS - 1}e}"


def _decoded(data: bytes) -> Iterable[bytes]:
    for run in data.translate(_BASE64).split():
        if len(run) < BASE64_LEAST:
            continue
        text = run.replace(b"-", b"+").replace(b"_", b"/")
        try:
            yield base64.b64decode(text + b"=" * (-len(text) % 4))
        except binascii.Error:
            continue
    for run in data.translate(_HEX).split():
        if len(run) >= HEX_LEAST:
            yield bytes.fromhex(run[: len(run) // 2 * 2].decode())
