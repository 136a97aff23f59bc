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
# Numpy takes an array without dimensions sooner than a number that it has to look at first.
_BIT = np.array(1, np.uint8)
_WIDTHS = [(np.array(width, np.uint8), np.array((1 << width) - 1, np.uint8)) for width in (4, 2)]


@dataclass(frozen=True, slots=True)
class Bits:
    """A XOR-shared array as one node holds it."""

    words: tuple[Array, ...]

    def __xor__(self, other: Bits) -> Bits:
        return both(np.bitwise_xor, self, other)

    def map(self, fn: Any) -> Bits:
        return Bits(tuple(map(fn, self.words)))


class Gates(Protocol):
    """What these circuits take of their engine."""

    def bits_and(self, x: Bits, y: Bits) -> Bits:
        """x & y, one round."""

    def summands(self, a: Shared) -> tuple[Bits, Bits, Bits]:
        """XOR sharings of u and v with u + v = a, flat, and of u & v. Two rounds at most."""


def both(fn: Any, x: Bits, y: Bits) -> Bits:
    """fn word by word."""
    return Bits(tuple(map(fn, x.words, y.words)))


def last_carry(gates: Gates, g: Bits, p: Bits) -> tuple[Bits, Bits, Bits]:
    """(high, x, y): the carry out of the last place is high ^ (x & y), in bit 0 of a byte.

    g and p hold 8, 16, 32 or 64 places each, neighbours of every level half of them apart.
    One round for each halving but the last.
    """
    # [2 (generate, propagate), count] of each word
    state = np.array([*zip(g.words, p.words, strict=True)])
    while (places := state.dtype.itemsize // 2) > 0:
        half = state.view(f"u{places}")
        state = _merged(gates, half[..., ::2].copy(), half[..., 1::2].copy())
    for width, mask in _WIDTHS:
        state = _merged(gates, state & mask, state >> width)
    low, high = state & _BIT, (state >> _BIT) & _BIT
    return Bits((*high[:, 0],)), Bits((*high[:, 1],)), Bits((*low[:, 0],))


def _merged(gates: Gates, low: Array, high: Array) -> Array:
    """(generate, propagate) of neighbours as those of one place, [word, 2, count]: a carry comes
    out of both if it comes out of the high one, or out of the low one and through the high one."""
    through = np.empty_like(low)
    through[:] = high[:, 1:]
    merged = np.array(gates.bits_and(Bits((*through,)), Bits((*low,))).words)
    merged[:, 0] ^= high[:, 0]
    return merged


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
