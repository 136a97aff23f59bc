"""What every engine shares: linear operations, and functions composed of products and signs.

A secret is a tuple of uint64 arrays whose linear images are taken word by word: one array in the
plain engine, a node's two words in the ring. An engine adds constants, products with truncation,
sign bits, top bits and openings; all else is written here once.
"""

from __future__ import annotations

import hashlib
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.mpc.engines import tables
from workers.mpc.keystream import Keystream

Word = npt.NDArray[np.uint64]
_WORD = np.dtype(np.uint64)
Ints = npt.NDArray[np.int64]
Bilinear = Callable[[Any, Any], Any]

# Words in a block of a long linear sum: three such arrays stay in a core's cache.
BLOCK = 1 << 14

# Eight numbers of σ = 2^40: some 2^300 ways.
COIN_WORDS, COIN_VARIANCE = 8, 1 << 80
COIN_CONTEXT = b"flai/random sums/v1\0"

# What a product sums up is long enough for a loop along rows.
INNER_MIN = 16

# Fractional bits inside Newton iterations: products of two values under 4 stay under 2^60.
NEWTON_F = 28


@dataclass(frozen=True, slots=True)
class Shared:
    """A secret array as this engine holds it."""

    words: tuple[Word, ...]
    f: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words[0].shape


def as_words(ints: npt.ArrayLike) -> Word:
    """Signed integers as two's complement uint64, at least one-dimensional."""
    array = np.asarray(ints)
    if not array.ndim:
        array = array.reshape(1)
    if array.dtype is _WORD or array.dtype == _WORD:
        return array
    return array.astype(np.int64).astype(np.uint64)


def blocks(size: int) -> Iterator[slice]:
    """What stays in the cache, one after the other."""
    return (slice(at, min(at + BLOCK, size)) for at in range(0, size, BLOCK))


def share_of(variance: int, contributors: int) -> int:
    """The least whole variance of which so many make up at least this one."""
    return -(-variance // contributors)


def times(x: Any, y: Any) -> Any:
    return x * y


def inner(x: Any, y: Any) -> Any:
    """Σ over the last axis of x·y."""
    return np.atleast_1d(np.einsum("...i,...i->...", x, y))


def matmul(x: Any, y: Any) -> Any:
    """x @ y. Of words, numpy's own loop steps through y column by column: as sums of products along
    rows it takes a third to two thirds of the time, and less than float64 BLAS on limbs did."""
    if x.ndim != 2 or y.ndim != 2 or x.dtype != _WORD or len(x) == 1 or len(y) < INNER_MIN:
        return x @ y
    if x.shape[1] != len(y):
        raise ValueError("the inner dimensions of a product differ")
    return np.einsum("ik,jk->ij", np.ascontiguousarray(x), np.ascontiguousarray(y.T))


def runs(word: Any, order: Ints, starts: Ints, into: tuple[Ints, int]) -> Any:
    """Of each row of word [K, n], put in this order, the sums from one start to the next, at
    places into[0] of into[1], 0 elsewhere."""
    taken, size = into
    found, put = np.zeros((len(word), size), word.dtype), np.empty(len(order), word.dtype)
    for row, sums in zip(word, found, strict=True):
        # no place is outside, and "clip" is what fills an array that is there already
        row.take(order, mode="clip", out=put)
        sums[taken] = np.add.reduceat(put, starts)
    return found


class Engine(ABC):
    """See `apps.protocol.circuits.ops.Ops` for the meaning and cost of each operation."""

    # -- what an engine must bring ------------------------------------------------------------

    @abstractmethod
    def _constant(self, words: Word) -> tuple[Word, ...]:
        """Public words as a secret, without a message."""

    @abstractmethod
    def _product(self, bilinear: Bilinear, a: Shared, b: Shared, drop: int) -> tuple[Word, ...]:
        """bilinear(a, b) / 2^drop, exact to one unit in the last place."""

    @abstractmethod
    def _truncate(self, a: Shared, drop: int) -> tuple[Word, ...]:
        """a / 2^drop, exact to one unit in the last place; |a| < 2^62."""

    @abstractmethod
    def _negative(self, a: Shared) -> tuple[Word, ...]:
        """1 where a < 0 else 0, for any word."""

    @abstractmethod
    def _top_bits(self, a: Shared, low: int, high: int) -> tuple[Word, ...]:
        """[high − low, *shape]: 1 at j − low where 2^j ≤ a < 2^(j+1); all 0 when a < 2^low.

        0 ≤ a < 2^high ≤ 2^62.
        """

    @abstractmethod
    def _bits(self, a: Shared, low: int, high: int) -> tuple[Word, ...]:
        """[high − low, *shape]: the word's own bits low … high − 1."""

    @abstractmethod
    def _noise(self, count: int, variance: int) -> tuple[Word, ...]:
        """[count] discrete Gaussians, of each node's own making, summed: without those of any t
        nodes the variance is still at least this."""

    @abstractmethod
    def open(self, a: Shared) -> Ints:
        """Make a public: the integers, value · 2^f."""

    @abstractmethod
    def open_rounded(self, a: Shared) -> Ints:
        """Make public floor(a/2^f + ½) exactly, and nothing finer."""

    # -- linear -------------------------------------------------------------------------------

    def _map(self, a: Shared, fn: Callable[[Word], Any], f: int | None = None) -> Shared:
        words = tuple([as_words(fn(word)) for word in a.words])
        return Shared(words, a.f if f is None else f)

    def public(self, ints: npt.ArrayLike, f: int) -> Shared:
        return Shared(self._constant(as_words(ints)), f)

    def _aligned(self, a: Shared, b: Shared) -> tuple[Shared, Shared]:
        f = max(a.f, b.f)
        return self.lift(a, f), self.lift(b, f)

    def add(self, a: Shared, b: Shared) -> Shared:
        a, b = self._aligned(a, b)
        return Shared(tuple(map(operator.add, a.words, b.words)), a.f)

    def sub(self, a: Shared, b: Shared) -> Shared:
        a, b = self._aligned(a, b)
        return Shared(tuple(map(operator.sub, a.words, b.words)), a.f)

    def neg(self, a: Shared) -> Shared:
        return self._map(a, lambda word: np.uint64(0) - word)

    def add_public(self, a: Shared, ints: npt.ArrayLike) -> Shared:
        """a + ints / 2^f."""
        constant = np.broadcast_to(as_words(ints), a.shape)
        return self.add(a, Shared(self._constant(constant), a.f))

    def scale(self, a: Shared, ints: npt.ArrayLike, f: int = 0) -> Shared:
        """a · (ints / 2^f) exactly: the result has a.f + f fractional bits."""
        factor = as_words(ints)
        return self._map(a, lambda word: word * factor, a.f + f)

    def combine(self, a: Shared, table: npt.ArrayLike, f: int) -> Shared:
        """Σ_s a[s, …] · table[s, c] / 2^f exactly: [S, …] -> [C, …], f' = a.f + f."""
        weights = as_words(table)
        return self._map(a, lambda word: np.tensordot(weights.T, word, axes=1), a.f + f)

    def weighted_sum(self, items: Sequence[Shared], ints: Iterable[int]) -> Shared:
        """Σ_k ints[k] · items[k] exactly, in blocks that stay in the processor's cache."""
        factors = [np.uint64(factor % 2**64) for factor in ints]
        shape, size = items[0].shape, math.prod(items[0].shape)
        if len(factors) != len(items) or any(x.shape != shape or x.f != items[0].f for x in items):
            raise ValueError("a weighted sum takes equal secrets, each with its factor")
        totals = []
        for parts in zip(*(item.words for item in items), strict=True):
            flat = [part.reshape(-1) for part in parts]
            total = np.empty(size, np.uint64)
            scaled = np.empty(min(size, BLOCK), np.uint64)
            for at in blocks(size):
                here = total[at]
                np.multiply(flat[0][at], factors[0], out=here)
                for part, factor in zip(flat[1:], factors[1:], strict=True):
                    here += np.multiply(part[at], factor, out=scaled[: len(here)])
            totals.append(total.reshape(shape))
        return Shared(tuple(totals), items[0].f)

    def lift(self, a: Shared, f: int) -> Shared:
        """The same value with f ≥ a.f fractional bits."""
        if f < a.f:
            raise ValueError("lift cannot drop fractional bits; use trunc")
        return a if f == a.f else self._map(a, lambda word: word << np.uint64(f - a.f), f)

    def halve(self, a: Shared, times: int) -> Shared:
        """a / 2^times exactly, by reading the same word with more fractional bits."""
        return Shared(a.words, a.f + times)

    def sum(self, a: Shared, axis: int) -> Shared:
        return self._map(a, lambda word: word.sum(axis=axis, dtype=np.uint64))

    # -- shape --------------------------------------------------------------------------------

    def index(self, a: Shared, key: Any) -> Shared:
        return self._map(a, lambda word: word[key])

    def reshape(self, a: Shared, shape: Sequence[int]) -> Shared:
        return self._map(a, lambda word: word.reshape(tuple(shape)))

    def transpose(self, a: Shared) -> Shared:
        return self._map(a, lambda word: word.T)

    def broadcast(self, a: Shared, shape: Sequence[int]) -> Shared:
        return self._map(a, lambda word: np.broadcast_to(word, tuple(shape)))

    def stack(self, items: Sequence[Shared], axis: int = 0) -> Shared:
        return self._join(items, lambda words: np.stack(words, axis=axis))

    def concat(self, items: Sequence[Shared], axis: int = 0) -> Shared:
        return self._join(items, lambda words: np.concatenate(words, axis=axis))

    def _join(self, items: Sequence[Shared], fn: Callable[[Any], Any]) -> Shared:
        if len({item.f for item in items}) != 1:
            raise ValueError("joined secrets must have equal fractional bits")
        return Shared(
            tuple(fn(words) for words in zip(*(item.words for item in items), strict=True)),
            items[0].f,
        )

    # -- noise --------------------------------------------------------------------------------

    def noise(self, shape: Sequence[int], *, variance: int, f: int) -> Shared:
        """Numbers that no node knows nor can take back, of this variance in units of 2^−2f."""
        drawn = Shared(self._noise(math.prod(shape), variance), f)
        return self.reshape(drawn, shape)

    def random_sums(self, a: Shared, tables: int, buckets: int) -> Shared:
        """Buckets are a key stream's, its key the digest of noise that is opened: a node that knows
        its own numbers knows nothing of the sum."""
        coin = self.open(self.noise((COIN_WORDS,), variance=COIN_VARIANCE, f=0))
        key = hashlib.sha256(COIN_CONTEXT + coin.astype("<i8").tobytes()).digest()
        stream, found = Keystream(key), []
        for _ in range(tables):
            # which bucket, and in the last bit with which sign
            drawn = stream.draw(a.shape[1], np.dtype("<u2"))
            places = drawn & np.uint16(2 * buckets - 1)
            order, counts = np.argsort(places, kind="stable"), np.bincount(places)
            taken = np.flatnonzero(counts)
            both = self._runs(a, order, (np.cumsum(counts) - counts)[taken], (taken, 2 * buckets))
            plus, minus = (self.index(both, np.s_[:, at::2]) for at in (0, 1))
            found.append(self.sub(plus, minus))
        return self.stack(found, axis=1)

    def _runs(self, a: Shared, order: Ints, starts: Ints, into: tuple[Ints, int]) -> Shared:
        """Of each row, in this order, the sum from each start to the next; [K, n] -> [K, ·]."""
        return self._map(a, lambda word: runs(word, order, starts, into))

    # -- products -----------------------------------------------------------------------------

    def _multiply(self, fn: Bilinear, a: Shared, b: Shared, f: int | None) -> Shared:
        wanted = max(a.f, b.f) if f is None else f
        drop = a.f + b.f - wanted
        words = self._product(fn, a, b, max(drop, 0))
        return self.lift(Shared(words, wanted + min(drop, 0)), wanted)

    def mul(self, a: Shared, b: Shared, f: int | None = None) -> Shared:
        return self._multiply(times, a, b, f)

    def dot(self, a: Shared, b: Shared, f: int | None = None) -> Shared:
        """Σ over the last axis of a·b: one word on the wire per result."""
        return self._multiply(inner, a, b, f)

    def matmul(self, a: Shared, b: Shared, f: int | None = None) -> Shared:
        return self._multiply(matmul, a, b, f)

    def trunc(self, a: Shared, f: int) -> Shared:
        """The same value with f ≤ a.f fractional bits (or more, exactly)."""
        if f >= a.f:
            return self.lift(a, f)
        return Shared(self._truncate(a, a.f - f), f)

    def within(self, a: Shared, low: int, high: int) -> Shared:
        """a, declared to be in low … high."""
        return a

    # -- comparisons --------------------------------------------------------------------------

    def ltz(self, a: Shared) -> Shared:
        return Shared(self._negative(a), 0)

    def less_than(self, a: Shared, b: Shared) -> Shared:
        return self.ltz(self.sub(a, b))

    def bit(self, a: Shared) -> Shared:
        """1 where a ≥ ½ else 0; exactly a bit for every word."""
        return self.negate_bit(self.ltz(self.add_public(a, -(1 << a.f) // 2)))

    def floor(self, a: Shared, *, bits: int) -> Shared:
        """⌊a⌋ exactly, f = 0; 0 ≤ a < 2^bits."""
        each = Shared(self._bits(a, a.f, a.f + bits), 0)
        whole = self.combine(each, [[1 << j] for j in range(bits)], 0)
        return self.reshape(whole, a.shape)

    def negate_bit(self, bit: Shared) -> Shared:
        return self.add_public(self.neg(bit), 1)

    def select(self, bit: Shared, a: Shared, b: Shared) -> Shared:
        """a where bit is 1, b where it is 0."""
        a, b = self._aligned(a, b)
        return self.add(b, self.mul(bit, self.sub(a, b)))

    def clamp(self, a: Shared, low: int, high: int) -> Shared:
        """min(max(a, low), high), bounds as integers at a.f, low ≤ 0 ≤ high.

        In [low, high] for every word: where a difference wraps, the word is beyond ±2^62 and
        the other comparison holds, so that the second selection still lands on a bound.
        """
        distance = self.stack([self.add_public(a, -low), self.add_public(self.neg(a), high)])
        outside = self.ltz(distance)
        below, above = self.index(outside, 0), self.index(outside, 1)
        below, above = self.reshape(below, a.shape), self.reshape(above, a.shape)
        floor = self.add(a, self.mul(below, self.add_public(self.neg(a), low)))
        return self.add(floor, self.mul(above, self.add_public(self.neg(floor), high)))

    def relu(self, a: Shared) -> Shared:
        return self.mul(self.negate_bit(self.ltz(a)), a)

    def max(self, a: Shared) -> Shared:
        """Largest of a[K] as [1], by a tournament of ⌈log2 K⌉ comparisons in depth."""
        while a.shape[0] > 1:
            half = a.shape[0] // 2
            left, right = self.index(a, np.s_[:half]), self.index(a, np.s_[half : 2 * half])
            winners = self.add(left, self.relu(self.sub(right, left)))
            a = self.concat([winners, self.index(a, np.s_[2 * half :])])
        return a

    def _ranks(self, a: Shared) -> Shared:
        """Place of each a[k] in ascending order, ties by index: all pairs in one comparison."""
        size = a.shape[0]
        left, right = np.triu_indices(size, 1)
        if not len(left):
            return self.public(np.zeros(size, np.int64), 0)
        later = self.less_than(self.index(a, right), self.index(a, left))
        table = np.zeros((len(left), size), np.int64)
        np.add.at(table, (np.arange(len(left)), left), 1)
        np.add.at(table, (np.arange(len(left)), right), -1)
        return self.add_public(self.combine(later, table, 0), np.arange(size))

    def _below_rank(self, ranks: Shared, places: Sequence[int]) -> Shared:
        """[P, K] bits: rank_k < place_p."""
        wide = self.broadcast(self.reshape(ranks, (1, -1)), (len(places), ranks.shape[0]))
        places_column = np.asarray(places, np.int64).reshape(-1, 1)
        return self.ltz(self.add_public(wide, np.broadcast_to(-places_column, wide.shape)))

    def sort(self, a: Shared) -> Shared:
        """a[K] ascending: two comparisons in depth, K² wide; for small K."""
        size = a.shape[0]
        below = self._below_rank(self._ranks(a), range(size + 1))
        place = self.sub(self.index(below, np.s_[1:]), self.index(below, np.s_[:-1]))
        return self.reshape(self.matmul(place, self.reshape(a, (-1, 1))), (-1,))

    def median(self, a: Shared) -> Shared:
        """Median of a[K] as [1]; for an even K the mean of the two middle ones."""
        size = a.shape[0]
        below = self._below_rank(self._ranks(a), [(size - 1) // 2, size // 2 + 1])
        chosen = self.sub(self.index(below, 1), self.index(below, 0))
        middle = self.dot(self.reshape(chosen, (1, -1)), self.reshape(a, (1, -1)))
        return middle if size % 2 else self.trunc(self.halve(middle, 1), a.f)

    # -- functions ----------------------------------------------------------------------------

    def _segments(self, a: Shared, knots: Sequence[int]) -> Shared:
        """[S, …] bits: a ≥ knots[s] (integers at tables.F)."""
        wide = self.broadcast(a, (len(knots), *a.shape))
        at = np.array([round(knot * 2.0 ** (a.f - tables.F)) for knot in knots], np.int64)
        return self.negate_bit(
            self.ltz(
                self.sub(
                    wide,
                    self.public(
                        np.broadcast_to(at.reshape(-1, *[1] * len(a.shape)), wide.shape), a.f
                    ),
                )
            )
        )

    def sigmoid(self, a: Shared) -> Shared:
        """1/(1 + e^−a) by straight segments; error ≤ 0.004."""
        return self._piecewise(a, tables.LINEAR)

    def sigmoid_hard(self, a: Shared) -> Shared:
        """min(max(a + ½, 0), 1): 1/(1 + e^−a) by three segments; error ≤ 0.12. |a| < 2^61."""
        line = self.add_public(a, 1 << (a.f - 1))
        rest = self.add_public(self.neg(line), 1 << a.f)
        outside = self.ltz(self.stack([line, rest]))
        below = self.reshape(self.index(outside, 0), a.shape)
        above = self.reshape(self.index(outside, 1), a.shape)
        inside = self.negate_bit(self.add(below, above))
        return self.add(self.mul(inside, line), self.lift(above, a.f))

    def sigmoid_accurate(self, a: Shared) -> Shared:
        """1/(1 + e^−a) by cubic segments; error ≤ 1.3e-5 (and one unit at a.f)."""
        return self._piecewise(a, tables.CUBIC)

    def _piecewise(self, a: Shared, table: tables.Piecewise) -> Shared:
        """Polynomial of the segment that holds a, in a − centre, by Horner's rule.

        Coefficients and centre are public step functions of the segment bits: local.
        """
        bits = self._segments(a, table.knots)
        steps = np.diff(np.asarray(table.rows, np.int64), axis=0)
        chosen = self.combine(bits, steps, tables.F)
        first = np.asarray(table.rows[0], np.int64).reshape(-1, *[1] * len(a.shape))
        chosen = self.add_public(chosen, np.broadcast_to(first, chosen.shape))

        def part(row: int) -> Shared:
            return self.reshape(self.index(chosen, row), a.shape)

        x = self.sub(a, part(0))
        value = part(len(table.rows[0]) - 1)
        for row in range(len(table.rows[0]) - 2, 1, -1):
            value = self.add(self.mul(value, x, f=tables.F), part(row))
        exact = self.mul(value, x, f=value.f + x.f)
        return self.trunc(self.add(exact, part(1)), a.f)

    def _normalise(self, a: Shared, low: int, high: int) -> tuple[Shared, Shared]:
        """(a · 2^−(t+1) in [½, 1) at NEWTON_F, top-bit indicator); 0 where a < 2^low."""
        top = Shared(self._top_bits(a, low, high), 0)
        shift = np.array([[1 << (high - 1 - j)] for j in range(low, high)], np.int64)
        factor = self.reshape(self.combine(top, shift, 0), a.shape)
        return self.mul(self.halve(a, high - a.f), factor, f=NEWTON_F), top

    def _newton_reciprocal(self, u: Shared) -> Shared:
        """1/u for u in [½, 1): y(1 + e)(1 + e²)(1 + e⁴) with e = 1 − u·y from the best line y.

        Error 0.086^8 = 3e-9. Newton's steps, but e² does not wait for y(1 + e). 8 rounds.
        """
        one = 1 << NEWTON_F
        y = self.add_public(self.neg(self.scale(u, 2)), int(2.9142 * 2**NEWTON_F))
        e = self.add_public(self.neg(self.mul(u, y)), one)
        for _ in range(2):
            both = self.stack([y, e])
            more = self.mul(both, self.broadcast(e, both.shape))
            y = self.add(y, self.reshape(self.index(more, 0), y.shape))
            e = self.reshape(self.index(more, 1), e.shape)
        return self.add(y, self.mul(y, e))

    def _factored(self, u: Shared, table: tables.Factored) -> Shared:
        """A polynomial of degree 8 by its factors, for u in [½, 1] at NEWTON_F. 6 rounds."""
        count = len(table.factors)
        wide = self.broadcast(u, (count, *u.shape))
        a, d = np.array(table.factors, np.int64).T.reshape(2, count, *[1] * len(u.shape))
        roots = self.add_public(wide, np.broadcast_to(a, wide.shape))
        value = self.add_public(self.mul(roots, roots), np.broadcast_to(d, wide.shape))
        while (count := value.shape[0] // 2) > 0:
            left, right = self.index(value, np.s_[:count]), self.index(value, np.s_[count:])
            if count == 1:
                left = self.halve(self.scale(left, table.scale), table.halvings)
            value = self.mul(left, right, f=NEWTON_F)
        return self.reshape(value, u.shape)

    def _rescale(self, y: Shared, top: Shared, exponents: Sequence[int], f: int) -> Shared:
        """y · 2^(e_t / 2) at f for the top bit t; 0 where no top bit is set.

        exponents are in halves, per entry of `top`. y is cut to as many bits as fit.
        """
        guard = max(0, 14 + math.ceil(-min(exponents) / 2))
        factors = [[_root_of_power(exponent + 2 * guard)] for exponent in exponents]
        room = 60 - (max(exponents) // 2 + 1 + guard)
        if room < 8:
            raise ValueError("range of the argument is too wide for the word")
        scaled = self.reshape(self.combine(top, factors, guard), y.shape)
        return self.mul(self.trunc(y, min(y.f, room)), scaled, f=f)

    def reciprocal(self, a: Shared, *, f: int, bits: int, low_bits: int = 0) -> Shared:
        """1/a at f; 0 where a's word is under 2^low_bits. 0 ≤ word < 2^bits."""
        u, top = self._normalise(a, low_bits, bits)
        y = self._newton_reciprocal(u)
        return self._rescale(y, top, [2 * (a.f - j - 1) for j in range(low_bits, bits)], f)

    def rsqrt(self, a: Shared, *, f: int, bits: int, low_bits: int = 0) -> Shared:
        """1/√a at f; 0 where a's word is under 2^low_bits. 0 ≤ word < 2^bits."""
        u, top = self._normalise(a, low_bits, bits)
        y = self._factored(u, tables.RSQRT)
        return self._rescale(y, top, [a.f - j - 1 for j in range(low_bits, bits)], f)

    def sqrt(self, a: Shared, *, f: int, bits: int) -> Shared:
        """√a at f, 0 for 0. 0 ≤ word < 2^bits."""
        u, top = self._normalise(a, 0, bits)
        root = self._factored(u, tables.SQRT)
        return self._rescale(root, top, [j + 1 - a.f for j in range(bits)], f)

    def log(self, a: Shared, *, f: int, bits: int) -> Shared:
        """ln a at f, within 1e-6; 0 where the word is 0. 0 ≤ word < 2^bits.

        ln(u · 2^(t + 1 − f)) = ln u + (t + 1 − f)·ln 2 with u in [½, 1) and t the top bit.
        """
        u, top = self._normalise(a, 0, bits)
        some = self.sum(top, 0)  # 1, or 0 where there is no top bit
        mantissa = self._factored(u, tables.LOG)
        scales = [[(j + 1 - a.f) * tables.LN2] for j in range(bits)]
        exponent = self.reshape(self.combine(top, scales, NEWTON_F), a.shape)
        value = self.add(self.mul(self.reshape(some, a.shape), mantissa), exponent)
        return self.trunc(value, f)

    def exp(self, a: Shared, *, f: int) -> Shared:
        """e^a at f ≤ NEWTON_F, a clamped to ±11 first; relative error ≤ 1e-6 (and a unit at f).

        e^a = 2^(k − 16) · 2^r with k = ⌊a·log2 e⌋ + 16 of five bits b_j, r in [0, 1):
        2^k = Π (1 + b_j (2^(2^j) − 1)), 2^r by a polynomial about ½.
        """
        limit = tables.EXP_LIMIT << a.f
        tame = self.clamp(a, -limit, limit)
        doublings = self.trunc(self.scale(tame, tables.LOG2_E, f=tables.LOG2_E_F), NEWTON_F)
        shifted = self.add_public(doublings, tables.EXP_BIAS << NEWTON_F)
        places = tables.EXP_BITS
        bits = Shared(self._bits(shifted, NEWTON_F, NEWTON_F + places), 0)
        whole = self.combine(bits, [[1 << j] for j in range(places)], 0)
        rest = self.sub(shifted, self.lift(self.reshape(whole, a.shape), NEWTON_F))
        # a product over five factors, two by two
        growth = [2**2**j - 1 for j in range(places)]
        powers = [
            self.add_public(self.scale(self.index(bits, j), growth[j]), 1) for j in range(places)
        ]
        while len(powers) > 1:
            pairs = self.mul(self.stack(powers[:-1:2]), self.stack(powers[1::2]))
            odd = powers[len(powers) // 2 * 2 :]
            powers = [self.index(pairs, at) for at in range(pairs.shape[0])] + odd
        fraction = self._polynomial(self.add_public(rest, -(1 << (NEWTON_F - 1))), tables.EXP2)
        value = self.mul(self.reshape(powers[0], a.shape), fraction, f=NEWTON_F)
        return self.trunc(self.halve(value, tables.EXP_BIAS), f)

    def _polynomial(self, x: Shared, coefficients: Sequence[int]) -> Shared:
        """Σ c_i x^i by Horner's rule; x and the public c_i at NEWTON_F, |values| < 4."""
        value = self.public(np.full(x.shape, coefficients[-1]), NEWTON_F)
        for coefficient in coefficients[-2::-1]:
            value = self.add_public(self.mul(value, x), np.full(x.shape, coefficient))
        return value

    def ratio_of_max(self, a: Shared, *, bits: int, low_bits: int, f: int) -> Shared:
        """a[k] / max a at f ≤ NEWTON_F; all 0 when the largest word is under 2^low_bits.

        a ≥ 0, words under 2^bits. Numerator and denominator are shifted alike, to the top of
        the word, so that nothing is lost however small they are.
        """
        largest = self.max(a)
        both = self.concat([a, largest])
        top = Shared(self._top_bits(largest, low_bits, bits), 0)
        shift = np.array([[1 << (bits - 1 - j)] for j in range(low_bits, bits)], np.int64)
        factor = self.broadcast(self.reshape(self.combine(top, shift, 0), (1,)), both.shape)
        scaled = self.mul(self.halve(both, bits - both.f), factor, f=NEWTON_F)
        inverse = self._newton_reciprocal(self.index(scaled, np.s_[-1:]))
        share = self.index(scaled, np.s_[:-1])
        return self.mul(share, self.broadcast(inverse, share.shape), f=f)


def _root_of_power(exponent: int) -> int:
    """round(2^(exponent/2)) in integers, the same on every machine."""
    if exponent % 2 == 0:
        return 1 << (exponent // 2)
    return (math.isqrt(1 << (exponent + 2)) + 1) // 2
