"""Boolean half of the ring: XOR-shared words, an adder on them, prefixes.

Layout as for integers: x = x_0 ^ x_1 ^ …, node i lacks x_i. XOR, shifts and permutations of bits
are local; an AND costs one round. How an AND is taken, and how a shared integer is put in as two
XOR-shared summands, is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from workers.mpc.engines.base import Shared, Word

Array = npt.NDArray[Any]


def _swap_mask(low: int, high: int) -> int:
    """Positions whose index has bit `low` set and bit `high` clear."""
    return sum(1 << at for at in range(64) if at >> low & 1 and not at >> high & 1)


# Swapping index bits 0-5, 1-4 and 2-3 moves the bit at position i to the reversal of i.
_SWAPS = [
    (np.uint64((1 << high) - (1 << low)), np.uint64(_swap_mask(low, high)))
    for low, high in ((0, 5), (1, 4), (2, 3))
]


@dataclass(frozen=True, slots=True)
class Bits:
    """A XOR-shared array as one node holds it."""

    words: tuple[Array, ...]

    def __xor__(self, other: Bits) -> Bits:
        return both(np.bitwise_xor, self, other)

    def map(self, fn: Any) -> Bits:
        return Bits(tuple(fn(word) for word in self.words))


class Gates(Protocol):
    """What these circuits take of their engine."""

    def bits_and(self, x: Bits, y: Bits) -> Bits:
        """x & y, one round."""

    def summands(self, a: Shared) -> tuple[Bits, Bits, Bits]:
        """XOR sharings of u and v with u + v = a, flat, and of u & v. Two rounds at most."""


def both(fn: Any, x: Bits, y: Bits) -> Bits:
    """fn word by word."""
    return Bits(tuple(fn(one, other) for one, other in zip(x.words, y.words, strict=True)))


def last_carry(gates: Gates, g: Bits, p: Bits) -> tuple[Bits, Bits, Bits]:
    """(high, x, y): the carry out of the last place is high ^ (x & y), in bit 0 of a byte.

    g and p hold 8, 16, 32 or 64 places each, neighbours of every level half of them apart.
    One round for each halving but the last.
    """
    while (width := g.words[0].dtype.itemsize) > 1:
        half = np.dtype(f"u{width // 2}")
        g_low, g_high = _halves(g, half)
        p_low, p_high = _halves(p, half)
        merged = gates.bits_and(_join(p_high, p_high), _join(g_low, p_low))
        count = len(g_low.words[0])
        g = g_high ^ merged.map(lambda word, n=count: word[:n])
        p = merged.map(lambda word, n=count: word[n:])
    for width in (4, 2):
        low = np.uint8((1 << width) - 1)
        g_low, g_high = _nibbles(g, width, low)
        p_low, p_high = _nibbles(p, width, low)
        # both products of the level side by side in one byte
        x = _beside(p_high, p_high, width)
        merged = gates.bits_and(x, _beside(g_low, p_low, width))
        g = g_high ^ merged.map(lambda byte, m=low: byte & m)
        p = merged.map(lambda byte, w=width, m=low: (byte >> np.uint8(w)) & m)
    one = np.uint8(1)
    g_low, g_high = _nibbles(g, 1, one)
    return g_high, _nibbles(p, 1, one)[1], g_low


def _beside(x: Bits, y: Bits, width: int) -> Bits:
    return both(lambda one, other: one | (other << np.uint8(width)), x, y)


def _nibbles(x: Bits, width: int, low: np.uint8) -> tuple[Bits, Bits]:
    return x.map(lambda byte: byte & low), x.map(lambda byte: (byte >> np.uint8(width)) & low)


def _halves(x: Bits, half: Any) -> tuple[Bits, Bits]:
    """Low and high halves of each word (little-endian)."""
    pair = x.map(lambda word: np.ascontiguousarray(word).view(half).reshape(-1, 2))
    return pair.map(lambda word: word[:, 0].copy()), pair.map(lambda word: word[:, 1].copy())


def _join(x: Bits, y: Bits) -> Bits:
    return both(lambda *parts: np.concatenate(parts), x, y)


def reverse_places(word: Word) -> Word:
    """Bit i moves to the place whose six-digit binary number is that of i read backwards."""
    for distance, mask in _SWAPS:
        moved = ((word >> distance) ^ word) & mask
        word = word ^ moved ^ (moved << distance)
    return word


def all_bits(gates: Gates, a: Shared) -> Bits:
    """The whole word of x as XOR shares, flat. 8 rounds at most: a parallel-prefix adder."""
    u, v, g = gates.summands(a)
    propagate = p = u ^ v
    count = len(propagate.words[0])
    for reach in (1, 2, 4, 8, 16, 32):
        shift = np.uint64(reach)
        lower = _join(g, p).map(lambda word, s=shift: word << s)
        merged = gates.bits_and(_join(p, p), lower)
        g = g ^ merged.map(lambda word: word[:count])
        p = merged.map(lambda word: word[count:])
    return propagate ^ g.map(lambda word: word << np.uint64(1))


def top_bit(gates: Gates, x: Bits) -> Bits:
    """The highest set bit of each word alone. 6 rounds: a prefix OR, then a local difference."""
    for reach in (1, 2, 4, 8, 16, 32):
        shift = np.uint64(reach)
        shifted = x.map(lambda word, s=shift: word >> s)
        x = x ^ shifted ^ gates.bits_and(x, shifted)
    return x ^ x.map(lambda word: word >> np.uint64(1))
