"""Least squares of all sites' rows, exactly, from what each site shares in place of them.

A site factors its rows [X, 1, t] = Q·R and shares R/√n, upper triangular, and its number of rows n.
(R/√n)ᵀ(R/√n) is the mean of xxᵀ, and with it of x·t. It is shared as a factor because any words
make one of some rows then: no site can send sums that no rows have, which no solution exists of.

    G = Σ_k s_k G_k / N     N = Σ_k s_k     (G_xx + I/N)·w = G_xt     (no penalty on the intercept)

s_k the rows of the sites whose φ is positive. φ is found by each site's own w_k, solved of its G_k
and n_k alone, as if it had been shared; it says nothing of how far G_k moves the others' w. So none
counts for more than OVER_MEDIAN times the median: neither by n_k, its own word, nor by n_k·‖G_k‖,
‖G_k‖ the root of the sum of its squares on and above the diagonal. No spread of features and no
number of rows makes one site outweigh many; features are standardised, so honest ones are alike.

Under a privacy budget the model is the mean of all w_k instead, shortened and with noise as other
updates (circuits/noise.py): of fewer numbers than the sums, so that it takes less noise than they
would. Then n_k counts as it is said: by the median of all n one site would move the others' w.

Copies are told by G_k, not by R_k: rows of R of the other sign make the same G_k.

The solution is found by Newton's iteration for an inverse, X ← X(2 − BX), and then corrected by
what A·w lacks: as many rounds for every size. B is A over its trace, and 2^−18 on the diagonal, so
that the word holds 1/λ of the least eigenvalue λ; the corrections take out what that does to w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.declare import BadParams, Params
from apps.protocol.circuits.layout import FEATURE_LIMIT, INPUT_F, MODEL_F, WEIGHT_LIMIT
from apps.protocol.circuits.noise import asked
from apps.protocol.circuits.scoring import lengths

Real = npt.NDArray[np.float64]

FEATURES_MAX = 200
ONE_LIMIT, TARGET_LIMIT = 1, 2  # of the columns 1 and t
ROWS_BITS = 22  # a number of rows is its word at f = 16, within the ±64 of all updates
ROWS_MIN = 10  # fewer count as so many
OVER_MEDIAN = 2
# Mean squares are under 2^8 then, and their sum over 201 features under 2^16.
GRAM_F, SHARE_F = 24, 28
TRACE_BITS, TRACE_F = GRAM_F + 17, 28
FLOOR_BITS = 18
COUNTED_F, USEFUL_BITS = 24, 8
SYSTEM_F, INVERSE_F, STEP_F, LEFT_F = 28, 20, 22, 30
# (1 − 2^−18)^(2^22) is 10^−7.
FOUND_MAX = 1 << 11
ITERATIONS, CORRECTIONS = FLOOR_BITS + 4, 4


def size(params: Params) -> int:
    """Numbers in an update: the factor's upper triangle, row by row, then n / 2^16."""
    features = int(params["features"])
    if features > FEATURES_MAX:
        raise BadParams(f"least squares are solved for {FEATURES_MAX} features at most")
    return (features + 2) * (features + 3) // 2 + 1


def factor_of(features: Real, targets: Real) -> Real:
    """What a site shares, as real numbers; features [n, d], targets [n]."""
    rows = np.column_stack([features, np.ones(len(features)), targets])
    factor = np.zeros((rows.shape[1], rows.shape[1]))
    found = np.linalg.qr(rows, mode="r")
    factor[: len(found)] = found
    upper = factor[np.triu_indices(len(factor))] / np.sqrt(len(rows))
    return np.append(upper, len(rows) / 2**INPUT_F)


def models(ops: Any, updates: Any, params: Params) -> tuple[Any, Any, Any]:
    """Each site's own w [K, d + 1] at f = 16; what copies are told by, at f = 24; and what `merged`
    needs, None under a privacy budget, when no site's w may depend on another's update. updates
    [K, U], any words."""
    side = int(params["features"]) + 2
    upper = np.triu_indices(side)
    limits = np.broadcast_to(_limits(side), (side, side))[upper] << INPUT_F
    high = np.append(limits, (1 << ROWS_BITS) - 1 - ROWS_MIN)
    shift = np.append(np.zeros(len(limits), np.int64), ROWS_MIN)
    shift = np.broadcast_to(shift, updates.shape)
    tame = ops.clamp(ops.add_public(updates, -shift), np.append(-limits, 0), high)
    tame = ops.add_public(tame, shift)
    rows, flat = ops.index(tame, np.s_[:, -1]), ops.index(tame, np.s_[:, :-1])
    if not asked(params):
        most = ops.broadcast(ops.scale(ops.median(rows), OVER_MEDIAN), rows.shape)
        # the lesser of the two, and the median is no less than the least
        rows = ops.sub(rows, ops.relu(ops.sub(rows, most)))
        rows = ops.within(rows, ROWS_MIN, (1 << ROWS_BITS) - 1)

    place = np.full((side, side), len(upper[0]))
    place[upper] = np.arange(len(upper[0]))
    padded = ops.concat([flat, ops.public(np.zeros((len(shift), 1), np.int64), INPUT_F)], axis=1)
    columns = _within(ops, ops.index(padded, np.s_[:, place.T]))
    grams = _product_of_each(ops, columns)
    squares, wanted = ops.index(grams, np.s_[:, :-1, :-1]), ops.index(grams, np.s_[:, :-1, -1:])
    inverse = ops.reciprocal(rows, f=28, bits=ROWS_BITS)
    own = solved(ops, squares, wanted, ops.trunc(ops.halve(inverse, INPUT_F), GRAM_F))

    own = ops.trunc(own, INPUT_F)
    trace, factor = _trace_of(ops, grams)
    told = ops.index(grams, (slice(None), *upper))
    told = ops.mul(told, ops.broadcast(ops.reshape(factor, (-1, 1)), told.shape), f=GRAM_F)
    # of squares on the diagonal, nothing is larger than their sum
    told = ops.within(told, *_about(1, GRAM_F))
    if asked(params):
        return own, told, None
    return own, told, (squares, wanted, _counted(ops, rows, told, trace, factor))


def _counted(ops: Any, rows: Any, told: Any, trace: Any, factor: Any) -> Any:
    """min(n_k, OVER_MEDIAN · median(n·‖G‖) / ‖G_k‖) at f = 24, [K]; told = G·factor, ‖told‖ ≤ 1."""
    squared, inverse = lengths(ops, told)
    length = ops.within(ops.mul(ops.trunc(squared, 26), inverse, f=20), 0, 2 << 20)
    length = ops.mul(length, trace, f=INPUT_F)
    weight = ops.mul(rows, length, f=COUNTED_F)
    most = ops.broadcast(ops.scale(ops.median(weight), OVER_MEDIAN), weight.shape)
    over = ops.less_than(most, weight)
    # the bit is applied to 1/‖G‖ first: what it is multiplied with would overflow for a tiny one
    shrink = ops.mul(over, ops.mul(ops.trunc(factor, 22), inverse, f=28))
    # less than n·‖G‖ over ‖G‖, which is off by 2^−5 of itself
    less = ops.mul(most, shrink, f=COUNTED_F)
    less = ops.within(less, 0, 17 << ROWS_BITS + COUNTED_F - INPUT_F - 4)
    return ops.select(over, less, ops.lift(rows, COUNTED_F))


def merged(ops: Any, kept: Any, useful: Sequence[int]) -> Any:
    """The model [d + 1] at f = 24 of the sites' rows, weighed by `useful`: whole numbers."""
    squares, wanted, rows = kept
    # of the largest, in 2^−8: what copies share may have any common multiple
    parts = np.array([(each << USEFUL_BITS) // max(useful) for each in useful], np.int64)
    counted = ops.halve(ops.scale(rows, parts), USEFUL_BITS)
    total = ops.sum(ops.reshape(counted, (1, -1)), 1)
    low = COUNTED_F - INPUT_F + USEFUL_BITS
    bits = ROWS_BITS + low + len(useful).bit_length()
    inverse = ops.reciprocal(total, f=28, bits=bits, low_bits=low)
    # a part of the total, of which 1/total is off by 2^−28
    share = ops.mul(counted, ops.broadcast(inverse, counted.shape), f=SHARE_F)
    share = ops.within(share, 0, 17 << SHARE_F - 4)
    share = ops.reshape(share, (-1, 1, 1))
    # means of the sites' own: shares sum up to 1, and to 2 where they are off the most
    left, right = (
        ops.reshape(
            ops.within(
                ops.sum(ops.mul(each, ops.broadcast(share, each.shape), f=GRAM_F), 0),
                *_about(2 * FEATURE_LIMIT**2, GRAM_F),
            ),
            shape,
        )
        for each, shape in (
            (squares, (1, *squares.shape[1:])),
            (wanted, (1, *wanted.shape[1:])),
        )
    )
    ridge = ops.trunc(ops.halve(inverse, INPUT_F), GRAM_F)
    return ops.reshape(ops.trunc(solved(ops, left, right, ridge), MODEL_F), (-1,))


def _about(most: int, f: int) -> tuple[int, int]:
    """± this, and 2^−8 of it for what truncation adds."""
    bound = (most << f) + (most << f - 8)
    return -bound, bound


def _limits(side: int) -> npt.NDArray[np.int64]:
    """[side]: the root of what a column's mean square may be."""
    limits = np.full(side, FEATURE_LIMIT, np.int64)
    limits[-2:] = ONE_LIMIT, TARGET_LIMIT
    return limits


def _within(ops: Any, columns: Any) -> Any:
    """R's columns [K, side, side], a column a row here, none longer than rows could make it."""
    limits = _limits(columns.shape[1])
    squared = ops.dot(columns, columns, f=GRAM_F)
    most = ops.public(np.broadcast_to(limits**2 << GRAM_F, squared.shape), GRAM_F)
    long = ops.less_than(most, squared)
    shrink = ops.scale(ops.rsqrt(squared, f=22, bits=TRACE_BITS, low_bits=GRAM_F), limits)
    less = ops.mul(long, ops.add_public(shrink, -(1 << 22)))
    # 1, or less of a column that is too long
    factor = ops.within(ops.add_public(less, 1 << 22), 0, (1 << 22) + (1 << 10))
    factor = ops.reshape(factor, (*squared.shape, 1))
    return ops.mul(columns, ops.broadcast(factor, columns.shape), f=INPUT_F)


def _product_of_each(ops: Any, columns: Any) -> Any:
    """RᵀR of each site at f = 24."""
    side = columns.shape[1]
    turned = np.arange(side * side).reshape(side, side).T
    swapped = ops.index(ops.reshape(columns, (columns.shape[0], -1)), np.s_[:, turned])
    # products of columns of which none is longer than 16
    return ops.within(ops.matmul(columns, swapped, f=GRAM_F), *_about(FEATURE_LIMIT**2, GRAM_F))


def _trace_of(ops: Any, squares: Any) -> tuple[Any, Any]:
    """(t at f = 24, 1/t at f = 28), [K] each; t the trace plus 1: nothing is divided by less."""
    at = np.arange(squares.shape[1])
    trace = ops.sum(ops.index(squares, np.s_[:, at, at]), 1)
    # of squares: as many as are at most, each of which a share may make twice as large
    trace = ops.within(ops.add_public(trace, 1 << GRAM_F), 1 << GRAM_F, (1 << TRACE_BITS) - 1)
    return trace, ops.reciprocal(trace, f=TRACE_F, bits=TRACE_BITS, low_bits=GRAM_F)


def solved(ops: Any, left: Any, right: Any, ridge: Any) -> Any:
    """w [K, D] within ±64 at f = 28 of (left + ridge·I)·w = right; all at f = 24, left [K, D, D]
    mean squares, right [K, D, 1], ridge [K]."""
    count, side = left.shape[:2]
    one = np.eye(side, dtype=np.int64)
    slopes = one.copy()
    slopes[-1, -1] = 0
    spread = ops.broadcast(ops.reshape(ridge, (-1, 1, 1)), left.shape)
    left = ops.add(left, ops.scale(spread, slopes))
    _, factor = _trace_of(ops, left)
    factor = ops.reshape(factor, (-1, 1, 1))
    system, wanted = (
        ops.mul(each, ops.broadcast(factor, each.shape), f=SYSTEM_F) for each in (left, right)
    )
    # |A_ij| is no more than the largest diagonal one, |b_i| than 2·√A_ii
    system, wanted = (ops.within(each, *_about(2, SYSTEM_F)) for each in (system, wanted))
    raised = ops.add_public(system, one << (SYSTEM_F - FLOOR_BITS))
    guess = ops.public(np.broadcast_to(one << INVERSE_F, left.shape), INVERSE_F)
    for _ in range(ITERATIONS):
        # B has eigenvalues from 2^−18 to 1, X a polynomial's of it up to 2^18 (three times that
        # where rounding takes from the least), and BX up to 1. Not so of one site's squares that
        # are less than their own rounding, with no penalty to speak of: some 2^−12 and millions of
        # rows. Its own w may be anything then, and is cut to ±64 below like any word.
        step = ops.neg(ops.within(ops.matmul(raised, guess, f=STEP_F), *_about(1, STEP_F)))
        guess = ops.matmul(guess, ops.add_public(step, 2 * one << STEP_F), f=INVERSE_F)
        guess = ops.within(guess, *_about(3 << FLOOR_BITS, INVERSE_F))
    # of rows' own squares, so that ‖B^−½ b‖ ≤ 2 and ‖X b‖ ≤ 2^10; each correction adds that at most
    found = ops.matmul(guess, ops.trunc(wanted, STEP_F), f=SYSTEM_F)
    found = ops.within(found, *_about(FOUND_MAX, SYSTEM_F))
    for _ in range(CORRECTIONS):
        lacking = ops.sub(ops.lift(wanted, 2 * SYSTEM_F), ops.matmul(system, found, f=2 * SYSTEM_F))
        # b, of which the part is taken that X did not find
        lacking = ops.within(ops.trunc(lacking, LEFT_F), *_about(8, LEFT_F))
        more = ops.within(ops.matmul(guess, lacking, f=SYSTEM_F), *_about(FOUND_MAX, SYSTEM_F))
        found = ops.within(ops.add(found, more), *_about(FOUND_MAX << 3, SYSTEM_F))
    limit = WEIGHT_LIMIT << SYSTEM_F
    return ops.clamp(ops.reshape(found, (count, side)), -limit, limit)
