"""Arithmetic mod p = 2^89 − 1 on NumPy arrays.

A number is three limbs in uint64, weights 1, 2^30, 2^60: x = l_0 + l_1·2^30 + l_2·2^60. As
2^89 ≡ 1 and 2^90 ≡ 2, carries out of the top come back at the bottom, and products of limbs never
leave a word. Between operations limbs are *slack*: l_0 and l_2 within 30 and 29 bits, l_1 at most
2^30 + 2^8, any representative of the class. `reduced` makes the one in 0 … p − 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Word = npt.NDArray[np.uint64]
Limbs = tuple[Word, Word, Word]

BITS = 89
P = 2**BITS - 1
MASKS = (2**30 - 1, 2**30 - 1, 2**29 - 1)
_LOW, _TOP = np.uint64(MASKS[0]), np.uint64(MASKS[2])
_S30, _S29, _TWO = np.uint64(30), np.uint64(29), np.uint64(2)
# 2p, limb by limb above any slack number
_DOUBLE_P = tuple(np.uint64(2 * mask) for mask in MASKS)

# Numbers multiplied at once: the limbs of a block stay in a core's cache.
BLOCK = 1 << 12

# Contractions: five limbs of 18 bits, so that 2^17 products of two add up exactly in a float64.
SHORT_BITS = 18
SHORTS = 5
INNER_MAX = 1 << 17


def carried(l0: Word, l1: Word, l2: Word) -> Limbs:
    """Slack limbs of numbers whose limbs are any words under 2^63."""
    l1 = l1 + (l0 >> _S30)
    l2 = l2 + (l1 >> _S30)
    l0 = (l0 & _LOW) + (l2 >> _S29)
    return l0 & _LOW, (l1 & _LOW) + (l0 >> _S30), l2 & _TOP


def reduced(x: Limbs) -> Limbs:
    """The representative in 0 … p − 1."""
    # the second pass ends all carries but one of a number that is 2^89 − 1 + a little
    l0, l1, l2 = carried(*carried(*x))
    zero = (l0 == _LOW) & (l1 == _LOW) & (l2 == _TOP)
    if np.any(zero):
        keep = (~zero).astype(np.uint64)
        l0, l1, l2 = l0 * keep, l1 * keep, l2 * keep
    return l0, l1, l2


def joined(parts: Sequence[Limbs], axis: int = 0) -> Limbs:
    """Arrays one after the other."""
    l0, l1, l2 = (np.concatenate(limbs, axis=axis) for limbs in zip(*parts, strict=True))
    return l0, l1, l2


def taken(x: Limbs, key: Any) -> Limbs:
    return x[0][key], x[1][key], x[2][key]


def shaped(x: Limbs, shape: tuple[int, ...]) -> Limbs:
    return x[0].reshape(shape), x[1].reshape(shape), x[2].reshape(shape)


def add(a: Limbs, b: Limbs) -> Limbs:
    return carried(a[0] + b[0], a[1] + b[1], a[2] + b[2])


def sub(a: Limbs, b: Limbs) -> Limbs:
    return carried(*(x + (c - y) for x, c, y in zip(a, _DOUBLE_P, b, strict=True)))


def neg(a: Limbs) -> Limbs:
    return carried(*(c - x for c, x in zip(_DOUBLE_P, a, strict=True)))


def total(a: Limbs, axis: int) -> Limbs:
    """Σ over an axis of fewer than 2^32 numbers."""
    l0, l1, l2 = (np.asarray(limb.sum(axis=axis, dtype=np.uint64)) for limb in a)
    return carried(l0, l1, l2)


def times_small(a: Limbs, factor: int) -> Limbs:
    """a · factor, 0 ≤ factor < 2^32."""
    by = np.uint64(factor)
    return carried(a[0] * by, a[1] * by, a[2] * by)


def mul(a: Limbs, b: Limbs) -> Limbs:
    """a · b, broadcast as NumPy does."""
    if a[0].shape == b[0].shape and a[0].size > BLOCK:
        shape, size = a[0].shape, a[0].size
        left, right = [x.reshape(-1) for x in a], [x.reshape(-1) for x in b]
        out = [np.empty(size, np.uint64) for _ in range(3)]
        for at in range(0, size, BLOCK):
            here = slice(at, at + BLOCK)
            part = _mul([x[here] for x in left], [x[here] for x in right])
            for whole, limb in zip(out, part, strict=True):
                whole[here] = limb
        return shaped((out[0], out[1], out[2]), shape)
    return _mul(a, b)


def _mul(a: Sequence[Word], b: Sequence[Word]) -> Limbs:
    (a0, a1, a2), (b0, b1, b2) = a, b
    l0 = a0 * b0 + ((a1 * b2 + a2 * b1) << np.uint64(1))
    l1 = a0 * b1 + a1 * b0 + ((a2 * b2) << np.uint64(1))
    return carried(l0, l1, a0 * b2 + a1 * b1 + a2 * b0)


def contract(bilinear: Any, a: Limbs, b: Limbs, inner: int) -> Limbs:
    """bilinear(a, b) where each result adds up `inner` products: matrices and inner products."""
    if inner > INNER_MAX:
        raise ValueError(f"an inner product of more than {INNER_MAX} numbers")
    left, right = _shorts(a), _shorts(b)
    sums: list[Any] = [0] * (2 * SHORTS - 1)
    for i in range(SHORTS):
        for j in range(SHORTS):
            part = np.atleast_1d(np.asarray(bilinear(left[i], right[j])))
            sums[i + j] = sums[i + j] + part.astype(np.uint64)
    # weight 2^90 ≡ 2: five sums under 2^58
    low = [sums[k] + (_TWO * sums[k + SHORTS] if k + SHORTS < len(sums) else 0) for k in range(5)]
    mask, shift = np.uint64((1 << SHORT_BITS) - 1), np.uint64(SHORT_BITS)
    for _ in range(2):
        for k in range(4):
            low[k + 1] = low[k + 1] + (low[k] >> shift)
            low[k] = low[k] & mask
        low[0] = low[0] + _TWO * (low[4] >> shift)
        low[4] = low[4] & mask
    # short limbs at bits 0, 18, 36, 54, 72; low[0] may be some units over 18 bits
    n0, n1, n2, n3, n4 = low
    l0 = n0 + ((n1 & np.uint64(0xFFF)) << np.uint64(18))
    l1 = (n1 >> np.uint64(12)) + (n2 << np.uint64(6)) + ((n3 & np.uint64(0x3F)) << np.uint64(24))
    return carried(l0, l1, (n3 >> np.uint64(6)) + (n4 << np.uint64(12)))


def _shorts(x: Limbs) -> list[npt.NDArray[np.float64]]:
    l0, l1, l2 = reduced(x)
    mask = np.uint64((1 << SHORT_BITS) - 1)
    return [
        part.astype(np.float64)
        for part in (
            l0 & mask,
            (l0 >> np.uint64(18)) | ((l1 & np.uint64(0x3F)) << np.uint64(12)),
            (l1 >> np.uint64(6)) & mask,
            (l1 >> np.uint64(24)) | ((l2 & np.uint64(0xFFF)) << np.uint64(6)),
            l2 >> np.uint64(12),
        )
    ]


def of_int(value: int) -> Limbs:
    """One number, as arrays of no dimension that broadcast against any."""
    value %= P
    l0, l1, l2 = value & MASKS[0], value >> 30 & MASKS[1], value >> 60
    return (
        np.asarray(l0, np.uint64)[()],
        np.asarray(l1, np.uint64)[()],
        np.asarray(l2, np.uint64)[()],
    )


def of_words(words: Word) -> Limbs:
    """Two's complement words as signed numbers."""
    negative = words >> np.uint64(63)
    size = np.where(negative, np.uint64(0) - words, words)
    positive = (size & _LOW, (size >> _S30) & _LOW, size >> np.uint64(60))
    limbs = [np.where(negative, mask - x, x) for mask, x in zip(_LIMB_MASKS, positive, strict=True)]
    return limbs[0], limbs[1], limbs[2]


_LIMB_MASKS = tuple(np.uint64(mask) for mask in MASKS)


def to_words(x: Limbs) -> Word:
    """The representative in (−p/2, p/2), mod 2^64 as two's complement."""
    l0, l1, l2 = reduced(x)
    word: Word = l0 | (l1 << _S30) | (l2 << np.uint64(60))
    # where x is over p/2, x − p ≡ x + 1 mod 2^64
    word = word + (l2 >> np.uint64(28))
    return word


def to_ints(x: Limbs) -> list[int]:
    """Representatives in 0 … p − 1, flat."""
    flat = [limb.reshape(-1).tolist() for limb in reduced(x)]
    return [a + (b << 30) + (c << 60) for a, b, c in zip(*flat, strict=True)]


def of_ints(values: Sequence[int]) -> Limbs:
    whole = [value % P for value in values]
    l0, l1, l2 = (
        np.array([value >> at & mask for value in whole], np.uint64)
        for at, mask in zip((0, 30, 60), MASKS, strict=True)
    )
    return l0, l1, l2


class Stream:
    """Uniform numbers from an AES-256-CTR key stream; by default under a fresh key."""

    def __init__(self, key: bytes | None = None) -> None:
        key = os.urandom(32) if key is None else key
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def numbers(self, count: int) -> Limbs:
        """0 … 2^89 − 1; the class of 0 comes twice, once in 2^89."""
        drawn = np.frombuffer(self._encryptor.update(bytes(12 * count)), np.uint32)
        l0, l1, l2 = drawn.astype(np.uint64).reshape(3, count)
        return l0 & _LOW, l1 & _LOW, l2 & _TOP

    def bits(self, count: int) -> Word:
        drawn = np.frombuffer(self._encryptor.update(bytes((count + 7) // 8)), np.uint8)
        return np.unpackbits(drawn)[:count].astype(np.uint64)
