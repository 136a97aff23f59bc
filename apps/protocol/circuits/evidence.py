"""Secret scores and binary labels -> opened metrics, in thousandths.

AUC = (#{(i, j): i positive, j negative, z_i > z_j} + ½ #ties) / (P·N): by all pairs, exactly, up
to PAIR_ROWS_MAX rows; above by BINS bins of the score, with the largest error that this makes.
Counts are opened only of cells that are large enough (circuits/cells.py); every metric is divided
and rounded in secret.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from apps.protocol.circuits.cells import MEAN_F, Rule, cells_shown, open_cells, quotients, ratios
from apps.protocol.circuits.spread import VALUE_F, spreads

# Comparisons at once: bounds memory at some 10 MB per node.
PAIRS_MAX = 1 << 15
PAIR_ROWS_MAX = 1000
BINS = 200
BIN_LIMIT = 8.0
LOSS_LIMIT = 16
LOSS_F = 24
LOSS_LIMITS = (-1, LOSS_LIMIT + 2)
CALIBRATION_EDGES = (0.2, 0.4, 0.6, 0.8)
METRICS = ("auc", "accuracy", "precision", "recall", "log_loss")


def evidence(ops: Any, logits: Any, flags: Any, rule: Rule) -> dict[str, Any]:
    """Open support, the METRICS and calibration.

    logits [m]; flags [m, 1 + R] bits: label, then strata. The cells are all rows, then the strata;
    a cell that `cells_shown` leaves out opens nothing: null in every list.
    """
    rows = flags.shape[0]
    labels = ops.index(flags, np.s_[:, 0:1])
    ones = ops.public(np.ones((rows, 1), np.int64), 0)
    member = ops.concat([ones, ops.index(flags, np.s_[:, 1:])], axis=1)
    positive = ops.mul(ops.broadcast(labels, member.shape), member)
    negative = ops.sub(member, positive)

    totals, positives = ops.sum(member, 0), ops.sum(positive, 0)
    kinds = rule.told(ops, positive, negative)
    shown = cells_shown(ops, totals, kinds, rule.min_cell)
    counts = open_cells(ops, ops.stack([totals, positives], axis=1), shown)
    support = [None if count is None else [int(count[0]), int(count[1])] for count in counts]
    sizes = [None if count is None else count[0] for count in support]

    if rows <= PAIR_ROWS_MAX:
        doubled, tied = doubled_pairs(ops, logits, positive, negative), None
    else:
        doubled, tied = binned_pairs(ops, logits, positive, negative)
    pairs = [None if count is None else 2 * count[1] * (count[0] - count[1]) for count in support]
    found: dict[str, list[int | None]] = {"auc": quotients(ops, doubled, pairs)}
    found["auc_error"] = (
        [None if count is None else 0 for count in support]
        if tied is None
        else quotients(ops, tied, pairs)
    )

    whose = rule.groups.T
    below = ops.broadcast(ops.reshape(ops.ltz(logits), (1, -1)), whose.shape)
    both = ops.concat([member, positive], axis=1)
    under = ops.reshape(ops.matmul(ops.scale(below, whose), both), (len(whose), 2, -1))
    # of these rows, those that are not under 0
    called = ops.sub(ops.combine(member, whose.T, 0), ops.index(under, np.s_[:, 0]))
    called = ops.within(called, 0, rows)
    under = ops.index(under, 0)
    right_up = ops.sub(positives, ops.index(under, 1))
    right = ops.add(right_up, ops.sub(ops.index(under, 0), ops.index(under, 1)))
    found["accuracy"] = quotients(ops, right, sizes)
    ups = [None if count is None else count[1] for count in support]
    found["recall"] = quotients(ops, right_up, ups)
    told = ops.reshape(called, (len(whose), 1, -1))
    called = ops.index(called, 0)
    found["precision"] = ratios(ops, right_up, called, shown, rule.min_cell, told=told)
    z = tamed(ops, logits)
    losses = ops.sub(softplus(ops, z), ops.mul(ops.reshape(labels, (-1,)), z))
    by_cell = ops.broadcast(ops.reshape(losses, (1, -1)), (member.shape[1], rows))
    found["log_loss"] = quotients(ops, ops.dot(by_cell, ops.transpose(member)), sizes, f=MEAN_F)
    found["log_loss_spread"] = spreads(ops, ops.trunc(losses, VALUE_F), member, sizes, LOSS_LIMITS)

    answer: dict[str, Any] = {"support": support}
    for name, values in found.items():
        answer[f"{name}_milli"], answer[f"{name}_strata_milli"] = values[0], values[1:]
    some = support[0] is not None
    answer["calibration"] = calibration(ops, logits, labels, rule) if some else None
    return answer


def tamed(ops: Any, logits: Any) -> Any:
    """Scores within ±LOSS_LIMIT at LOSS_F."""
    limit = LOSS_LIMIT << logits.f
    return ops.trunc(ops.clamp(logits, -limit, limit), LOSS_F)


def softplus(ops: Any, z: Any) -> Any:
    """ln(1 + e^z) = max(z, 0) + ln(1 + e^−|z|) at LOSS_F, within 2e-5; z at LOSS_F within
    ±LOSS_LIMIT."""
    below = ops.ltz(z)
    up = ops.sub(z, ops.mul(below, z))
    # |z|
    size = ops.within(ops.sub(ops.scale(up, 2), z), 0, (LOSS_LIMIT << LOSS_F) + 1)
    rest = ops.exp(ops.neg(size), f=LOSS_F)
    return ops.add(up, ops.log(ops.add_public(rest, 1 << LOSS_F), f=LOSS_F, bits=LOSS_F + 2))


def calibration(ops: Any, logits: Any, labels: Any, rule: Rule) -> list[list[int] | None]:
    """Open per bin of the probability [rows, positives, mean probability in thousandths].

    The bins end at CALIBRATION_EDGES; those with fewer than min_cell rows are hidden, and, where
    they would follow by subtraction, the smallest other one with them.
    """
    rows, bins = logits.shape[0], len(CALIBRATION_EDGES) + 1
    edges = [round(math.log(p / (1 - p)) * 2**logits.f) for p in CALIBRATION_EDGES]
    wide = ops.broadcast(ops.reshape(logits, (1, -1)), (bins - 1, rows))
    at = np.broadcast_to(np.array(edges, np.int64)[:, None], (bins - 1, rows))
    below = ops.ltz(ops.sub(wide, ops.public(at, logits.f)))
    ends = ops.public(np.stack([np.zeros(rows, np.int64), np.ones(rows, np.int64)]), 0)
    steps = ops.concat([ops.index(ends, np.s_[:1]), below, ops.index(ends, np.s_[1:])])
    inside = ops.sub(ops.index(steps, np.s_[1:]), ops.index(steps, np.s_[:-1]))
    totals, ups = ops.sum(inside, 1), ops.reshape(ops.matmul(inside, labels), (-1,))
    with_all = ops.concat([ops.reshape(ops.sum(totals, 0), (1,)), totals])
    told = rule.told(ops, ops.transpose(inside))
    told = ops.concat([ops.reshape(ops.sum(told, 2), (-1, 1, 1)), told], axis=2)
    shown = [cell - 1 for cell in cells_shown(ops, with_all, told, rule.min_cell) if cell]
    counts = open_cells(ops, ops.stack([totals, ups], axis=1), shown)
    chances = ops.reshape(ops.sigmoid_accurate(tamed(ops, logits)), (-1, 1))
    sums = ops.reshape(ops.matmul(inside, chances), (-1,))
    sizes = [None if count is None else int(count[0]) for count in counts]
    means = quotients(ops, sums, sizes, f=MEAN_F)
    return [
        None if count is None else [int(count[0]), int(count[1]), int(mean or 0)]
        for count, mean in zip(counts, means, strict=True)
    ]


def doubled_pairs(ops: Any, logits: Any, positive: Any, negative: Any) -> Any:
    """2·Σ u_i v_j ([z_i > z_j] + ½[z_i = z_j]) per column; positive u, negative v: [m, C] bits.

    With D_ij = [z_j < z_i] the bracket is (1 + D_ij − D_ji)/2, so that the sum is
    Σu·Σv + Σ_ij D_ij (u_i v_j − v_i u_j): each ordered pair is compared once, and an inner
    product costs one word per output, whatever its length.
    """
    rows, cells = positive.shape
    both = ops.concat([negative, positive], axis=1)
    total = ops.mul(ops.sum(positive, 0), ops.sum(negative, 0))
    step = max(1, PAIRS_MAX // rows)
    for start in range(0, rows, step):
        part = np.s_[start : start + step]
        mine = ops.index(logits, part)
        shape = (mine.shape[0], rows)
        below = ops.less_than(
            ops.broadcast(ops.reshape(logits, (1, -1)), shape),
            ops.broadcast(ops.reshape(mine, (-1, 1)), shape),
        )
        counted = ops.matmul(below, both)
        signed = ops.concat([ops.index(positive, part), ops.neg(ops.index(negative, part))], axis=1)
        terms = ops.dot(ops.transpose(signed), ops.transpose(counted))
        total = ops.add(total, ops.sum(ops.reshape(terms, (2, cells)), 0))
    return total


def binned_pairs(ops: Any, logits: Any, positive: Any, negative: Any) -> tuple[Any, Any]:
    """(2·Σ_ij as `doubled_pairs`, with scores cut to BINS bins of ±8; Σ_b u_b v_b) per column.

    Pairs of one bin count as ties: the first is off by at most the second.
    """
    rows, cells = positive.shape
    edges = np.linspace(-BIN_LIMIT, BIN_LIMIT, BINS + 1)[1:-1]
    at = np.rint(edges * 2.0**logits.f).astype(np.int64)[:, None]
    both = ops.concat([positive, negative], axis=1)
    total = None
    step = max(1, PAIRS_MAX // len(at))
    for start in range(0, rows, step):
        part = np.s_[start : start + step]
        mine = ops.reshape(ops.index(logits, part), (1, -1))
        shape = (len(at), mine.shape[1])
        edge = ops.public(np.broadcast_to(at, shape), logits.f)
        counted = ops.matmul(ops.less_than(ops.broadcast(mine, shape), edge), ops.index(both, part))
        total = counted if total is None else ops.add(total, counted)
    none = ops.public(np.zeros((1, 2 * cells), np.int64), 0)
    everyone = ops.reshape(ops.sum(both, 0), (1, -1))
    below = ops.concat([none, total, everyone])
    upto, before = ops.index(below, np.s_[1:]), ops.index(below, np.s_[:-1])
    inside = ops.transpose(ops.sub(upto, before))
    ups, downs = ops.index(inside, np.s_[:cells]), ops.index(inside, np.s_[cells:])
    above = ops.sub(ops.broadcast(everyone, upto.shape), upto)
    over = ops.index(ops.transpose(above), np.s_[:cells])
    tied = ops.dot(downs, ups)
    return ops.add(ops.scale(ops.dot(downs, over), 2), tied), tied
