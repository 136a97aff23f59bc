"""Scores of secret updates on secret rows, and the aggregate that follows (paper eq. 1, 6, 7).

All but φ stays secret. The utility that φ is made of is the SubDAO's choice:

- taylor: ⟨w_k − p, −∇L(p)⟩ at p = ¾·w̄.
- shapley, leave_one_out: the game gain(S) = L(0) − L(mean of w_k, k in S). Scores are linear in the
  weights: one matmul gives every site's, clamped once to ±8, and those of a coalition are public
  linear combinations of them. With x = z/8, log-loss is Σ_j LOSS_j x^(2j) − (y − ½)·z, an even
  polynomial of degree 8 within 0.0103 of log-loss on the whole range: no comparison per coalition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits.games import SCORING_POINT, coalitions
from apps.protocol.circuits.logistic_infer import INPUT_F, MODEL_F

PHI_ONE = 1000
UTILITY_F = 40
# Utilities (in log-loss) under 2^-18 are rounding noise: nobody contributed.
UTILITY_NOISE_BITS = UTILITY_F - 18

SCORE_LIMIT_BITS = 3
# ln(1 + e^z) − z/2 on |z| ≤ 8 by x^0, x^2 … x^8, x = z/8: the minimax fit.
LOSS = (0.70338075, 7.1783912, -9.60679695, 9.23147323, -3.5163464)
POWER_F = 24
GAIN_F = 26
# 1/|S| has so many bits; what it is off by is put right in the coefficients.
SIZE_F = 11
# Coalitions × rows at once: bounds memory at some 30 MB per node.
VALUES_MAX = 1 << 18


def clip_to_median_norm(ops: Any, updates: Any) -> Any:
    """w_k · min(1, median‖w‖ / ‖w_k‖); [K, d+1] at f = 16 -> f = 24. A zero update stays zero."""
    squared = ops.dot(updates, updates, f=2 * INPUT_F)
    inverse = ops.rsqrt(squared, f=22, bits=56)
    norms = ops.mul(ops.trunc(squared, 26), inverse, f=20)
    middle = ops.broadcast(ops.median(norms), norms.shape)
    too_long = ops.less_than(middle, norms)
    # the bit is applied to 1/‖w‖ first: median/‖w‖ of a tiny update would overflow
    shrink = ops.mul(middle, ops.mul(too_long, inverse), f=22)
    keep = ops.lift(ops.sub(ops.public(np.ones(norms.shape, np.int64), 0), too_long), 22)
    factor = ops.broadcast(ops.reshape(ops.add(keep, shrink), (-1, 1)), updates.shape)
    return ops.mul(updates, factor, f=MODEL_F)


def utilities(ops: Any, weights: Any, inputs: Any, labels: Any, scoring: str) -> Any:
    """u_k [K] at f = 40 of the clipped updates, by the chosen scoring, up to a public factor."""
    if scoring == "taylor":
        return taylor_utilities(ops, weights, inputs, labels)
    return coalition_utilities(ops, weights, inputs, labels, scoring)


def taylor_utilities(ops: Any, weights: Any, inputs: Any, labels: Any) -> Any:
    """u_k = ⟨w_k − p, −∇L(p)⟩ at p = ¾·w̄ of the rows' log-loss, times a public constant in (½, 1].

    weights [K, d+1] f = 24, inputs [m, d+1] f = 16 (last column 1), labels [m] f = 0 -> [K] f = 40.
    The constant (m / next power of two) cancels in φ; it spares a product.
    """
    members, rows = weights.shape[0], inputs.shape[0]
    part_of_mean = round(SCORING_POINT * 2**20 / members)
    point = ops.trunc(ops.scale(ops.sum(weights, 0), part_of_mean, f=20), MODEL_F)
    logits = ops.matmul(inputs, ops.reshape(point, (-1, 1)), f=20)
    errors = ops.sub(ops.lift(ops.reshape(labels, (-1, 1)), 20), ops.sigmoid_accurate(logits))
    total = ops.matmul(ops.transpose(inputs), errors, f=INPUT_F + 20)
    descent = ops.trunc(ops.halve(total, (rows - 1).bit_length()), UTILITY_F - INPUT_F)
    apart = ops.trunc(
        ops.sub(weights, ops.broadcast(ops.reshape(point, (1, -1)), weights.shape)), INPUT_F
    )
    return ops.reshape(ops.matmul(apart, descent, f=UTILITY_F), (-1,))


def coalition_utilities(ops: Any, weights: Any, inputs: Any, labels: Any, scoring: str) -> Any:
    """u_k of `shapley` or `leave_one_out`, times the constant m / next power of two.

    weights [K, d+1] f = 24, inputs [m, d+1] f = 16 (last column 1), labels [m] f = 0 -> [K] f = 40.
    """
    limit = 1 << (SCORE_LIMIT_BITS + INPUT_F)
    scores = ops.matmul(weights, ops.transpose(inputs), f=INPUT_F)
    members, shares = coalitions(scoring, weights.shape[0])
    gains = coalition_gains(ops, ops.clamp(scores, -limit, limit), labels, members)
    return ops.trunc(ops.combine(gains, np.rint(shares * 2**30).astype(np.int64), f=30), UTILITY_F)


def coalition_gains(ops: Any, scores: Any, labels: Any, members: Any) -> Any:
    """Σ_i [loss of score 0 − loss of the coalition's mean score], over the next power of two ≥ m.

    scores [K, m] f = 16 within ±8, members [C, K] -> [C] f = 26. Words stay under 2^61.
    """
    rows, sizes = scores.shape[1], members.sum(axis=1)
    below = (rows - 1).bit_length()
    parts = np.rint(2**SIZE_F / sizes).astype(np.int64)
    table = members.T * parts
    step = max(1, VALUES_MAX // len(members))
    total = None
    for start in range(0, rows, step):
        mine = ops.index(scores, np.s_[:, start : start + step])
        x = ops.halve(ops.combine(mine, table, f=SIZE_F), SCORE_LIMIT_BITS)
        second = ops.mul(x, x, f=POWER_F)
        fourth = ops.mul(second, second, f=POWER_F)
        sums = ops.stack(
            [
                ops.sum(second, 1),
                ops.sum(fourth, 1),
                ops.dot(fourth, second, f=POWER_F),
                ops.dot(fourth, fourth, f=POWER_F),
            ]
        )
        total = sums if total is None else ops.add(total, sums)
    exact = 2.0**SIZE_F / (sizes * parts)
    powers = np.arange(2, 10, 2)[:, None]
    factors = np.rint(np.array(LOSS[1:])[:, None] * exact**powers * 2**18).astype(np.int64)
    even = ops.sum(ops.scale(ops.halve(total, below), factors, f=18), 0)

    centred = ops.add_public(ops.scale(labels, 2), np.full(labels.shape, -1))
    centred = ops.halve(centred, 1)
    pulls = ops.dot(
        scores, ops.broadcast(ops.reshape(centred, (1, -1)), scores.shape), f=INPUT_F + 1
    )
    means = np.rint(members.T / sizes * 2**GAIN_F).astype(np.int64)
    odd = ops.halve(ops.combine(pulls, means, f=GAIN_F), below)
    return ops.sub(ops.trunc(odd, GAIN_F), ops.trunc(even, GAIN_F))


def phi_milli(ops: Any, utility: Any) -> list[int]:
    """Open round(1000 · relu(u_k) / max); all 0 when no utility exceeds the noise."""
    ratio = ops.ratio_of_max(ops.relu(utility), bits=61, low_bits=UTILITY_NOISE_BITS, f=28)
    opened = ops.open_rounded(ops.scale(ratio, PHI_ONE))
    return [int(value) for value in opened]


def aggregate(ops: Any, weights: Any, phi: Sequence[int]) -> Any:
    """w* = Σ_k (φ_k / S)·w_k with public φ, S = Σφ; [K, d+1] -> [d+1], same f, within 2 ulp."""
    total = sum(phi)
    table = np.array([[(2 * share * 2**30 + total) // (2 * total)] for share in phi], np.int64)
    return ops.reshape(ops.trunc(ops.combine(weights, table, f=30), weights.f), (-1,))
