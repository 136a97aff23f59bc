"""Multinomial regression: a label of C classes, p_c = e^(z_c) / Σ e^(z_j); log-loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits.cells import MEAN_F, Rule, cells_shown, open_cells, quotients
from apps.protocol.circuits.declare import Opening
from apps.protocol.circuits.family import ModelClass, Real
from apps.protocol.circuits.regression import members, open_rows
from apps.protocol.circuits.resolution import (
    BAND,
    LABEL,
    Scale,
    fifths,
    highest,
    hundredths,
    reached,
)
from apps.protocol.circuits.scoring import GAIN_F
from apps.protocol.circuits.spread import LOSS_SPREAD, VALUE_F, spreads

CLASSES_MAX = 16
SCORE_LIMIT = 8
LOSS_F = 20
# of a row: 16 + ln 16 at most
LOSS_LIMITS = (-1, 2 * SCORE_LIMIT + 4)
# Scores at once: bounds memory at some 60 MB per node.
VALUES_MAX = 1 << 15
MAX_ITERATIONS = 2000


def tamed(ops: Any, scores: Any) -> Any:
    """Scores within ±SCORE_LIMIT at LOSS_F."""
    limit = SCORE_LIMIT << scores.f
    return ops.trunc(ops.clamp(scores, -limit, limit), LOSS_F)


def grown(ops: Any, z: Any) -> tuple[Any, Any]:
    """(e^z [..., C], Σ_c e^z) at LOSS_F; z at LOSS_F within ±SCORE_LIMIT."""
    each = ops.exp(z, f=LOSS_F)
    return each, ops.sum(each, len(z.shape) - 1)


def log_sum(ops: Any, total: Any) -> Any:
    return ops.log(total, f=LOSS_F, bits=LOSS_F + 16)


def chances(ops: Any, scores: Any) -> Any:
    """p_c = e^(z_c) / Σ e^(z_j) at LOSS_F, scores within ±SCORE_LIMIT first; [m, C]."""
    each, total = grown(ops, tamed(ops, scores))
    inverse = ops.reciprocal(total, f=28, bits=LOSS_F + 16, low_bits=LOSS_F - 10)
    wide = ops.broadcast(ops.reshape(inverse, (-1, 1)), each.shape)
    # a part of the sum, and off by 2e-5 at most
    return ops.within(ops.mul(each, wide, f=LOSS_F), 0, (1 << LOSS_F) + (1 << 6))


def residuals(ops: Any, scores: Any, targets: Any) -> Any:
    """[label is c] − p_c at LOSS_F; targets are bits [m, C]."""
    return ops.sub(ops.lift(targets, LOSS_F), chances(ops, scores))


def gains(ops: Any, scores: Any, targets: Any, members: Any) -> Any:
    """Σ_i [ln C − ln Σ_c e^(z_c) + z_label], z the coalition's mean scores, by next 2^k ≥ m."""
    sites, classes, rows = scores.shape
    below = (rows - 1).bit_length()
    table = np.rint(members.T / members.sum(axis=1) * 2**14).astype(np.int64)
    step = max(1, VALUES_MAX // (len(members) * classes))
    total = None
    for start in range(0, rows, step):
        part = ops.index(scores, np.s_[:, :, start : start + step])
        many = part.shape[2]
        mine = ops.combine(ops.reshape(part, (sites, -1)), table, f=14)
        wide = ops.reshape(ops.trunc(mine, LOSS_F), (len(members), classes, many))
        summed = ops.sum(ops.exp(wide, f=LOSS_F), 1)
        losses = ops.sum(log_sum(ops, summed), 1)
        total = losses if total is None else ops.add(total, losses)
    truth = ops.reshape(ops.transpose(targets), (1, -1))
    flat = ops.reshape(scores, (sites, -1))
    pulls = ops.dot(flat, ops.broadcast(truth, flat.shape))
    right = ops.trunc(ops.combine(pulls, table, f=14), LOSS_F)
    start_loss = round(np.log(classes) * rows * 2**LOSS_F)
    left = ops.add_public(ops.sub(right, total), np.full(len(members), start_loss))
    return ops.trunc(ops.halve(left, below), GAIN_F)


def opened(ops: Any, scores: Any, targets: Any, strata: Any, rule: Rule) -> dict[str, Any]:
    """Accuracy and log-loss per stratum, and the share that is found of each class."""
    rows, classes = targets.shape
    member = members(ops, strata)
    support = open_rows(ops, member, rule)
    z = tamed(ops, scores)
    own = ops.reshape(ops.dot(targets, z), (rows, 1))
    above = ops.less_than(ops.broadcast(own, z.shape), z)
    # right where no other class has a higher score
    right = ops.ltz(ops.add_public(ops.sum(above, 1), -1))
    _, total = grown(ops, z)
    losses = ops.sub(log_sum(ops, total), ops.reshape(own, (-1,)))
    across = ops.transpose(member)
    hits = ops.dot(ops.broadcast(ops.reshape(right, (1, -1)), across.shape), across)
    surprise = ops.dot(ops.broadcast(ops.reshape(losses, (1, -1)), across.shape), across)
    accuracy, log_loss = quotients(ops, hits, support), quotients(ops, surprise, support, f=MEAN_F)
    spread = spreads(ops, ops.trunc(losses, VALUE_F), member, support, LOSS_LIMITS)
    by_class: list[Any] = [None] * classes
    if support[0] is not None:
        counts = ops.concat([ops.reshape(ops.sum(member, 0), (-1,)), ops.sum(targets, 0)])
        counts = ops.index(counts, np.r_[0, member.shape[1] : member.shape[1] + classes])
        told = rule.told(ops, ops.concat([ops.index(member, np.s_[:, :1]), targets], axis=1))
        shown = [c - 1 for c in cells_shown(ops, counts, told, rule.min_cell) if c]
        sizes = open_cells(ops, ops.reshape(ops.index(counts, np.s_[1:]), (-1, 1)), shown)
        table = ops.transpose(targets)
        found = ops.dot(ops.broadcast(ops.reshape(right, (1, -1)), table.shape), table)
        share = quotients(ops, found, [None if size is None else int(size[0]) for size in sizes])
        by_class = [
            None if size is None else [int(size[0]), part]
            for size, part in zip(sizes, share, strict=True)
        ]
    return {
        "support": support,
        "accuracy_milli": accuracy[0],
        "accuracy_strata_milli": accuracy[1:],
        "log_loss_milli": log_loss[0],
        "log_loss_strata_milli": log_loss[1:],
        "log_loss_spread_milli": spread[0],
        "log_loss_spread_strata_milli": spread[1:],
        "classes": by_class,
    }


def read_targets(ops: Any, words: Any) -> Any:
    """Bits [m, C], the first one that is set alone: a row has one label, or none."""
    bits = ops.bit(words)
    kept = [ops.index(bits, np.s_[:, :1])]
    free = ops.add_public(ops.neg(kept[0]), 1)
    for at in range(1, bits.shape[1]):
        mine = ops.mul(ops.index(bits, np.s_[:, at : at + 1]), free)
        kept.append(mine)
        # 1 until a bit is set: mine is no more
        free = ops.within(ops.sub(free, mine), 0, 1)
    return ops.concat(kept, axis=1)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """Weights [C, d + 1] of all C classes, whichever the site has: min ‖W‖²/2 + c·Σ log-loss.

    The intercept is in the penalty, so that a class without a row keeps a finite one.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    rows = np.column_stack([features, np.ones(len(features))])
    truth = np.eye(outputs)[np.asarray(labels, int)]

    def objective(flat: Real) -> tuple[float, Real]:
        weights = flat.reshape(outputs, -1)
        scores = rows @ weights.T
        scores -= scores.max(axis=1, keepdims=True)
        each = np.exp(scores)
        chance = each / each.sum(axis=1, keepdims=True)
        loss = -np.sum(truth * (scores - np.log(each.sum(axis=1, keepdims=True))))
        slope = c * (chance - truth).T @ rows + weights
        return float(c * loss + 0.5 * np.sum(flat**2)), slope.reshape(-1)

    start = np.zeros(outputs * rows.shape[1])
    done = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
    )
    return np.asarray(done.x.reshape(outputs, -1))


def cut(ops: Any, scores: Any, resolution: str, scale: Scale) -> Any:
    """Steps of the exact scores for a label, of each class's probability for the others.

    For these a score counts as ±SCORE_LIMIT at most, as in the evidence.
    """
    if resolution == LABEL:
        return highest(ops, scores)
    chance = chances(ops, scores)
    if resolution == BAND:
        return reached(ops, chance, scale.edges(BAND))
    # of a hundred equal steps the whole part, instead of a hundred comparisons for each class
    half = 1 << (LOSS_F - 1)
    return ops.floor(ops.add_public(ops.scale(chance, 100), half), bits=7)


def answer(scores: Real) -> Real:
    """Probability of each class, [k, C]."""
    each = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(each / each.sum(axis=1, keepdims=True))


CLASS = ModelClass(
    name="multinomial",
    title="Multinomial regression",
    label="classes",
    metrics=("accuracy", "log_loss"),
    scorings=("taylor", "leave_one_out"),
    extras={"classes": (2, CLASSES_MAX)},
    outputs=lambda params: int(params["classes"]),
    targets=lambda params: int(params["classes"]),
    read_targets=read_targets,
    residuals=residuals,
    spare_bits=2,
    gains=gains,
    evidence=opened,
    train=train,
    answer=answer,
    scale=Scale(fifths(0, 1), hundredths(0, 1), lambda p: p),
    cut=cut,
    opens=(
        Opening(
            "support",
            "[rows] of the evidence half: overall, then per stratum; null where there are fewer "
            "than twice min_cell (of several validators: without any one's rows), and for the "
            "smallest other stratum where those would follow by subtraction. The nodes see which "
            "strata are hidden for which reason",
        ),
        Opening(
            "accuracy_milli", "share of rows whose label has the highest score, in thousandths"
        ),
        Opening("accuracy_strata_milli", "the same per stratum; null where support is"),
        Opening("log_loss_milli", "mean log-loss in thousandths of a nat, scores within ±8"),
        Opening("log_loss_strata_milli", "the same per stratum; null where support is"),
        *LOSS_SPREAD,
        Opening(
            "classes",
            "per class: rows, and the share of them that is found, in thousandths; null where "
            "there are fewer than min_cell, and for the smallest other class where those would "
            "follow by subtraction",
        ),
    ),
)
