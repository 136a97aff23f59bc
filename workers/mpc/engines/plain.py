"""Plain engine: the same fixed-point arithmetic in the clear, the oracle of every circuit.

It floors where the ring may round up by one unit in the last place, wraps where the ring wraps,
and raises OverflowError where a truncated intermediate leaves |word| < 2^62, so that a circuit's
bounds show in tests instead of as noise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit, Outcome
from apps.protocol.tickets import TRIO
from workers.mpc.engines.base import Bilinear, Engine, Ints, Shared, Word, as_words, share_of
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.keystream import KEY_BYTES, Keystream

Noise = Callable[[int, int], Ints]

LIMIT = 2.0**62


class Plain(Engine):
    """Secrets are one array of words.

    noise: (count, variance) -> what is taken for noise; by default as three nodes make it.
    """

    def __init__(self, noise: Noise | None = None) -> None:
        self._drawn = noise or three_nodes_noise

    def _constant(self, words: Word) -> tuple[Word, ...]:
        return (words,)

    def _product(self, bilinear: Bilinear, a: Shared, b: Shared, drop: int) -> tuple[Word, ...]:
        exact = np.atleast_1d(np.asarray(bilinear(a.words[0], b.words[0])))
        if not drop:
            return (exact,)
        size = bilinear(signed(a).astype(np.float64), signed(b).astype(np.float64))
        return self._drop(exact, np.abs(size), drop)

    def _truncate(self, a: Shared, drop: int) -> tuple[Word, ...]:
        return self._drop(a.words[0], np.abs(signed(a).astype(np.float64)), drop)

    def _drop(self, word: Word, size: Any, drop: int) -> tuple[Word, ...]:
        if np.any(size >= LIMIT):
            raise OverflowError("a truncated intermediate leaves the word")
        return ((word.astype(np.int64) >> drop).astype(np.uint64),)

    def _negative(self, a: Shared) -> tuple[Word, ...]:
        return (a.words[0] >> np.uint64(63),)

    def _top_bits(self, a: Shared, low: int, high: int) -> tuple[Word, ...]:
        values = signed(a)
        if np.any(values < 0) or np.any(values >= 1 << high):
            raise OverflowError("argument outside the declared bits")
        places = np.arange(low, high, dtype=np.int64).reshape(-1, *[1] * values.ndim)
        return (((values >> places) == 1).astype(np.uint64),)

    def _bits(self, a: Shared, low: int, high: int) -> tuple[Word, ...]:
        places = np.arange(low, high, dtype=np.uint64).reshape(-1, *[1] * len(a.shape))
        return ((a.words[0] >> places) & np.uint64(1),)

    def within(self, a: Shared, low: int, high: int) -> Shared:
        values = signed(a)
        if np.any(values < low) or np.any(values > high):
            raise OverflowError("a value is not within what its circuit declares")
        return a

    def _noise(self, count: int, variance: int) -> tuple[Word, ...]:
        return (as_words(self._drawn(count, variance)),)

    def open(self, a: Shared) -> Ints:
        return signed(a)

    def open_rounded(self, a: Shared) -> Ints:
        if a.f == 0:
            return signed(a)
        rounded: Ints = (signed(a) + (1 << (a.f - 1))) >> a.f
        return rounded


def signed(a: Shared) -> Ints:
    """The word as a signed integer."""
    return a.words[0].astype(np.int64)


def three_nodes_noise(count: int, variance: int) -> Ints:
    """The sum of what each of the ring's three nodes draws, of half of the variance each."""
    drawn = [
        discrete_gaussian(Keystream(os.urandom(KEY_BYTES)), share_of(variance, 2), count)
        for _ in range(TRIO)
    ]
    total: Ints = np.sum(drawn, axis=0, dtype=np.int64)
    return total


def run_plain(
    circuit: Circuit,
    values: Mapping[str, Sequence[Any]],
    params: Mapping[str, Any],
    *,
    noise: Noise | None = None,
) -> Outcome:
    """Run in the clear. values[slot]: per member an integer array at the slot's f."""
    circuit.validate(params)
    secrets = {
        name: [
            Shared((as_words(value).reshape(slot.shape(params, place)),), slot.f)
            for place, value in enumerate(values[name])
        ]
        for name, slot in circuit.slots.items()
    }
    with np.errstate(over="ignore"):
        return circuit.run(Plain(noise), secrets, params)
