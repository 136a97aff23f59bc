"""Scores of secret updates on secret rows, and the aggregate that follows (paper eq. 1, 6, 7).

All but φ stays secret. The utility that φ is made of is the SubDAO's choice:

- taylor: ⟨w_k − p, −∇L(p)⟩ at p = ¾·w̄.
- shapley, leave_one_out: the game gain(S) = L(0) − L(mean of w_k, k in S). Scores are linear in the
  weights: one matmul gives every site's, clamped once to ±8, and those of a coalition are public
  linear combinations of them. The loss is the model class's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import numpy as np

from apps.protocol.circuits.games import SCORING_POINT, coalitions
from apps.protocol.circuits.layout import (
    CLIPPED_BOUND,
    FEATURE_LIMIT,
    INPUT_F,
    MODEL_F,
    WEIGHT_LIMIT,
)

PHI_ONE = 1000
UTILITY_F = 40
UTILITY_BITS = 61
# ‖w‖² of up to 4 095 numbers within ±64 at f = 32; of more it has as many bits more as they have.
LENGTH_BITS = 56
UTILITY_BOUND = 31 << UTILITY_BITS - 5
# Utilities (in log-loss) under 2^-18 are rounding noise: nobody contributed.
UTILITY_NOISE_BITS = UTILITY_F - 18

SCORE_LIMIT_BITS = 3
GAIN_F = 26
# By so much, times 2^spare_bits, a loss within the scores' limits differs from that of score 0.
GAIN_LIMIT = 16


def lengths(ops: Any, updates: Any) -> tuple[Any, Any]:
    """(‖w_k‖² at f = 32, 1/‖w_k‖ at f = 22), [K] each, of updates [K, d+1] at f = 16 within ±64,
    or of such at f = 24 that have a length of 1 at most."""
    squared = ops.dot(updates, updates, f=2 * INPUT_F)
    bits = max(LENGTH_BITS, 44 + int(updates.shape[1]).bit_length())
    if updates.f != INPUT_F:
        squared = ops.within(squared, 0, 2 << 2 * INPUT_F)
    return squared, ops.rsqrt(squared, f=22, bits=bits)


def clipped(ops: Any, updates: Any, squared: Any, inverse: Any, bound: int | None = None) -> Any:
    """w_k · min(1, b / ‖w_k‖); [K, d+1] at f = 16 -> f = 24. A zero update stays zero.

    b: the median norm, or the public bound, its word at f = 20.
    """
    factor = clipping(ops, updates.shape[1], squared, inverse, bound)
    wide = ops.broadcast(ops.reshape(factor, (-1, 1)), updates.shape)
    # so a factor above 1 + 2^−7 is that of numbers under 2^−8
    return ops.within(ops.mul(updates, wide, f=MODEL_F), -CLIPPED_BOUND, CLIPPED_BOUND)


def clipping(ops: Any, size: int, squared: Any, inverse: Any, bound: int | None = None) -> Any:
    """min(1, b / ‖w_k‖) at f = 22, [K], of updates of so many numbers within ±64."""
    # ‖w‖²·(1/‖w‖), which is off by 2^−9 of itself at most
    longest = (isqrt(size) + 1) * WEIGHT_LIMIT
    norms = ops.within(
        ops.mul(ops.trunc(squared, 26), inverse, f=20), 0, (longest + longest // 64 + 8) << 20
    )
    most = ops.median(norms) if bound is None else ops.public([bound], 20)
    middle = ops.broadcast(most, norms.shape)
    too_long = ops.less_than(middle, norms)
    # the bit is applied to 1/‖w‖ first: b/‖w‖ of a tiny update would overflow
    # b < ‖w‖, which is computed to ‖w‖ + 2^−26/‖w‖ at most: of the shortest, 2^−16, to 65·‖w‖
    shrink = ops.within(
        ops.mul(middle, ops.mul(too_long, inverse), f=22), 0, (WEIGHT_LIMIT + 2) << 22
    )
    keep = ops.lift(ops.sub(ops.public(np.ones(norms.shape, np.int64), 0), too_long), 22)
    return ops.add(keep, shrink)


def taylor_utilities(
    ops: Any,
    weights: Any,
    inputs: Any,
    targets: Any,
    residuals: Callable[[Any, Any, Any], Any],
    outputs: int,
    spare_bits: int,
) -> Any:
    """u_k = ⟨w_k − p, −∇L(p)⟩ at p = ¾·w̄ of the rows' loss, times a public constant.

    weights [K, o·(d+1)] f = 24, inputs [m, d+1] f = 16 (last column 1) -> [K] f = 40.
    The constant (m / next power of two, and 2^−spare_bits) cancels in φ; it spares a product.
    """
    members, rows = weights.shape[0], inputs.shape[0]
    part_of_mean = round(SCORING_POINT * 2**20 / members)
    point = ops.trunc(ops.scale(ops.sum(weights, 0), part_of_mean, f=20), MODEL_F)
    columns = ops.transpose(ops.reshape(point, (outputs, -1)))
    errors = residuals(ops, ops.matmul(inputs, columns, f=20), targets)
    total = ops.matmul(ops.transpose(inputs), errors, f=INPUT_F + errors.f)
    mean = ops.halve(total, (rows - 1).bit_length() + spare_bits)
    descent = ops.reshape(ops.transpose(ops.trunc(mean, UTILITY_F - INPUT_F)), (-1, 1))
    apart = ops.trunc(
        ops.sub(weights, ops.broadcast(ops.reshape(point, (1, -1)), weights.shape)), INPUT_F
    )
    # residuals of m rows sum up, in size and over all outputs, to m · 2^spare_bits at most: so the
    # mean gradients of one input's weights sum up to the input's limit
    reach = (7 * CLIPPED_BOUND >> 2) + (1 << MODEL_F)
    most = reach * (FEATURE_LIMIT + 1) * inputs.shape[1] << (UTILITY_F - MODEL_F)
    return ops.within(ops.reshape(ops.matmul(apart, descent, f=UTILITY_F), (-1,)), -most, most)


def coalition_utilities(
    ops: Any,
    weights: Any,
    inputs: Any,
    targets: Any,
    gains: Callable[[Any, Any, Any, Any], Any],
    outputs: int,
    spare_bits: int,
    scoring: str,
) -> Any:
    """u_k of `shapley` or `leave_one_out`, times m / next power of two and 2^−spare_bits.

    weights [K, o·(d+1)] f = 24, inputs [m, d+1] f = 16 (last column 1) -> [K] f = 40.
    """
    limit = 1 << (SCORE_LIMIT_BITS + INPUT_F)
    sites, rows = weights.shape[0], inputs.shape[0]
    each = ops.reshape(weights, (sites * outputs, -1))
    scores = ops.clamp(ops.matmul(each, ops.transpose(inputs), f=INPUT_F), -limit, limit)
    members, shares = coalitions(scoring, sites)
    gained = gains(ops, ops.reshape(scores, (sites, outputs, rows)), targets, members)
    # no loss of a row is further than this from that of score 0
    most = GAIN_LIMIT << (GAIN_F + spare_bits)
    gained = ops.within(gained, -most, most)
    share_f = 30 - spare_bits
    table = np.rint(shares * 2.0**share_f).astype(np.int64)
    return ops.trunc(ops.halve(ops.combine(gained, table, f=share_f), spare_bits), UTILITY_F)


def phi_milli(ops: Any, utility: Any, spare_bits: int = 0) -> list[int]:
    """Open round(1000 · relu(u_k) / max); all 0 when no utility exceeds the noise."""
    least = UTILITY_NOISE_BITS - spare_bits
    ratio = ops.ratio_of_max(ops.relu(utility), bits=UTILITY_BITS, low_bits=least, f=28)
    opened = ops.open_rounded(ops.scale(ratio, PHI_ONE))
    return [int(value) for value in opened]


def aggregate(ops: Any, weights: Any, phi: Sequence[int]) -> Any:
    """w* = Σ_k (φ_k / S)·w_k with public φ, S = Σφ; [K, d+1] -> [d+1], same f, within 2 ulp."""
    total = sum(phi)
    table = np.array([[(2 * share * 2**30 + total) // (2 * total)] for share in phi], np.int64)
    return ops.reshape(ops.trunc(ops.combine(weights, table, f=30), weights.f), (-1,))
