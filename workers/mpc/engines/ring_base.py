"""What all replicated rings share: an operation needs only products, openings, and bits put in.

A secret is n words mod 2^64 (or bits, XOR-shared alike), node i lacks word i: `Shared.words` and
`Bits.words` are the n − 1 that this node holds, from its own index upwards, round.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit
from workers.mpc.engines import ring_bits
from workers.mpc.engines.base import Engine, Ints, Shared, Word
from workers.mpc.engines.counted import Counted
from workers.mpc.engines.ring_bits import Array, Bits
from workers.mpc.engines.running import Enter, Secrets, run_declared

Words = tuple[Word, ...]

# Values compared at once: bounds the memory of one comparison to some 30 MB.
COMPARE_MAX = 1 << 17
# A top bit is found by so many comparisons at most, else bit by bit: half the rounds, more to send.
COMPARISONS_MAX = 1 << 12
_ONE = np.uint64(1)


class Replicated(Engine):
    """One node's side of a computation. Every member must make the same calls."""

    # -- what a ring must bring, besides constants, products and truncation ---------------------

    @abstractmethod
    def bits_and(self, x: Bits, y: Bits) -> Bits:
        """x & y, one round."""

    @abstractmethod
    def summands(self, a: Shared) -> tuple[Bits, Bits, Bits]:
        """XOR sharings of u and v with u + v = a, flat, and of u & v. Two rounds at most."""

    @abstractmethod
    def _to_integers(self, bit: Bits) -> Words:
        """XOR-shared bits (in bit 0) -> the integers 0 and 1, replicated. 2 rounds at most."""

    @abstractmethod
    def _signs(self, words: Words) -> Words:
        """1 where the value of these flat words is negative else 0."""

    @abstractmethod
    def _missing(self, words: Words) -> Array:
        """The word (or XOR share) that this node lacks of what is opened. Raises: Disagreement."""

    @abstractmethod
    def refresh(self, a: Shared) -> Shared:
        """The same value on fresh words: nothing of the computation's history leaves with it."""

    def settle(self) -> None:
        """Called once, last: what the members still have to settle before an outcome leaves."""

    # -- what follows ---------------------------------------------------------------------------

    def _negative(self, a: Shared) -> Words:
        size = math.prod(a.shape)
        if size <= COMPARE_MAX:
            words = self._signs(tuple([word.reshape(-1) for word in a.words]))
            return tuple([word.reshape(a.shape) for word in words])
        parts = [
            self._signs(tuple(word.reshape(-1)[at : at + COMPARE_MAX] for word in a.words))
            for at in range(0, size, COMPARE_MAX)
        ]
        return tuple(np.concatenate(words).reshape(a.shape) for words in zip(*parts, strict=True))

    def _top_bits(self, a: Shared, low: int, high: int) -> Words:
        size = math.prod(a.shape)
        if size * (high - low) > COMPARISONS_MAX:
            top = ring_bits.top_bit(self, ring_bits.all_bits(self, a))
            return self._spread(top, low, high, a.shape)
        # below[j]: a < 2^(low + j); the top bit is where that changes
        powers = _ONE << np.arange(low, high, dtype=np.uint64).repeat(size)
        wide = Shared(tuple(np.tile(word.reshape(-1), high - low) for word in a.words), a.f)
        below = self._negative(self.add_public(wide, np.uint64(0) - powers))
        words = []
        for word, one in zip(below, self._constant(np.ones((1, size), np.uint64)), strict=True):
            steps = word.reshape(high - low, size)
            words.append((np.concatenate([steps[1:], one]) - steps).reshape(-1, *a.shape))
        return tuple(words)

    def _bits(self, a: Shared, low: int, high: int) -> Words:
        return self._spread(ring_bits.all_bits(self, a), low, high, a.shape)

    def _spread(self, bits: Bits, low: int, high: int, shape: tuple[int, ...]) -> Words:
        """Each of the bits low … high − 1 as an integer of its own, in front of the shape."""
        places = np.arange(low, high, dtype=np.uint64).reshape(-1, 1)
        spread = bits.map(lambda word: (word >> places) & _ONE)
        return tuple(word.reshape(high - low, *shape) for word in self._to_integers(spread))

    def open(self, a: Shared) -> Ints:
        return reduce(np.add, a.words, self._missing(a.words)).astype(np.int64)

    def open_rounded(self, a: Shared) -> Ints:
        if a.f == 0:
            return self.open(a)
        bits = ring_bits.all_bits(self, self.add_public(a, 1 << (a.f - 1)))
        # arithmetic shift of each share: sign bits are XOR-shared like all others
        upper = bits.map(lambda word: (word.astype(np.int64) >> a.f).astype(np.uint64))
        opened = reduce(np.bitwise_xor, upper.words, self._missing(upper.words))
        return opened.astype(np.int64).reshape(a.shape)


@dataclass(frozen=True)
class RingOutcome:
    """One node's side of a finished run; words in the order of `Shared.words`."""

    openings: dict[str, Any]
    result: Words | None
    sealed: Words | None
    result_shape: tuple[int, ...] | None
    sealed_shape: tuple[int, ...] | None
    result_f: int | None
    sealed_f: int | None
    rounds: int
    bytes_sent: int


def run_replicated(
    circuit: Circuit,
    ring: Replicated,
    net: Counted,
    secrets: Secrets,
    params: Mapping[str, Any],
) -> RingOutcome:
    """The circuit's outcome at this node. Raises: Disagreement; PeerLost, DeadlineExceeded."""
    with np.errstate(over="ignore"):
        outcome = run_declared(circuit, ring, secrets, params)
        result: Any = outcome.result
        sealed: Any = None if outcome.sealed is None else ring.refresh(outcome.sealed)  # type: ignore[arg-type]
        ring.settle()
    return RingOutcome(
        openings=outcome.openings,
        result=None if result is None else result.words,
        sealed=None if sealed is None else sealed.words,
        result_shape=None if result is None else result.shape,
        sealed_shape=None if sealed is None else sealed.shape,
        result_f=None if result is None else result.f,
        sealed_f=None if sealed is None else sealed.f,
        rounds=net.rounds,
        bytes_sent=net.bytes_sent,
    )


def entering(nodes: int) -> Enter:
    """How a share enters a ring of so many nodes: all but one of its words."""

    def enter(share: Words, shape: tuple[int, ...], f: int) -> Shared:
        words = tuple(np.asarray(word) for word in share)
        if len(words) != nodes - 1 or any(word.dtype != np.uint64 for word in words):
            raise ValueError(f"a share is {nodes - 1} arrays of 64-bit words")
        if any(word.size != math.prod(shape) for word in words):
            raise ValueError("a share does not have the size that the parameters say")
        return Shared(tuple(word.reshape(shape) for word in words), f)

    return enter
