"""Verified ring: replicated secret sharing over Z_2^64, four nodes, one of them may cheat.

x = x_0 + x_1 + x_2 + x_3 mod 2^64; node i lacks x_i. Four nodes in the manner of Dalskov, Escudero
and Keller, "Fantastic Four" (2021): whatever goes to a node is known to two of the others, so that
one sends and one checks (`ring_verified_net`). Whoever deviates in a product, a truncation or in
putting in bits is found in the next round, with one other suspect, before anything more is sent; in
an opening, before anything leaves the job. A cheat spoils what is computed, and shows nothing:
messages are masked whatever they are made of, and digests of what is made of a false message are
told to nobody.

What a node is told is masked by the stream of a key that it lacks; streams are never reused.
- product: for every two words i, j, the two nodes that hold both know one product of sums,
      x·y = Σ_{i<2≤j} (x_i + x_j)(y_i + y_j) − (x_0 − x_1)(y_0 − y_1) − (x_2 − x_3)(y_2 − y_3),
  three at each node, and put it in (`put_in`): six words on the wire, whatever the inner length.
  Bits likewise: over GF(2) x·y is the sum of all six.
- x = A + B with A = x_0 + x_1, known to nodes 2 and 3, and B = x_2 + x_3, known to 0 and 1. What is
  bilinear in anything made of A and anything made of B takes one round (`across`): the two are
  told masked, while the masks' product, which needs neither, is put in.
- truncation: A/2^d and B/2^d are put in; the product of the top bits makes the result exact. Of a
  product that is truncated the two terms inside A and B need no message. So one round, or two.
- sign: `ring_verified_signs`. Bits: A and B across the adder that three nodes use, too.
- bits to integers: p = b_0 ^ b_1 and q = b_2 ^ b_3 are taken across; p xor q = p + q − 2pq.
- noise: drawn by pairs of nodes, each from a seed of theirs, and put in like a product's terms.
- a sealed output gets a fresh sharing of 0 made of a seed that all four know: its addressee sees
  all four words, and must learn no more than their sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit
from apps.protocol.tickets import QUARTET
from workers.mpc.engines.base import Bilinear, Shared, Word, as_words, share_of
from workers.mpc.engines.ring_base import (
    Replicated,
    RingOutcome,
    Words,
    entering,
    run_replicated,
)
from workers.mpc.engines.ring_bits import Array, Bits
from workers.mpc.engines.ring_verified_net import CROSS, WITHIN, Across, Cheated, VerifiedNet, Way
from workers.mpc.engines.ring_verified_signs import signs
from workers.mpc.engines.running import entered
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.keystream import KEY_BYTES, Keystream
from workers.mpc.transport import Transport

__all__ = ["Cheated", "RingVerified", "run_verified"]

_WORD, _BYTE = np.dtype(np.uint64), np.dtype(np.uint8)
_ONE = np.uint64(1)
_TOP = np.uint64(63)
PAIRS_UNKNOWN = 3  # of the six pairs of nodes, to any one node


class RingVerified(Replicated):
    """One node's side of a computation. Every member must make the same calls."""

    def __init__(self, net: VerifiedNet) -> None:
        self.net = net
        self._knows_a = net.me >= 2  # words 0 and 1, else 2 and 3

    def _known(self, way: Way, words: Sequence[Array]) -> tuple[Array, Array] | None:
        """Words `to` and `absent`, for who holds both."""
        if self.net.me not in (way.frm, way.check):
            return None
        others = self.net.others
        return words[others.index(way.to)], words[others.index(way.absent)]

    def _half(self, words: Sequence[Array]) -> tuple[Array, Array]:
        """The two words of A at nodes 2 and 3, of B at nodes 0 and 1."""
        (half,) = (known for way in WITHIN if (known := self._known(way, words)) is not None)
        return half

    def _constant(self, words: Word) -> Words:
        """The public words as word 0, nothing elsewhere."""
        none = np.zeros_like(words)
        return tuple(none if j else words for j in self.net.others)

    # -- products -----------------------------------------------------------------------------

    def _product(self, bilinear: Bilinear, a: Shared, b: Shared, drop: int) -> Words:
        terms: list[tuple[Way, Array | None]] = []
        for way in (*CROSS, *WITHIN):
            x, y = self._known(way, a.words), self._known(way, b.words)
            if x is None or y is None:
                terms.append((way, None))
            elif way in CROSS:
                terms.append((way, np.atleast_1d(bilinear(x[0] + x[1], y[0] + y[1]))))
            else:
                terms.append((way, np.atleast_1d(bilinear(x[1] - x[0], y[0] - y[1]))))
        shape = next(term.shape for _, term in terms if term is not None)
        size = math.prod(shape)
        flat = [(way, None if term is None else term.reshape(-1)) for way, term in terms]
        words = self._put_in(flat[: len(CROSS)] if drop else flat, _WORD, size)
        if not drop:
            return tuple(word.reshape(shape) for word in words)
        within = next(value for _, value in flat[len(CROSS) :] if value is not None)
        first, second = self._half(words)
        return self._drop(first + second + within, drop, shape)

    def _put_in(
        self, terms: Sequence[tuple[Way, Array | None]], kind: Any, size: int, *, xor: bool = False
    ) -> Words:
        words_of = self.net.put_in(terms, kind, size, xor=xor)
        self.net.speak()
        return words_of()

    def _truncate(self, a: Shared, drop: int) -> Words:
        first, second = self._half(a.words)
        return self._drop((first + second).reshape(-1), drop, a.shape)

    def _drop(self, half: Word, drop: int, shape: tuple[int, ...]) -> Words:
        """A at nodes 2 and 3, B at 0 and 1; v = A + B, |v| < 2^62 -> ⌊v/2^drop⌋ + {0, 1}.

        One round. A is raised by 2^62 first. As integers A + B is then v + 2^62 < 2^63, and 2^64
        more exactly where one of their top bits a, b is set. So
        ⌈A/2^drop⌉ + ⌊B/2^drop⌋ − (1 − (1 − a)(1 − b))·2^(64 − drop) = ⌊(v + 2^62)/2^drop⌋ + {0, 1};
        of the product of bits only the value mod 2^drop counts.
        """
        assert 1 <= drop <= 62
        net, shift, size = self.net, np.uint64(drop), half.size
        bit = np.dtype(np.uint16 if drop <= 16 else np.uint32 if drop <= 32 else np.uint64)
        if self._knows_a:
            half = half + (_ONE << np.uint64(62))
        part = half >> shift
        if self._knows_a:
            part += (half & ((_ONE << shift) - _ONE)) != 0
            part -= (_ONE << np.uint64(64 - drop)) + (_ONE << np.uint64(62 - drop))
        known = [(way, part if net.me in (way.frm, way.check) else None) for way in WITHIN]
        words_of = net.put_in(known, _WORD, size)
        clear = ((half >> _TOP) ^ _ONE).astype(bit)
        neither = self._across(clear, np.multiply).product
        wrap = np.uint64(64 - drop)
        return tuple(
            (word + (product.astype(np.uint64) << wrap)).reshape(shape)
            for word, product in zip(words_of(), neither, strict=True)
        )

    def _across(self, half: Array, multiply: Any, *, xor: bool = False) -> Across:
        across = self.net.across(half, multiply, xor=xor)
        self.net.speak()
        return across()

    # -- bits ---------------------------------------------------------------------------------

    def bits_and(self, x: Bits, y: Bits) -> Bits:
        shape, kind = x.words[0].shape, x.words[0].dtype
        terms: list[tuple[Way, Array | None]] = []
        for way in (*CROSS, *WITHIN):
            one, other = self._known(way, x.words), self._known(way, y.words)
            if one is None or other is None:
                terms.append((way, None))
            else:
                term = (one[0] ^ one[1]) & (other[0] ^ other[1])
                terms.append((way, term.reshape(-1)))
        words = self._put_in(terms, kind, math.prod(shape), xor=True)
        return Bits(tuple(word.reshape(shape) for word in words))

    def summands(self, a: Shared) -> tuple[Bits, Bits, Bits]:
        """A and B."""
        first, second = self._half(a.words)
        found = self._across((first + second).reshape(-1), np.bitwise_and, xor=True)
        none = np.zeros_like(found.e_a)
        words = list(zip(self.net.others, found.summands(), strict=True))
        return (
            Bits(tuple(word if j < 2 else none for j, word in words)),
            Bits(tuple(none if j < 2 else word for j, word in words)),
            Bits(found.product),
        )

    def _to_integers(self, bit: Bits) -> Words:
        shape = bit.words[0].shape
        first, second = self._half(bit.words)
        half = (first ^ second).reshape(-1).astype(np.uint64)
        return tuple(word.reshape(shape) for word in self._across(half, np.multiply).exclusive_or())

    def _signs(self, words: Words) -> Words:
        first, second = self._half(words)
        return signs(self, self.net, first + second)

    # -- noise --------------------------------------------------------------------------------

    def _noise(self, count: int, variance: int) -> Words:
        """Two nodes draw the same numbers from a seed that only they know, and put them in: so
        nobody brings in others than it has drawn. A node knows those of three pairs of the six."""
        terms: list[tuple[Way, Array | None]] = []
        for way in (*CROSS, *WITHIN):
            # `to` lacks one half of the seed, `absent` the other
            halves = [
                self.net.draw(j, KEY_BYTES, _BYTE).tobytes()
                for j in (way.to, way.absent)
                if j != self.net.me
            ]
            if self.net.me not in (way.frm, way.check):
                terms.append((way, None))
                continue
            seed = hashlib.sha256(b"flai/ring_verified/noise\0" + b"".join(halves)).digest()
            drawn = discrete_gaussian(Keystream(seed), share_of(variance, PAIRS_UNKNOWN), count)
            terms.append((way, as_words(drawn)))
        return self._put_in(terms, _WORD, count)

    # -- what leaves --------------------------------------------------------------------------

    def _missing(self, words: Words) -> Array:
        return self.net.missing(words)

    def refresh(self, a: Shared) -> Shared:
        """Words 0, 1, 2 take a stream each that all four know, word 3 what makes up for them."""
        size = math.prod(a.shape)
        masks = [self.net.common.words(size).reshape(a.shape) for _ in range(3)]
        masks.append(np.uint64(0) - masks[0] - masks[1] - masks[2])
        pairs = zip(self.net.others, a.words, strict=True)
        return Shared(tuple(word + masks[j] for j, word in pairs), a.f)

    def settle(self) -> None:
        self.net.check()


def run_verified(
    circuit: Circuit,
    shares: Mapping[str, Sequence[Words]],
    params: Mapping[str, Any],
    transport: Transport,
    *,
    context: bytes = b"",
) -> RingOutcome:
    """Run a circuit together with the three other members of `transport`; blocks.

    shares[slot]: per member, in roster order, words (me+1)%4, (me+2)%4, (me+3)%4 as uint64.
    context: bytes that must be equal at all members (the digest of the job's descriptor).
    Raises: BadParams, ValueError (shapes); Cheated, Disagreement; PeerLost, DeadlineExceeded.
    """
    secrets = entered(circuit, shares, params, entering(QUARTET))
    net = VerifiedNet(transport, context)
    return run_replicated(circuit, RingVerified(net), net, secrets, params)
