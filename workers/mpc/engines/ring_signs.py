"""Signs on the ring of three nodes: five rounds for few values, seven for many.

x = u + v with u = x_1 + x_2, which node 0 knows, and v = x_0, which nodes 1 and 2 know. Bit 63 of x
is u ^ v ^ carry. Neighbouring places are merged by (generate, propagate) as in `ring_bits`, but the
first levels need no AND: as functions of v they are linear in what node 0 knows of u, which nodes 1
and 2 hold XOR-shared (word 1 is the stream that node 1 lacks, word 2 the rest).

- Few values: u in digits of eight bits, [u ≥ 2^8 − d] for each d. Nodes 1 and 2 look up their share
  at v's digit: it is the digit's carry, and that of v + 1 tells propagate. 256 bytes a value.
- Many: u in digits of two bits, as u_0, u_1 and u_0·u_1, 12 bytes a value:
  carry = u_1 v_1 ^ (u_1 u_0) v_0 ^ u_0 (v_1 v_0).

The answer becomes an integer without a round of its own. Beside the first two rounds a random bit r
is made that nobody knows: r = p ^ q, p from streams that node 0 has, q from one that it lacks, both
as bits and as integers. The last AND is not shared but opened, masked by r: s ^ r = c, and
s = c + (1 − 2c)·r is local. c is uniform to each node: r has a stream that it lacks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workers.mpc.engines.base import Word
from workers.mpc.engines.ring_bits import Array, Bits, Gates, last_carry, reverse_places
from workers.mpc.engines.ring_net import Net

Pair = tuple[Word, Word]

# For so many values a table of 256 bytes each is sent sooner than two more rounds.
FEW = 512
_FEW_BYTES, _MANY_BYTES = 256, 12
_BYTE, _WORD = np.dtype(np.uint8), np.dtype(np.uint64)
_ONE, _TWO, _TOP = (np.array(number, np.uint64) for number in (1, 2, 63))
_BIT, _IN_ROW, _ROW_BITS = (np.array(number, np.uint8) for number in (1, 7, 3))
# Digits in the order in which neighbours lie half a byte apart, at each level anew.
_PLACES = [0, 4, 2, 6, 1, 5, 3, 7]
# Row u: bit d is [u ≥ 2^8 − d], the carry of u + d.
CARRIES = np.packbits(np.add.outer(range(256), range(256)) > 255, axis=1, bitorder="little")


class _Begun(NamedTuple):
    """What this node holds before anything is shared anew."""

    carries: Array  # its part of (generate, propagate) of each value's digits
    top: Bits  # u ^ v at bit 63
    coin: Bits  # r
    p: Pair  # r = p + q − 2pq as integers
    q: Pair
    both: Word  # its part of p·q


def signs(gates: Gates, net: Net, first: Word, second: Word) -> Pair:
    """1 where the value is negative else 0, replicated; the words are this node's, flat."""
    count = first.size
    few = count <= FEW
    facts_bytes = count * (_FEW_BYTES if few else _MANY_BYTES)
    begun = (
        _begun_by_0(net, first + second, facts_bytes, few)
        if net.me == 0
        else _begun(net, second if net.me == 1 else first, facts_bytes, few)
    )
    net.step()
    carries, both = net.pass_left(
        begun.carries ^ net.zero_xor(begun.carries.shape, begun.carries.dtype),
        begun.both + net.zero(begun.both.shape),
    )
    half = np.uint8 if few else np.uint32
    merged = [word.view(half) for word in carries]
    generate, propagate = (
        Bits(tuple(word[at : at + count] for word in merged)) for at in (0, count)
    )
    high, x, y = last_carry(gates, generate, propagate)
    c = net.open_and(x, y, high ^ begun.top ^ begun.coin).astype(np.uint64)
    flipped = _ONE - _TWO * c
    words = [(p + q - _TWO * pq) * flipped for p, q, pq in zip(begun.p, begun.q, both, strict=True)]
    if net.me:  # c is word 0
        words[net.me % 2] += c
    return words[0], words[1]


def _begun_by_0(net: Net, u: Word, facts_bytes: int, few: bool) -> _Begun:
    count = u.size
    known = np.empty(facts_bytes + count, _BYTE)
    known[:facts_bytes] = (_tables if few else _products)(u << _ONE)
    known[facts_bytes:] = u >> _TOP
    mask = net.first.draw(known.size, _BYTE)
    known ^= mask
    coin = Bits((low_bit(net.first.draw(count, _BYTE)), low_bit(net.second.draw(count, _BYTE))))
    part = net.first.words(count)
    rest = (coin.words[0] ^ coin.words[1]) - part
    net.send(1, known, rest)
    none = np.zeros(count, _WORD)
    return _Begun(
        np.zeros(count, np.uint16 if few else np.uint64),
        Bits((low_bit(mask[facts_bytes:]), low_bit(known[facts_bytes:]))),
        coin,
        (part, rest),
        (none, none),
        none,
    )


def _begun(net: Net, v: Word, facts_bytes: int, few: bool) -> _Begun:
    count = v.size
    if net.me == 1:
        known, part = net.recv_parts(0, [(facts_bytes + count, _BYTE), (count, _WORD)])
        coin = low_bit(net.first.draw(count, _BYTE)), low_bit(net.second.draw(count, _BYTE))
        drawn = coin[1].astype(np.uint64)
    else:
        known = net.second.draw(facts_bytes + count, _BYTE)
        other = low_bit(net.second.draw(count, _BYTE))
        part = net.second.words(count)
        coin = low_bit(net.first.draw(count, _BYTE)), other
        drawn = coin[0].astype(np.uint64)
    look = _looked_up if few else _multiplied
    carries = look(known[:facts_bytes], v << _ONE, net.me == 1)
    none = np.zeros(count, _WORD)
    top = low_bit(known[facts_bytes:]), (v >> _TOP).astype(_BYTE)
    p, q = (part, none), (none, drawn)
    if net.me == 2:  # word 0 comes first
        top, p, q = top[::-1], p[::-1], q[::-1]
    return _Begun(carries, Bits(top), Bits(coin), p, q, part * drawn)


def low_bit(byte: Array) -> Array:
    return byte & _BIT


def digits_of(word: Word) -> Array:
    digits: Array = word.view(np.uint8).reshape(-1, 8)[:, _PLACES]
    return digits


def _tables(u: Word) -> Array:
    rows: Array = CARRIES[digits_of(u)]
    return rows.reshape(-1)


def _looked_up(share: Array, v: Word, ones: bool) -> Array:
    """[u + v ≥ 2^8] and [u + v = 2^8 − 1] of each digit: a byte each, side by side as one array."""
    digits = digits_of(v)
    rows = np.arange(0, share.size, 32).reshape(digits.shape)

    def at(digit: Array) -> Array:
        found: Array = share[rows + (digit >> _ROW_BITS)] >> (digit & _IN_ROW)
        return found

    generate = at(digits)
    # at 2^8 the carry is certain; the table's place 0, which says never, stands there
    propagate = at(digits + _BIT) ^ generate
    if ones:
        propagate ^= digits == 255
    both = np.concatenate([generate, propagate]) & _BIT
    return np.packbits(both, axis=1, bitorder="little").reshape(-1).view(np.uint16)


def _products(u: Word) -> Array:
    """u_0, u_1 and u_0·u_1 of neighbouring places."""
    low, high = neighbours_of(u)
    return np.concatenate([low, high, low & high]).view(np.uint8)


def _multiplied(share: Array, v: Word, ones: bool) -> Array:
    """generate and propagate of each pair of places: half a word each, side by side."""
    low, high = neighbours_of(v)
    both = low & high
    u_low, u_high, u_both = share.view(np.uint32).reshape(3, -1)
    generate = (u_high & high) ^ (u_both & low) ^ (u_low & both)
    propagate = u_both ^ (u_high & low) ^ (u_low & high)
    if ones:
        propagate ^= both
    return np.concatenate([generate, propagate]).view(np.uint64)


def neighbours_of(word: Word) -> tuple[Array, Array]:
    pairs = reverse_places(word).view(np.uint32)
    return pairs[::2].copy(), pairs[1::2].copy()
