"""Words as bytes in the share store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.mpc.keystream import KEY_BYTES
from workers.mpc.replicated import expand
from workers.mpc.sealing import Words

# What stands for a word of a share: the seed that it is the key stream of, or itself.
_SEED, _WORD = b"s", b"w"


def pack(words: Any) -> bytes:
    """One after the other, eight bytes a value."""
    return b"".join(np.ascontiguousarray(w, dtype="<u8").tobytes() for w in words)


def unpack(data: bytes, shape: Sequence[int]) -> tuple[Words, ...]:
    return tuple(np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(-1, *shape))


def pack_short(words: Sequence[Any]) -> bytes:
    """As `pack`, in a multiple of eight bytes; with seeds among them 1 + their number bytes more,
    which is none: how many, what each is, and each of them."""
    if not any(isinstance(word, bytes) for word in words):
        return pack(words)
    kinds = b"".join(_SEED if isinstance(word, bytes) else _WORD for word in words)
    parts = [word if isinstance(word, bytes) else pack([word]) for word in words]
    return b"".join([bytes([len(kinds)]), kinds, *parts])


def unpack_short(data: bytes, shape: Sequence[int]) -> tuple[Words, ...]:
    if len(data) % 8 == 0:
        return unpack(data, shape)
    count, at, words = math.prod(shape), 1 + data[0], []
    for kind in data[1:at]:
        if kind == _SEED[0]:
            words.append(expand(data[at : at + KEY_BYTES], count))
            at += KEY_BYTES
        else:
            words.append(np.frombuffer(data, "<u8", count, at).astype(np.uint64))
            at += 8 * count
    return tuple(word.reshape(shape) for word in words)
