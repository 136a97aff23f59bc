"""Logistic regression: p = σ(z) that a binary label is positive; log-loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits.cells import Rule
from apps.protocol.circuits.declare import Opening
from apps.protocol.circuits.evidence import LOSS_F, METRICS, evidence, softplus
from apps.protocol.circuits.family import ModelClass, Real
from apps.protocol.circuits.games import SCORINGS
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.resolution import Scale, fifths, hundredths
from apps.protocol.circuits.scoring import GAIN_F, SCORE_LIMIT_BITS
from apps.protocol.circuits.spread import LOSS_SPREAD

MAX_ITERATIONS = 2000
# ln(1 + e^z) − z/2 on |z| ≤ 8 by x^0, x^2 … x^8, x = z/8: the minimax fit, within 0.0103.
LOSS = (0.70338075, 7.1783912, -9.60679695, 9.23147323, -3.5163464)
POWER_F = 24
# 1/|S| has so many bits; what it is off by is put right in the coefficients.
SIZE_F = 11
# Of so many coalitions the loss is computed as in the evidence, within 2e-5: all of a leave-one-out
# game, and of the Shapley value of six sites.
FEW = 65
# Coalitions × rows at once: bounds memory at some 30 MB per node.
VALUES_MAX, EXACT_MAX = 1 << 18, 1 << 15


def residuals(ops: Any, scores: Any, labels: Any) -> Any:
    """y − σ(z) at f = 20; labels are bits [m, 1]."""
    return ops.sub(ops.lift(labels, scores.f), ops.sigmoid_accurate(scores))


def gains(ops: Any, scores: Any, labels: Any, members: Any) -> Any:
    """Σ_i [loss of score 0 − loss of the coalition's mean score], over the next power of two ≥ m.

    scores [K, 1, m] f = 16 within ±8, members [C, K] -> [C] f = 26. Words stay under 2^61.
    Log-loss is ln(1 + e^z) − z/2, which is even, less (y − ½)·z.
    """
    scores, labels = ops.reshape(scores, (scores.shape[0], -1)), ops.reshape(labels, (-1,))
    below = (scores.shape[1] - 1).bit_length()
    means = np.rint(members.T / members.sum(axis=1) * 2**GAIN_F).astype(np.int64)
    exact = 1 < len(members) <= FEW
    even = _even(ops, scores, means) if exact else _nearly_even(ops, scores, members)

    centred = ops.add_public(ops.scale(labels, 2), np.full(labels.shape, -1))
    centred = ops.halve(centred, 1)
    pulls = ops.dot(
        scores, ops.broadcast(ops.reshape(centred, (1, -1)), scores.shape), f=INPUT_F + 1
    )
    odd = ops.halve(ops.combine(pulls, means, f=GAIN_F), below)
    return ops.sub(ops.trunc(odd, GAIN_F), ops.trunc(ops.halve(even, below), GAIN_F))


def _even(ops: Any, scores: Any, means: Any) -> Any:
    """Σ_i [ln(1 + e^z) − z/2 − ln 2] of the coalitions' mean scores, [C] at GAIN_F."""
    (_, rows), count = scores.shape, means.shape[1]
    step, total = max(1, EXACT_MAX // count), None
    for start in range(0, rows, step):
        mine = ops.index(scores, np.s_[:, start : start + step])
        z = ops.trunc(ops.combine(mine, means, f=GAIN_F), LOSS_F)
        each = ops.sub(ops.scale(ops.reshape(softplus(ops, ops.reshape(z, (-1,))), z.shape), 2), z)
        found = ops.sum(each, 1)
        total = found if total is None else ops.add(total, found)
    start_loss = round(2 * np.log(2) * rows * 2**LOSS_F)
    less = ops.add_public(total, np.full(count, -start_loss, np.int64))
    return ops.halve(ops.lift(less, GAIN_F), 1)


def _nearly_even(ops: Any, scores: Any, members: Any) -> Any:
    """The same within 0.0103 for each row, but for a constant, which games do not see: with
    x = z/8, Σ_j LOSS_j x^(2j) from the second power on, so that no coalition costs a comparison."""
    rows, sizes = scores.shape[1], members.sum(axis=1)
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
    return ops.sum(ops.scale(total, factors, f=18), 0)


def opened(ops: Any, scores: Any, labels: Any, strata: Any, rule: Rule) -> dict[str, Any]:
    """The evidence of a binary label."""
    return evidence(ops, ops.reshape(scores, (-1,)), ops.concat([labels, strata], axis=1), rule)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """Weights [1, d + 1] by scikit-learn, which is imported here: it costs 80 MB and a second."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(features, labels)
    return np.concatenate([model.coef_, model.intercept_[:, None]], axis=1)


def answer(scores: Real) -> Real:
    """Probability of the positive label, [k, 1]."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))


CLASS = ModelClass(
    name="logistic",
    title="Logistic regression",
    label="binary",
    metrics=METRICS,
    scorings=SCORINGS,
    extras={},
    read_targets=lambda ops, words: ops.bit(words),
    residuals=residuals,
    gains=gains,
    evidence=opened,
    train=train,
    answer=answer,
    scale=Scale(fifths(0, 1), hundredths(0, 1), lambda p: np.log(p / (1 - p))),
    opens=(
        Opening(
            "support",
            "[rows, positives] of the evidence half: overall, then per stratum; null where there "
            "are fewer than min_cell positives or negatives (of several validators: without any "
            "one's rows), and for the smallest other stratum where those would follow by "
            "subtraction. The nodes see which strata are hidden for which reason, and no count of "
            "them",
        ),
        Opening("auc_milli", "area under the ROC curve of the new model, in thousandths"),
        Opening("auc_strata_milli", "the same per stratum; null where support is"),
        Opening(
            "auc_error_milli",
            "by how much the AUC may be off because more than 1 000 rows are counted in 200 bins",
        ),
        Opening("auc_error_strata_milli", "the same per stratum"),
        Opening("accuracy_milli", "share of right answers at probability ½, in thousandths"),
        Opening("accuracy_strata_milli", "the same per stratum; null where support is"),
        Opening("recall_milli", "share of the positives that the model calls so, in thousandths"),
        Opening("recall_strata_milli", "the same per stratum; null where support is"),
        Opening(
            "precision_milli",
            "share of the called that are positive; null also where fewer than min_cell are called",
        ),
        Opening("precision_strata_milli", "the same per stratum"),
        Opening("log_loss_milli", "mean log-loss in thousandths of a nat, scores within ±16"),
        Opening("log_loss_strata_milli", "the same per stratum; null where support is"),
        *LOSS_SPREAD,
        Opening(
            "calibration",
            "per fifth of the probability: rows, positives, mean probability in thousandths; null "
            "where there are fewer than min_cell rows, and for the smallest other fifth where "
            "those would follow by subtraction. The nodes see which are hidden for which reason",
        ),
    ),
)
