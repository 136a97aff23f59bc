"""Linear regression: the score is the target itself, on the scale of the label; squared loss. A
round solves the least squares of all its sites' rows (circuits/least_squares.py).

A request gives the label's plausible range; sites share t = 4·(y − middle)/(max − min), in ±2, and
the buyer's client turns a score back. The game of squared loss needs only Σ z_k z_j and Σ z_k t.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits import least_squares
from apps.protocol.circuits.family import ModelClass, Real, Sums
from apps.protocol.circuits.games import SCORINGS
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.regression import OPENS, Span, evidence_by
from apps.protocol.circuits.resolution import Scale, fifths, hundredths
from apps.protocol.circuits.scoring import GAIN_F

TARGET_LIMIT = 2
SCORE_LIMIT = 8
SPAN = Span(
    limits=(-TARGET_LIMIT, TARGET_LIMIT), apart=TARGET_LIMIT + SCORE_LIMIT, bits=38, low_bits=8
)


def read_targets(ops: Any, words: Any) -> Any:
    limit = TARGET_LIMIT << INPUT_F
    return ops.clamp(words, -limit, limit)


def tamed(ops: Any, scores: Any) -> Any:
    """Scores within ±SCORE_LIMIT at f = 16."""
    limit = SCORE_LIMIT << scores.f
    return ops.trunc(ops.clamp(scores, -limit, limit), INPUT_F)


def residuals(ops: Any, scores: Any, targets: Any) -> Any:
    """t − z, at f = 16; the loss is half the square."""
    return ops.sub(targets, tamed(ops, scores))


def gains(ops: Any, scores: Any, targets: Any, members: Any) -> Any:
    """Σ_i [t·z − z²/2] with z the coalition's mean score, over the next power of two ≥ m.

    With a_S = members / |S|: a·h − aᵀGa / 2, h_k = Σ_i z_k t, G = Σ_i z_k z_j. |words| < 2^61.
    """
    sites, rows = scores.shape[0], scores.shape[2]
    below = (rows - 1).bit_length()
    z, t = ops.reshape(scores, (sites, rows)), ops.reshape(targets, (rows, 1))
    both = ops.matmul(z, ops.concat([ops.transpose(z), t], axis=1), f=2 * INPUT_F)
    mean = ops.trunc(ops.halve(both, below), GAIN_F)
    share = members / members.sum(axis=1)[:, None]
    pairs = -0.5 * (share[:, :, None] * share[:, None, :]).reshape(len(share), -1)
    table = np.concatenate([pairs, share], axis=1).T
    flat = ops.concat(
        [
            ops.reshape(ops.index(mean, np.s_[:, :sites]), (-1,)),
            ops.reshape(ops.index(mean, np.s_[:, sites:]), (-1,)),
        ]
    )
    return ops.trunc(ops.combine(flat, np.rint(table * 2**26).astype(np.int64), f=26), GAIN_F)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """min ½·Σ(t − w·x − b)² + ‖w‖² / (2c), exactly; [1, d + 1]."""
    rows = np.column_stack([features, np.ones(len(features))])
    penalty = np.diag([1.0 / c] * features.shape[1] + [0.0])
    return np.linalg.solve(rows.T @ rows + penalty, rows.T @ np.asarray(labels, float))[None, :]


def answer(scores: Real) -> Real:
    """The target on the label's scale, [k, 1]."""
    return scores


CLASS = ModelClass(
    name="linear",
    title="Linear regression",
    label="number",
    metrics=("r2",),
    scorings=SCORINGS,
    extras={},
    read_targets=read_targets,
    residuals=residuals,
    spare_bits=4,
    gains=gains,
    evidence=evidence_by(tamed, SPAN),
    train=train,
    sums=Sums(
        size=least_squares.size,
        made=least_squares.factor_of,
        models=least_squares.models,
        merged=least_squares.merged,
    ),
    answer=answer,
    scale=Scale(
        fifths(-TARGET_LIMIT, TARGET_LIMIT), hundredths(-TARGET_LIMIT, TARGET_LIMIT), lambda t: t
    ),
    opens=OPENS,
)
