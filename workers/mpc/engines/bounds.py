"""Engine of bounds: runs a circuit on what its words may be, and proves that they stay in range.

A secret is an array of intervals of its integers (value · 2^f), each operation's result an interval
that holds every engine's, with the unit in the last place that truncation may add. It is proved
that what is truncated stays under 2^62, what is read as a signed number (a sign, an opening) under
2^63, and that every function's argument lies in its declared bits. Else `LeavesTheWord` says where.

Ends are float64, whole numbers all of them. One that is computed to under 2^53 is exact; a larger
one is moved outward by more than it may be rounded by. So each interval holds the exact one, and an
end that is computed to at most 2^63 stands for a number under 2^63, but for words as they came.

Ends keep an axis of length 1 where all elements along it have the same, and an array of more than
MOST ends becomes its hull along its longest axis: 10^6 words cost as much as one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.mpc.engines import tables
from workers.mpc.engines.base import NEWTON_F, Ints, share_of

Ends = npt.NDArray[np.float64]
Shape = tuple[int, ...]
Choose = Callable[[Ints, Ints], Ints]

EXACT, TRUNCATED, SIGNED = 2.0**53, 2.0**62, 2.0**63
MOST, PRODUCTS_MOST = 1 << 16, 1 << 18
# Reciprocals and roots are cut to 8 bits at least (`Engine._rescale`).
CUT = 2.0**-6
# A discrete Gaussian is further out with probability under 2^−2900.
SIGMAS = 64


class LeavesTheWord(ValueError):
    """A circuit may leave the word: the operation, its place in the circuit, and by how much."""


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """What a secret array may be.

    owed: of what was truncated, why that is not proved yet, and the bits it lost. Nothing but
    `within` may follow: what it declares of the result proves it.
    """

    ends: tuple[Ends, Ends]
    shape: Shape
    f: int
    owed: tuple[LeavesTheWord, int] | None = None

    @property
    def low(self) -> Ends:
        if self.owed is not None:
            raise self.owed[0]
        return self.ends[0]

    @property
    def high(self) -> Ends:
        if self.owed is not None:
            raise self.owed[0]
        return self.ends[1]


class Bounds:
    """See `apps.protocol.circuits.ops.Ops` for the meaning of each operation.

    choose: (least, most) -> what an opening is taken to have shown.
    """

    def __init__(self, choose: Choose = lambda least, most: most) -> None:
        self._choose = choose

    def any_words(self, shape: Sequence[int], f: int, bound: int | None = None) -> Range:
        """What a party has chosen, or within ±bound."""
        most = np.full((1,) * len(shape), SIGNED if bound is None else float(bound))
        return Range((-most, most), tuple(shape), f)

    # -- linear -------------------------------------------------------------------------------

    def public(self, ints: npt.ArrayLike, f: int) -> Range:
        thin, shape = _thin(ints)
        return _range(_outward(thin, thin), shape, f)

    def _aligned(self, a: Range, b: Range) -> tuple[Range, Range]:
        f = max(a.f, b.f)
        return self.lift(a, f), self.lift(b, f)

    def add(self, a: Range, b: Range) -> Range:
        a, b = self._aligned(a, b)
        ends = _outward(a.low + b.low, a.high + b.high)
        return _range(ends, np.broadcast_shapes(a.shape, b.shape), a.f)

    def sub(self, a: Range, b: Range) -> Range:
        return self.add(a, self.neg(b))

    def neg(self, a: Range) -> Range:
        return Range((-a.high, -a.low), a.shape, a.f)

    def add_public(self, a: Range, ints: npt.ArrayLike) -> Range:
        """A party's words stay any words, whatever is added: the word wraps for some of them, which
        the party could as well have chosen."""
        thin, _ = _thin(np.broadcast_to(np.asarray(ints), a.shape))
        low, high = _outward(a.low + thin, a.high + thin)
        free = (a.low == -SIGNED) & (a.high == SIGNED)
        return _range((np.where(free, a.low, low), np.where(free, a.high, high)), a.shape, a.f)

    def scale(self, a: Range, ints: npt.ArrayLike, f: int = 0) -> Range:
        thin, shape = _thin(ints)
        ends = _products(a.low, a.high, thin, thin)
        return _range(ends, np.broadcast_shapes(a.shape, shape), a.f + f)

    def combine(self, a: Range, table: npt.ArrayLike, f: int) -> Range:
        weights = np.asarray(table)
        shape = (weights.shape[1], *a.shape[1:])
        low, high = a.low, a.high
        if len(low) > 1 and weights.size > PRODUCTS_MOST:
            low, high = low.min(axis=0, keepdims=True), high.max(axis=0, keepdims=True)
        up, down = np.maximum(weights, 0), np.minimum(weights, 0)
        if len(low) == 1:  # the same of all rows: the sums of the table are enough
            up, down = (part.sum(axis=0, keepdims=True, dtype=float) for part in (up, down))
            if (up == up[:, :1]).all() and (down == down[:, :1]).all():
                up, down = up[:, :1], down[:, :1]
        both = np.concatenate([up, down]).astype(float).T

        def summed(ends: Ends, sign: float) -> Ends:
            size = np.tensordot(np.abs(both), np.abs(ends), axes=1)
            return np.tensordot(both, ends, axes=1) + sign * _margin(size, 2 * len(weights))

        ends = np.concatenate([low, high]), np.concatenate([high, low])
        return _range((summed(ends[0], -1), summed(ends[1], 1)), shape, a.f + f)

    def weighted_sum(self, items: Sequence[Range], ints: Iterable[int]) -> Range:
        scaled = [self.scale(item, factor) for item, factor in zip(items, ints, strict=True)]
        return reduce(self.add, scaled)

    def lift(self, a: Range, f: int) -> Range:
        if f < a.f:
            raise ValueError("lift cannot drop fractional bits; use trunc")
        by = 2.0 ** (f - a.f)
        return a if f == a.f else Range((a.low * by, a.high * by), a.shape, f)

    def halve(self, a: Range, times: int) -> Range:
        return Range((a.low, a.high), a.shape, a.f + times)

    def sum(self, a: Range, axis: int) -> Range:
        at = axis % len(a.shape)
        ends = _summed(a.low, a.high, at, a.shape[at])
        return _range(_flat_ends(ends), a.shape[:at] + a.shape[at + 1 :] or (1,), a.f)

    # -- shape --------------------------------------------------------------------------------

    def index(self, a: Range, key: Any) -> Range:
        thin = _thin_key(key, a.shape, a.low.shape)
        shape = np.broadcast_to(np.zeros((), np.int8), a.shape)[key].shape
        return _range(_flat_ends((a.low[thin], a.high[thin])), shape or (1,), a.f)

    def reshape(self, a: Range, shape: Sequence[int]) -> Range:
        wanted = np.broadcast_to(np.zeros((), np.int8), a.shape).reshape(tuple(shape)).shape
        low, high = (_reshaped(end, a.shape, wanted, pick) for end, pick in _each_end(a))
        return _range((low, high), wanted, a.f)

    def transpose(self, a: Range) -> Range:
        return Range((a.low.T, a.high.T), a.shape[::-1], a.f)

    def broadcast(self, a: Range, shape: Sequence[int]) -> Range:
        np.broadcast_shapes(a.shape, tuple(shape))
        more = (1,) * (len(shape) - len(a.shape))
        ends = a.low.reshape(more + a.low.shape), a.high.reshape(more + a.high.shape)
        return Range(ends, tuple(shape), a.f)

    def stack(self, items: Sequence[Range], axis: int = 0) -> Range:
        return self.concat([self._widened(item, axis) for item in items], axis)

    def _widened(self, a: Range, axis: int) -> Range:
        at = axis % (len(a.shape) + 1)
        ends = np.expand_dims(a.low, at), np.expand_dims(a.high, at)
        return Range(ends, (*a.shape[:at], 1, *a.shape[at:]), a.f)

    def concat(self, items: Sequence[Range], axis: int = 0) -> Range:
        if len({item.f for item in items}) != 1:
            raise ValueError("joined secrets must have equal fractional bits")
        first, at = items[0], axis % len(items[0].shape)
        length = sum(item.shape[at] for item in items)
        shape = (*first.shape[:at], length, *first.shape[at + 1 :])
        others = np.broadcast_shapes(*(_with(item.low.shape, at, 1) for item in items))
        if prod(others) * length > MOST or all(_same(first, item, at) for item in items):
            thin = [
                (item.low.min(axis=at, keepdims=True), item.high.max(axis=at, keepdims=True))
                for item in items
                if item.shape[at] and item.low.size
            ]
            lows, highs = zip(*thin) if thin else ([first.low], [first.high])
            return _range((reduce(np.minimum, lows), reduce(np.maximum, highs)), shape, first.f)
        wide = [_with(others, at, item.shape[at]) for item in items]
        low = np.concatenate([np.broadcast_to(i.low, w) for i, w in zip(items, wide)], axis=at)
        high = np.concatenate([np.broadcast_to(i.high, w) for i, w in zip(items, wide)], axis=at)
        return _range((low, high), shape, first.f)

    # -- products -----------------------------------------------------------------------------

    def mul(self, a: Range, b: Range, f: int | None = None) -> Range:
        return self._dropped("mul", self._times(a, b), _f_of(a, b, f))

    def dot(self, a: Range, b: Range, f: int | None = None) -> Range:
        each = self._times(a, b)
        total = _summed(*each.ends, len(each.shape) - 1, each.shape[-1])
        exact = _range(_flat_ends(total), each.shape[:-1] or (1,), each.f)
        return self._dropped("dot", exact, _f_of(a, b, f))

    def matmul(self, a: Range, b: Range, f: int | None = None) -> Range:
        inner, batch = a.shape[-1], np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        if inner != b.shape[-2]:
            raise ValueError("the inner dimensions of a product differ")
        left, right = (a.low, a.high), (b.low, b.high)
        # as few ends as memory bears: rows of a, columns of b, and then what is summed
        for side, axis in ((0, -2), (1, -1), (0, -1), (1, -2)):
            wide = np.broadcast_shapes(left[0][..., None].shape, right[0][..., None, :, :].shape)
            if prod(wide) > PRODUCTS_MOST:
                low, high = (left, right)[side]
                low, high = low.min(axis, keepdims=True), high.max(axis, keepdims=True)
                left, right = ((low, high), right) if side == 0 else (left, (low, high))
        each = _products(
            *(end[..., None] for end in left), *(end[..., None, :, :] for end in right)
        )
        total = _summed(*each, each[0].ndim - 2, inner)
        exact = _range(total, (*batch, a.shape[-2], b.shape[-1]), a.f + b.f)
        return self._dropped("matmul", exact, _f_of(a, b, f))

    def trunc(self, a: Range, f: int) -> Range:
        return self._dropped("trunc", replace(a, ends=(a.low, a.high)), f)

    def _times(self, a: Range, b: Range) -> Range:
        shape = np.broadcast_shapes(a.shape, b.shape)
        if a is b:
            low, high = _outward(*_squares(a.low, a.high))
            return _range((low, high), shape, 2 * a.f)
        return _range(_products(a.low, a.high, b.low, b.high), shape, a.f + b.f)

    def _dropped(self, name: str, exact: Range, f: int) -> Range:
        """With f fractional bits; what loses some must be under 2^62 before."""
        drop = exact.f - f
        if drop <= 0:
            return self.lift(exact, f)
        low, high = exact.ends
        ends = np.floor(low * 2.0**-drop), np.floor(high * 2.0**-drop) + 1
        most = _size(low, high)
        owed = None if most < TRUNCATED else (_left(name, most, 62), drop)
        return Range(_outward(*ends), exact.shape, f, owed)

    def within(self, a: Range, low: int, high: int) -> Range:
        """The declared range, and not less: what a loop's second turn begins with is what every
        later one does."""
        one = np.ones((1,) * len(a.shape))
        least, most = float(low), float(high)  # compared with whole numbers exactly
        ends = (
            one * (np.nextafter(least, -np.inf) if least > low else least),
            one * (np.nextafter(most, np.inf) if most < high else most),
        )
        if a.owed is not None:
            error, drop = a.owed
            if (_size(*ends) + 1) * 2.0**drop >= TRUNCATED:
                raise error
        return Range(ends, a.shape, a.f)

    # -- comparisons --------------------------------------------------------------------------

    def ltz(self, a: Range) -> Range:
        _check("ltz", _size(a.low, a.high) <= SIGNED, a, 63)
        return Range(((a.high < 0).astype(float), (a.low < 0).astype(float)), a.shape, 0)

    def less_than(self, a: Range, b: Range) -> Range:
        return self.ltz(self.sub(a, b))

    def bit(self, a: Range) -> Range:
        return self.negate_bit(self.ltz(self.add_public(a, -(1 << a.f) // 2)))

    def negate_bit(self, bit: Range) -> Range:
        return self.add_public(self.neg(bit), 1)

    def floor(self, a: Range, *, bits: int) -> Range:
        self._argument("floor", a, a.f + bits)
        by = 2.0**-a.f
        return Range((np.floor(a.low * by), np.floor(a.high * by)), a.shape, 0)

    def select(self, bit: Range, a: Range, b: Range) -> Range:
        a, b = self._aligned(a, b)
        self._signed("select", self.sub(a, b))
        ends = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
        either = _range(ends, np.broadcast_shapes(a.shape, b.shape), a.f)
        return self.broadcast(either, np.broadcast_shapes(bit.shape, either.shape))

    def clamp(self, a: Range, low: int, high: int) -> Range:
        self._signed("clamp", a)
        least, most = (_thin(np.broadcast_to(np.asarray(x), a.shape))[0] for x in (low, high))
        ends = np.clip(a.low, least, most), np.clip(a.high, least, most)
        return _range(ends, a.shape, a.f)

    def relu(self, a: Range) -> Range:
        self._signed("relu", a)
        return Range((np.maximum(a.low, 0), np.maximum(a.high, 0)), a.shape, a.f)

    def max(self, a: Range) -> Range:
        self._apart("max", a)
        ends = a.low.max(axis=0, keepdims=True), a.high.max(axis=0, keepdims=True)
        return Range(ends, (1, *a.shape[1:]), a.f)

    def sort(self, a: Range) -> Range:
        self._apart("sort", a)
        return Range((np.sort(a.low), np.sort(a.high)), a.shape, a.f)

    def median(self, a: Range) -> Range:
        """Each place in the order grows with every element."""
        self._apart("median", a)
        low, high = (np.sort(np.broadcast_to(end, a.shape)) for end in (a.low, a.high))
        size = len(low)
        least, most = low[(size - 1) // 2, None], high[size // 2, None]
        return Range((least, most if size % 2 else most + 1), (1,), a.f)

    # -- functions ----------------------------------------------------------------------------

    def sigmoid(self, a: Range) -> Range:
        return self._unit("sigmoid", a, 0.004)

    def sigmoid_hard(self, a: Range) -> Range:
        return self._unit("sigmoid_hard", a, 0.0)

    def sigmoid_accurate(self, a: Range) -> Range:
        return self._unit("sigmoid_accurate", a, 1.4e-5)

    def _unit(self, name: str, a: Range, error: float) -> Range:
        """In 0 … 1, but for the error; |a| < 2^61."""
        _check(name, _size(a.low, a.high) < 2.0**61, a, 61)
        slack = np.ceil(error * 2.0**a.f) + 2
        one = np.full((1,) * len(a.shape), 1.0)
        return Range((-slack * one, (2.0**a.f + slack) * one), a.shape, a.f)

    def reciprocal(self, a: Range, *, f: int, bits: int, low_bits: int = 0) -> Range:
        self._argument("reciprocal", a, bits)
        return self._falling(a, f, low_bits, lambda word: 2.0 ** (a.f + f) / word)

    def rsqrt(self, a: Range, *, f: int, bits: int, low_bits: int = 0) -> Range:
        self._argument("rsqrt", a, bits)
        return self._falling(a, f, low_bits, lambda word: 2.0**f * np.sqrt(2.0**a.f / word))

    def _falling(self, a: Range, f: int, low_bits: int, fn: Callable[[Ends], Ends]) -> Range:
        least = 2.0**low_bits
        low = np.where(a.low < least, 0, fn(np.maximum(a.high, least)))
        return _near(low, fn(np.maximum(a.low, least)), CUT, 2, a.shape, f)

    def sqrt(self, a: Range, *, f: int, bits: int) -> Range:
        self._argument("sqrt", a, bits)
        low, high = (2.0**f * np.sqrt(end * 2.0**-a.f) for end in (a.low, a.high))
        return _near(low, high, CUT, 2, a.shape, f)

    def log(self, a: Range, *, f: int, bits: int) -> Range:
        """0 where the word is."""
        self._argument("log", a, bits)
        low, high = (2.0**f * np.log(np.maximum(end, 1) * 2.0**-a.f) for end in (a.low, a.high))
        low, high = np.where(a.low < 1, np.minimum(low, 0), low), np.maximum(high, low)
        high = np.where(a.low < 1, np.maximum(high, 0), high)
        slack = np.ceil(1e-6 * 2.0**f) + 2
        return _range(_outward(np.floor(low) - slack, np.ceil(high) + slack), a.shape, f)

    def exp(self, a: Range, *, f: int) -> Range:
        self._signed("exp", a)
        limit = float(tables.EXP_LIMIT << a.f)
        _check("exp", limit * tables.LOG2_E < TRUNCATED and f <= NEWTON_F, a, 62)
        low, high = (
            2.0**f * np.exp(np.clip(end, -limit, limit) * 2.0**-a.f) for end in (a.low, a.high)
        )
        return _near(low, high, 1e-6, 2, a.shape, f)

    def ratio_of_max(self, a: Range, *, bits: int, low_bits: int, f: int) -> Range:
        self._argument("ratio_of_max", a, bits)
        ends = np.zeros((1,) * len(a.shape)), np.full((1,) * len(a.shape), 2.0**f)
        return _near(*ends, 2.0**-20, 2, a.shape, f)

    # -- noise and openings -------------------------------------------------------------------

    def noise(self, shape: Sequence[int], *, variance: int, f: int) -> Range:
        most = float(np.ceil(SIGMAS * np.sqrt(3.0 * share_of(variance, 2))))
        return self.any_words(shape, f, int(most))

    def random_sums(self, a: Range, tables: int, buckets: int) -> Range:
        """As far as one bucket goes that has all of them; of any words any."""
        most = min(a.shape[1] * _size(a.low, a.high) * (1 + 2.0**-50), SIGNED)
        return self.any_words((a.shape[0], tables, buckets), a.f, int(most))

    def open(self, a: Range) -> Ints:
        _check("open", _size(a.low, a.high) <= SIGNED, a, 63)
        least, most = (
            np.broadcast_to(np.clip(end, -(2.0**63), 2.0**63 - 1024), a.shape).astype(np.int64)
            for end in (a.low, a.high)
        )
        return self._choose(least, most)

    def open_rounded(self, a: Range) -> Ints:
        if a.f == 0:
            return self.open(a)
        half = self.add_public(a, 1 << (a.f - 1))
        self._signed("open_rounded", half)
        by = 2.0**-a.f
        return self.open(Range((np.floor(half.low * by), np.floor(half.high * by)), a.shape, 0))

    def stays(self, name: str, a: Range | None, bound: int | None) -> None:
        """What leaves a circuit as words is within ±bound, or a signed number."""
        if a is None:
            return
        most = _size(a.low, a.high)
        if most > (SIGNED if bound is None else bound):
            raise LeavesTheWord(f"{name} yields words of up to 2^{np.log2(most):.1f}")

    # -- what must hold -----------------------------------------------------------------------

    def _signed(self, name: str, a: Range) -> Range:
        _check(name, _size(a.low, a.high) <= SIGNED, a, 63)
        return a

    def _apart(self, name: str, a: Range) -> None:
        """Any two elements can be compared."""
        self._signed(name, a)
        _check(name, a.low.size == 0 or a.high.max() - a.low.min() < SIGNED, a, 63)

    def _argument(self, name: str, a: Range, bits: int) -> None:
        """0 ≤ a < 2^bits ≤ 2^62."""
        fits = bits <= 62 and a.low.min(initial=0) >= 0 and a.high.max(initial=0) < 2.0**bits
        _check(name, fits, a, bits, least="from 0 ")


# ---- ends ---------------------------------------------------------------------------------------


def _outward(low: Ends, high: Ends) -> tuple[Ends, Ends]:
    """Whole numbers as they are where they are exact, else moved by a unit in the last place."""
    if _size(low, high) < EXACT:
        return low, high
    return (
        np.where(np.abs(low) < EXACT, low, np.nextafter(low, -np.inf)),
        np.where(np.abs(high) < EXACT, high, np.nextafter(high, np.inf)),
    )


def _near(low: Ends, high: Ends, part: float, units: int, shape: Shape, f: int) -> Range:
    """From low ≥ 0 to high, each off by a part of itself and some units, and never negative."""
    least = np.maximum(np.floor(low * (1 - part)) - units, 0)
    least, most = _outward(least, np.ceil(high * (1 + part)) + units)
    return _range((least, most), shape, f)


def _margin(size: Ends, count: int) -> Ends:
    """By how much a sum of so many terms, of this size in all, may be rounded."""
    return np.where(size < EXACT, 0.0, size * ((count + 2) * 2.0**-52))


def _summed(low: Ends, high: Ends, axis: int, length: int) -> tuple[Ends, Ends]:
    """Along an axis of this length, which the ends may have once."""
    times = length if low.shape[axis] == 1 else 1
    count = low.shape[axis] + 1
    least, most = low.sum(axis=axis) * times, high.sum(axis=axis) * times
    small, large = np.abs(low).sum(axis=axis) * times, np.abs(high).sum(axis=axis) * times
    return least - _margin(small, count), most + _margin(large, count)


def _products(a: Ends, b: Ends, c: Ends, d: Ends) -> tuple[Ends, Ends]:
    """[a, b] · [c, d]"""
    each = [a * c, a * d, b * c, b * d]
    return _outward(reduce(np.minimum, each), reduce(np.maximum, each))


def _squares(low: Ends, high: Ends) -> tuple[Ends, Ends]:
    left, right = low * low, high * high
    least = np.where((low <= 0) & (high >= 0), 0, np.minimum(left, right))
    return least, np.maximum(left, right)


def _size(low: Ends, high: Ends) -> float:
    """The largest absolute value."""
    return max(float(-low.min(initial=0)), float(high.max(initial=0)))


def _each_end(a: Range) -> tuple[tuple[Ends, Any], tuple[Ends, Any]]:
    return (a.low, np.min), (a.high, np.max)


def _flat_ends(ends: tuple[Any, Any]) -> tuple[Ends, Ends]:
    return np.atleast_1d(np.asarray(ends[0])), np.atleast_1d(np.asarray(ends[1]))


def _range(ends: tuple[Ends, Ends], shape: Shape, f: int) -> Range:
    """No more ends than MOST: else the hull along the longest axes."""
    low, high = ends
    if low.shape != high.shape:
        low, high = np.broadcast_arrays(low, high)
    while low.size > MOST:
        axis = int(np.argmax(low.shape))
        low, high = low.min(axis=axis, keepdims=True), high.max(axis=axis, keepdims=True)
    return Range((low, high), shape, f)


def _f_of(a: Range, b: Range, f: int | None) -> int:
    return max(a.f, b.f) if f is None else f


def _thin(ints: npt.ArrayLike) -> tuple[Ends, Shape]:
    """Public integers, with one element of each axis along which all are the same; their shape."""
    array = np.atleast_1d(np.asarray(ints))
    if array.dtype == np.uint64:
        array = array.view(np.int64)
    shape = array.shape
    for axis in range(array.ndim):
        first = array[(slice(None),) * axis + (slice(0, 1),)]
        if array.shape[axis] > 1 and (array.strides[axis] == 0 or bool((array == first).all())):
            array = first
    return array.astype(np.float64), shape


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


def _same(a: Range, b: Range, axis: int) -> bool:
    """One end stands for both along this axis."""
    alike = a.low.shape == b.low.shape and a.low.shape[axis] == 1
    return alike and bool((a.low == b.low).all() and (a.high == b.high).all())


def _thin_key(key: Any, shape: Shape, thin: Shape) -> Any:
    """The key that picks the ends of what `key` picks of the whole array."""
    parts = list(key) if isinstance(key, tuple) else [key]
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    every = [slice(None)] * (len(shape) - taken)
    if any(part is Ellipsis for part in parts):
        at = next(at for at, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = every
    else:
        parts += every
    parts = [_places(part) for part in parts]
    axis = 0
    found: list[Any] = []
    places: list[tuple[int, int]] = []
    for part in parts:
        if part is not None:
            places.append((len(found), axis))
            axis += 1
        found.append(part)
    once = all(thin[axis] == 1 for at, axis in places if isinstance(parts[at], np.ndarray))
    for at, axis in places:
        if thin[axis] != 1:
            continue
        part = parts[at]
        if isinstance(part, slice):
            found[at] = slice(0, 1)
        elif isinstance(part, np.ndarray):
            found[at] = np.zeros((1,) * part.ndim if once else part.shape, np.intp)
        else:
            found[at] = 0
    return tuple(found)


def _places(part: Any) -> Any:
    """Part of a key, an array of integers where it is one of any kind."""
    if not isinstance(part, (list, range, np.ndarray)):
        return part
    array = np.asarray(part)
    return np.flatnonzero(array) if array.dtype.kind == "b" else array


def _reshaped(thin: Ends, shape: Shape, wanted: Shape, pick: Any) -> Ends:
    """The ends of a reshaped array: axes that become others together keep one end when all of them
    have one."""
    if 0 in shape:
        return np.zeros((1,) * len(wanted))
    before: list[int] = []
    after: list[int] = []
    i = j = 0
    while i < len(shape) or j < len(wanted):
        start, begun = i, j
        left = right = 1
        if i < len(shape):
            left, i = shape[i], i + 1
        if j < len(wanted):
            right, j = wanted[j], j + 1
        while left != right:
            if left < right:
                left, i = left * shape[i], i + 1
            else:
                right, j = right * wanted[j], j + 1
        axes = tuple(range(start, i))
        if left * prod(thin.shape[:start] + thin.shape[i:]) > MOST:
            thin = pick(thin, axis=axes, keepdims=True)
        once = all(thin.shape[axis] == 1 for axis in axes)
        before += [1] * (i - start) if once else shape[start:i]
        after += [1] * (j - begun) if once else wanted[begun:j]
    return np.asarray(np.broadcast_to(thin, before).reshape(after))


# ---- what is not proved -------------------------------------------------------------------------


def _check(name: str, holds: Any, a: Range, bits: int, least: str = "") -> None:
    if not holds:
        raise _left(name, _size(a.low, a.high), bits, least)


def _left(name: str, most: float, bits: int, least: str = "") -> LeavesTheWord:
    size = f"2^{np.log2(most):.1f}" if most > 0 else "0"
    return LeavesTheWord(
        f"{name} at {_place()} is not proved to stay {least}under 2^{bits}: up to {size}"
    )


def _place() -> str:
    """File and line of the circuit that is at work."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("workers."):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
