"""Boolean half of the ring: XOR-shared words, an adder on them, and bits back to integers.

Layout as for integers: x = x_0 ^ x_1 ^ x_2, node i lacks x_i. XOR, shifts and permutations of bits
are local; an AND costs one round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.mpc.engines.base import Shared, Word
from workers.mpc.engines.ring_net import Array, Net


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

    first: Array
    second: Array

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.first ^ other.first, self.second ^ other.second)

    def map(self, fn: Any) -> Bits:
        return Bits(fn(self.first), fn(self.second))


def bits_and(net: Net, x: Bits, y: Bits) -> Bits:
    """x & y, one round; z_i = the cross terms that node i can form, masked."""
    part = (x.first & (y.first ^ y.second)) ^ (x.second & y.first)
    part ^= net.zero_xor(part.shape, part.dtype)
    return Bits(part, net.pass_left(part))


def summands(net: Net, a: Shared) -> tuple[Bits, Bits]:
    """XOR sharings of u = x_1 + x_2 (known to node 0) and v = x_0, flat; u + v = x.

    Node 0 masks u with the stream of word 1, which node 1 cannot compute, and sends the rest to
    node 1; v needs no message: it is word 0 of its own sharing.
    """
    first, second = (word.reshape(-1) for word in a.words)
    none = np.zeros_like(first)
    if net.me == 0:
        mask = net.first.words(first.size)
        rest = (first + second) ^ mask
        net.send(1, rest)
        net.step()
        return Bits(mask, rest), Bits(none, none)
    if net.me == 1:
        rest = net.recv(0, first.size)
        net.step()
        return Bits(rest, none), Bits(none, second)
    mask = net.second.words(first.size)
    net.step()
    return Bits(none, mask), Bits(first, none)


def sign_bits(net: Net, a: Shared) -> Bits:
    """Bit 63 of x, flat, in bit 0 of a byte. 8 rounds, about 25 bytes a value.

    x = u + v, so bit 63 is u ^ v ^ carry. Only that one carry is wanted: (generate, propagate) of
    neighbours are merged in a tree of depth 6, each level on half as many bits. The places of
    the bits are reversed first (as in an FFT), so that at every level neighbours lie half a word
    apart and the level is one AND of two halves.
    """
    u, v = summands(net, a)
    propagate = u ^ v
    sign = propagate.map(lambda word: (word >> np.uint64(63)).astype(np.uint8))
    generate = bits_and(net, u, v)
    # shifted by one: the carry out of bit 62 becomes the carry out of the word
    g = generate.map(lambda word: _reverse_places(word << np.uint64(1)))
    p = propagate.map(lambda word: _reverse_places(word << np.uint64(1)))
    for half in (np.uint32, np.uint16, np.uint8):
        g_low, g_high = _halves(g, half)
        p_low, p_high = _halves(p, half)
        both = bits_and(net, _join(p_high, p_high), _join(g_low, p_low))
        count = len(g_low.first)
        g = g_high ^ both.map(lambda word, n=count: word[:n])
        p = both.map(lambda word, n=count: word[n:])
    for width in (4, 2, 1):
        low = np.uint8((1 << width) - 1)
        g_low, g_high = _nibbles(g, width, low)
        p_low, p_high = _nibbles(p, width, low)
        # both products of the level side by side in one byte
        x = Bits(*(h | (h << np.uint8(width)) for h in (p_high.first, p_high.second)))
        y = Bits(
            g_low.first | (p_low.first << np.uint8(width)),
            g_low.second | (p_low.second << np.uint8(width)),
        )
        both = bits_and(net, x, y)
        g = g_high ^ both.map(lambda byte, m=low: byte & m)
        p = both.map(lambda byte, w=width, m=low: (byte >> np.uint8(w)) & m)
    return sign ^ g


def _nibbles(x: Bits, width: int, low: np.uint8) -> tuple[Bits, Bits]:
    return x.map(lambda byte: byte & low), x.map(lambda byte: (byte >> np.uint8(width)) & low)


def _halves(x: Bits, half: Any) -> tuple[Bits, Bits]:
    """Low and high halves of each word (little-endian)."""
    pair = x.map(lambda word: np.ascontiguousarray(word).view(half).reshape(-1, 2))
    return pair.map(lambda word: word[:, 0].copy()), pair.map(lambda word: word[:, 1].copy())


def _join(x: Bits, y: Bits) -> Bits:
    return Bits(np.concatenate([x.first, y.first]), np.concatenate([x.second, y.second]))


def _reverse_places(word: Word) -> Word:
    """Bit i moves to the place whose six-digit binary number is that of i read backwards."""
    for distance, mask in _SWAPS:
        moved = ((word >> distance) ^ word) & mask
        word = word ^ moved ^ (moved << distance)
    return word


def all_bits(net: Net, a: Shared) -> Bits:
    """The whole word of x as XOR shares, flat. 8 rounds: a parallel-prefix adder."""
    u, v = summands(net, a)
    propagate = u ^ v
    g, p = bits_and(net, u, v), propagate
    count = len(propagate.first)
    for reach in (1, 2, 4, 8, 16, 32):
        shift = np.uint64(reach)
        lower = _join(g, p).map(lambda word, s=shift: word << s)
        both = bits_and(net, _join(p, p), lower)
        g = g ^ both.map(lambda word: word[:count])
        p = both.map(lambda word: word[count:])
    return propagate ^ g.map(lambda word: word << np.uint64(1))


def top_bit(net: Net, x: Bits) -> Bits:
    """The highest set bit of each word alone. 6 rounds: a prefix OR, then a local difference."""
    for reach in (1, 2, 4, 8, 16, 32):
        shift = np.uint64(reach)
        shifted = x.map(lambda word, s=shift: word >> s)
        x = x ^ shifted ^ bits_and(net, x, shifted)
    return x ^ x.map(lambda word: word >> np.uint64(1))


def to_integers(net: Net, bit: Bits) -> tuple[Word, Word]:
    """XOR-shared bits (in bit 0) -> the integers 0 and 1, replicated. 2 rounds.

    Node 0 shares p = b_1 ^ b_2 as in `summands`, with subtraction for the mask; q = b_0 is word 0
    of its own sharing; p xor q = p + q − 2pq.
    """
    first, second = bit.first.reshape(-1), bit.second.reshape(-1)
    none = np.zeros(first.size, np.uint64)
    if net.me == 0:
        mask = net.first.words(first.size)
        rest = (first ^ second).astype(np.uint64) - mask
        net.send(1, rest)
        p, q = (mask, rest), (none, none)
    elif net.me == 1:
        rest = net.recv(0, first.size)
        p, q = (rest, none), (none, second.astype(np.uint64))
    else:
        mask = net.second.words(first.size)
        p, q = (none, mask), (first.astype(np.uint64), none)
    net.step()
    both = net.reshare(p[0] * (q[0] + q[1]) + p[1] * q[0])
    two = np.uint64(2)
    shape = bit.first.shape
    return (
        (p[0] + q[0] - two * both[0]).reshape(shape),
        (p[1] + q[1] - two * both[1]).reshape(shape),
    )
