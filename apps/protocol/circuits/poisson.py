"""Poisson regression: the label is a count with mean e^z; loss e^z − y·z."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits.family import ModelClass, Real
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.regression import OPENS, Span, evidence_by
from apps.protocol.circuits.resolution import Scale
from apps.protocol.circuits.scoring import GAIN_F

COUNT_MAX = 1000
SCORE_LIMIT = 6
BANDS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, COUNT_MAX)
# Whole counts, above a hundred whole tens.
GRID = (*range(100), *range(100, COUNT_MAX + 1, 10))
SPAN = Span(limits=(0, COUNT_MAX), apart=COUNT_MAX, bits=52, low_bits=19)
# Coalitions × rows at once: bounds memory at some 60 MB per node.
VALUES_MAX = 1 << 14


def read_targets(ops: Any, words: Any) -> Any:
    """Counts within 0 … COUNT_MAX."""
    high = COUNT_MAX << INPUT_F
    return ops.clamp(words, 0, high)


def rates(ops: Any, scores: Any) -> Any:
    """e^z at f = 16, z within ±SCORE_LIMIT first."""
    limit = SCORE_LIMIT << scores.f
    return ops.exp(ops.trunc(ops.clamp(scores, -limit, limit), INPUT_F + 4), f=INPUT_F)


def residuals(ops: Any, scores: Any, targets: Any) -> Any:
    """y − e^z at f = 16."""
    return ops.sub(targets, rates(ops, scores))


def gains(ops: Any, scores: Any, targets: Any, members: Any) -> Any:
    """Σ_i [1 − e^z + y·z] with z the coalition's mean score, over the next power of two ≥ m."""
    sites, rows = scores.shape[0], scores.shape[2]
    below = (rows - 1).bit_length()
    limit = SCORE_LIMIT << INPUT_F
    scores = ops.clamp(ops.reshape(scores, (sites, rows)), -limit, limit)
    table = np.rint(members.T / members.sum(axis=1) * 2**14).astype(np.int64)
    step = max(1, VALUES_MAX // len(members))
    total = None
    for start in range(0, rows, step):
        mine = ops.combine(ops.index(scores, np.s_[:, start : start + step]), table, f=14)
        grown = ops.sum(ops.exp(ops.trunc(mine, INPUT_F + 4), f=INPUT_F + 4), 1)
        total = grown if total is None else ops.add(total, grown)
    truth = ops.broadcast(ops.reshape(targets, (1, -1)), scores.shape)
    pulls = ops.trunc(ops.combine(ops.dot(scores, truth, f=INPUT_F + 4), table, f=14), INPUT_F + 4)
    left = ops.add_public(ops.sub(pulls, total), np.full(len(members), rows << (INPUT_F + 4)))
    return ops.trunc(ops.halve(left, below), GAIN_F)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """Weights [1, d + 1] by scikit-learn: min mean(e^z − y·z) + ‖w‖² / (2·c·n)."""
    from sklearn.linear_model import PoissonRegressor  # type: ignore[import-untyped]

    model = PoissonRegressor(alpha=1.0 / (c * len(features)), max_iter=1000).fit(features, labels)
    return np.append(model.coef_, model.intercept_)[None, :]


def answer(scores: Real) -> Real:
    """The expected count, [k, 1], e^50 at most."""
    return np.asarray(np.exp(np.minimum(scores, 50)))


CLASS = ModelClass(
    name="poisson",
    title="Poisson regression",
    label="count",
    metrics=("r2",),
    scorings=("taylor", "leave_one_out"),
    extras={},
    read_targets=read_targets,
    residuals=residuals,
    spare_bits=10,
    descends=False,
    gains=gains,
    evidence=evidence_by(rates, SPAN),
    train=train,
    answer=answer,
    scale=Scale(BANDS, GRID, np.log),
    opens=OPENS,
)
