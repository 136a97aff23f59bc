"""AES-256-CTR as a source of uniform words: seeds of shares, common randomness of the ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

KEY_BYTES = 32
_WORD = np.dtype("<u8")
# Encrypted in pieces that stay in the processor's cache.
_ZEROS = memoryview(bytes(1 << 16))
# Short draws are cut off what has been encrypted ahead.
AHEAD_BYTES = 1 << 12
_FROM_ZERO = modes.CTR(bytes(16))


def first_words(key: bytes, count: int) -> npt.NDArray[np.uint64]:
    """The first words of a fresh key's stream, of which no more will be drawn."""
    if 8 * count > len(_ZEROS):
        return Keystream(key).words(count)
    words = np.empty(count, _WORD)
    _encryptor(key).update_into(_ZEROS[: 8 * count], words.data.cast("B"))
    return words.astype(np.uint64, copy=False)


def _encryptor(key: bytes) -> CipherContext:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    return Cipher(algorithms.AES256(key), _FROM_ZERO).encryptor()


class Keystream:
    """The key stream of a fresh key from a zero counter; what was drawn never comes again."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = _encryptor(key)
        self._ahead = bytearray()
        self._at = 0

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Uniform 64-bit words, little-endian in the stream."""
        return self.draw(count, _WORD).astype(np.uint64, copy=False)

    def draw(self, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uniform unsigned integers; the array is the caller's own."""
        at, size = self._at, count * dtype.itemsize
        if 0 < size <= len(self._ahead) - at:
            self._at += size
            drawn = np.frombuffer(self._ahead, dtype, count, at)
            return drawn if at % dtype.itemsize == 0 else drawn.copy()
        drawn = np.empty(count, dtype)
        if count:
            into = drawn.data.cast("B")
            left = len(self._ahead) - at
            into[:left] = self._ahead[at:]
            if size - left <= AHEAD_BYTES:
                self._ahead, self._at = bytearray(AHEAD_BYTES), size - left
                self._encryptor.update_into(_ZEROS[:AHEAD_BYTES], self._ahead)
                into[left:] = self._ahead[: self._at]
            else:
                self._ahead, self._at = bytearray(), 0
                self._encrypt(into[left:])
        return drawn

    def _encrypt(self, into: memoryview) -> None:
        for at in range(0, len(into), len(_ZEROS)):
            piece = into[at : at + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(piece)], piece)
