"""Signs on the verified ring: four rounds for few values, six for many.

x = A + B with A known to nodes 2 and 3, B to 0 and 1. Bit 63 of x is A ^ B ^ carry, and the carry
is merged of neighbouring places by (generate, propagate) as on three nodes (`ring_signs`). There
nodes 1 and 2 look up their share of a table at B's digit, each by itself, which nobody could check.
Here both sides say what they know, and a product is taken across (`VerifiedNet.across`):

- Few values: digits of eight bits. A's gives t[k] = [A ≥ 2^8 − k], B's h[k] = [B = k], so that
  generate = Σ t[k]·h[k] and generate ^ propagate = Σ t[k + 1]·h[k]. 256 bytes a value each.
- Many: digits of two bits, each side's as a_0, a_1 and a_0·a_1, 12 bytes a value:
  generate = a_1 b_1 ^ (a_1 a_0) b_0 ^ a_0 (b_1 b_0).

The answer becomes an integer without a round of its own. Beside the first round a random bit r is
made that nobody knows: r = p ^ q with p of streams 0 and 1, which nodes 2 and 3 have, q of streams
2 and 3; as bits and, across, as integers. The last AND is not shared but revealed, masked by r:
s ^ r = c, and s = c + (1 − 2c)·r is local. c is uniform to node k, which lacks stream k.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from workers.mpc.engines.ring_bits import Array, Bits, Gates, last_carry
from workers.mpc.engines.ring_signs import CARRIES, digits_of, low_bit, neighbours_of
from workers.mpc.engines.ring_verified_net import VerifiedNet

# For so many values tables of 256 bytes each are sent sooner than two more rounds.
FEW = 128
_FEW_BYTES, _MANY_BYTES = 256, 12
_BYTE = np.dtype(np.uint8)
_ONE, _TWO, _TOP = np.uint64(1), np.uint64(2), np.uint64(63)
# Row A: bit k is [A ≥ 2^8 − k], and place 0, which says never, stands for 2^8, which is certain.
_THRESHOLDS = CARRIES | np.eye(1, 32, dtype=np.uint8)
# Row B: bit k is [B = k].
_EQUALS = np.packbits(np.eye(256, dtype=np.uint8), axis=1, bitorder="little")


def signs(gates: Gates, net: VerifiedNet, half: Array) -> tuple[Array, ...]:
    """1 where the value is negative else 0, as words; `half` is this node's, A or B, flat."""
    count, a = half.size, net.me >= 2
    few = count <= FEW
    size = count * (_FEW_BYTES if few else _MANY_BYTES)
    known = np.empty(size + count, _BYTE)
    shifted = half << _ONE  # the carry out of bit 62 is then that out of the word
    if few:
        known[:size] = (_THRESHOLDS if a else _EQUALS)[digits_of(shifted)].reshape(-1)
    else:
        low, high = neighbours_of(shifted)
        known[:size] = np.concatenate([low, high, low & high]).view(_BYTE)
    known[size:] = half >> _TOP
    look = _looked_up if few else _multiplied
    across = net.across(known, lambda x, y: look(x[:size], y[:size]), xor=True)
    coin = {j: low_bit(byte) for j, byte in net.draw_each(count, _BYTE).items()}
    mine = coin[0] ^ coin[1] if a else coin[2] ^ coin[3]
    integers = net.across(mine.astype(np.uint64), np.multiply)
    net.speak()

    found, coin_words = across(), integers().exclusive_or()
    own = found.summands()
    carries = found.product
    if not few:  # propagate has the two sides' own a_1·a_0 as well
        for word, side in zip(carries, own, strict=True):
            word[count:] ^= side[size - 4 * count : size].view(np.uint32)
    generate, propagate = (
        Bits(tuple(word[at : at + count] for word in carries)) for at in (0, count)
    )
    top, x, y = last_carry(gates, generate, propagate)
    rest = top ^ Bits(tuple(low_bit(side[size:]) for side in own)) ^ Bits(tuple(coin.values()))
    held = list(zip(net.others, x.words, y.words, strict=True))
    terms = {
        (min(i, j), max(i, j)): (x_i ^ x_j) & (y_i ^ y_j)
        for (i, x_i, y_i), (j, x_j, y_j) in combinations(held, 2)
    }
    c = net.reveal(terms, rest.words).astype(np.uint64)
    flipped = _ONE - _TWO * c
    return tuple(
        word * flipped if j else word * flipped + c
        for j, word in zip(net.others, coin_words, strict=True)
    )


def _looked_up(thresholds: Array, equals: Array) -> Array:
    """generate and propagate of each digit: a byte of eight each, side by side as one array."""
    t, h = (facts.view(np.uint64).reshape(-1, 4) for facts in (thresholds, equals))
    places = np.empty((2, *h.shape), np.uint64)
    places[0] = h
    places[0, :, 0] &= ~_ONE
    places[1] = h << _ONE
    places[1] |= np.roll(h, 1, axis=1) >> _TOP
    places &= t
    bits = np.bitwise_count(np.bitwise_xor.reduce(places, axis=2)) & np.uint8(1)
    bits[1] ^= bits[0]
    packed: Array = np.packbits(bits.reshape(2, -1, 8), axis=2, bitorder="little").reshape(-1)
    return packed


def _multiplied(a: Array, b: Array) -> Array:
    """generate of each pair of places, and what propagate has of both sides: half a word each."""
    (a_low, a_high, a_both), (b_low, b_high, b_both) = (
        facts.view(np.uint32).reshape(3, -1) for facts in (a, b)
    )
    generate = (a_high & b_high) ^ (a_both & b_low) ^ (a_low & b_both)
    return np.concatenate([generate, (a_high & b_low) ^ (a_low & b_high)])
