"""Cox's proportional hazards: the score is the log of a row's hazard against that of a row of mean
features; loss is Breslow's partial likelihood.

A label is (time, event): t = 2·time/horizon in 0 … 2, and 1 where the event came then, 0 where the
row was only watched so long. With R_i the rows of time ≥ t_i, S_i = Σ_{j in R_i} e^(z_j),

    loss = Σ_i e_i (ln S_i − z_i)        −∂loss/∂z_j = e_j − e^(z_j)·Σ_{i: j in R_i} e_i / S_i

(the martingale residual). A validator gives its rows in the order of their times, and is judged by
that order: R_i are the rows from i on, so that S is a public sum and no two times are compared.
Of equal times events come first, each of which lacks those before it in its sum: where most times
are equal, finer ones judge better. Rows in another order are one way to lie about labels. Evidence
compares times themselves.

C-index (Harrell): of pairs of which one has the event before the other's time, the share where its
score is the higher one, half of those with equal scores. Within groups of GROUP_MAX rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits.cells import Rule, cells_shown, open_cells, ratios
from apps.protocol.circuits.declare import Opening
from apps.protocol.circuits.family import ModelClass, Real
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.regression import members
from apps.protocol.circuits.resolution import Scale
from apps.protocol.circuits.scoring import GAIN_F

TIME_MAX = 2
SCORE_LIMIT = 6
HAZARD_F = 20
# 1/S of S from e^−6 to 2 000·e^6; e_j·Σ 1/S_i ≤ rows, which at 16 + 34 bits stays under 2^61
SUM_BITS, SUM_LOW, SHARE_F = HAZARD_F + 20, HAZARD_F - 9, 34
LOSS_F = 20
LOG_BITS = LOSS_F + 24
# Logarithms at once, comparisons at once: bounds memory at some 60 and 10 MB per node.
VALUES_MAX, PAIRS_MAX = 1 << 15, 1 << 15
GROUP_MAX = 500
PAIR_BITS = 22
MAX_ITERATIONS = 500
BANDS = (0, 0.25, 0.5, 1, 2, 4, 50)
# Tenths up to 5, then whole numbers.
GRID = (*(k / 10 for k in range(50)), *range(5, 51))


def read_targets(ops: Any, words: Any) -> Any:
    """[m, 2]: times within 0 … TIME_MAX, events as they came."""
    times = ops.clamp(ops.index(words, np.s_[:, :1]), 0, TIME_MAX << INPUT_F)
    return ops.concat([times, ops.index(words, np.s_[:, 1:])], axis=1)


def events_of(ops: Any, targets: Any) -> Any:
    """Bits [m]."""
    return ops.bit(ops.index(targets, np.s_[:, 1]))


def _from_on(rows: int) -> Any:
    """[s, c] = 1 where s ≥ c: a table that sums each row with all later ones."""
    return np.tril(np.ones((rows, rows), np.int64))


def residuals(ops: Any, scores: Any, targets: Any) -> Any:
    """e_j − e^(z_j)·Σ_{i ≤ j} e_i / S_i at f = 16, [m, 1]; z within ±SCORE_LIMIT first."""
    rows, limit = scores.shape[0], SCORE_LIMIT << scores.f
    z = ops.trunc(ops.clamp(ops.reshape(scores, (-1,)), -limit, limit), HAZARD_F)
    hazard, table, event = ops.exp(z, f=HAZARD_F), _from_on(rows), events_of(ops, targets)
    left = ops.combine(hazard, table, 0)
    inverse = ops.reciprocal(left, f=SHARE_F, bits=SUM_BITS, low_bits=SUM_LOW)
    so_far = ops.combine(ops.mul(event, inverse), table.T, 0)
    # S_i ≥ e^(z_j) for i ≤ j: each of the 1/S_i adds 1 at most
    expected = ops.within(
        ops.mul(ops.trunc(hazard, INPUT_F), so_far, f=INPUT_F), 0, (rows + 2) << INPUT_F
    )
    return ops.reshape(ops.sub(ops.lift(event, INPUT_F), expected), (-1, 1))


def gains(ops: Any, scores: Any, targets: Any, members: Any) -> Any:
    """Σ_i e_i [ln |R_i| − ln S_i + z_i], z the coalition's mean score, by next 2^k ≥ m; [C]."""
    sites, rows = scores.shape[0], scores.shape[2]
    below, many = (rows - 1).bit_length(), len(members)
    table = np.rint(members.T / members.sum(axis=1) * 2**14).astype(np.int64)
    z = ops.trunc(ops.combine(ops.reshape(scores, (sites, rows)), table, f=14), LOSS_F)
    left = ops.combine(ops.transpose(ops.exp(z, f=LOSS_F)), _from_on(rows), 0)
    event, total = events_of(ops, targets), None
    # of equal scores S_i is |R_i|
    start = np.rint(np.log(np.arange(rows, 0, -1)) * 2**LOSS_F).astype(np.int64)[:, None]
    step = max(1, VALUES_MAX // many)
    for at in range(0, rows, step):
        part = np.s_[at : at + step]
        mine = ops.log(ops.index(left, part), f=LOSS_F, bits=LOG_BITS)
        gained = ops.sub(ops.index(ops.transpose(z), part), mine)
        gained = ops.transpose(ops.add_public(gained, np.broadcast_to(start[part], mine.shape)))
        wide = ops.broadcast(ops.reshape(ops.index(event, part), (1, -1)), gained.shape)
        here = ops.dot(wide, gained)
        total = here if total is None else ops.add(total, here)
    return ops.trunc(ops.halve(total, below), GAIN_F)


def opened(ops: Any, scores: Any, targets: Any, strata: Any, rule: Rule) -> dict[str, Any]:
    """Support as [rows, events], and the C-index, overall and of pairs within each stratum."""
    rows, event = scores.shape[0], events_of(ops, targets)
    member = members(ops, strata)
    happened = ops.mul(ops.broadcast(ops.reshape(event, (-1, 1)), member.shape), member)
    kinds = rule.told(ops, happened, ops.sub(member, happened))
    totals, happened = ops.sum(member, 0), ops.sum(happened, 0)
    shown = cells_shown(ops, totals, kinds, rule.min_cell)
    support = open_cells(ops, ops.stack([totals, happened], axis=1), shown)
    groups = -(-rows // GROUP_MAX)
    right = both = None
    for place in range(groups if shown else 0):
        at = np.s_[place::groups]
        found = concordance(
            ops,
            ops.reshape(ops.index(scores, at), (-1,)),
            ops.index(ops.index(targets, np.s_[:, 0]), at),
            ops.index(event, at),
            ops.index(member, at),
        )
        right = found[0] if right is None else ops.add(right, found[0])
        both = found[1] if both is None else ops.add(both, found[1])
    values = ratios(ops, right, both, shown, 2 * rule.min_cell, bits=PAIR_BITS) if shown else []
    values = values or [None] * len(support)
    return {
        "support": [None if n is None else [int(n[0]), int(n[1])] for n in support],
        "c_index_milli": values[0],
        "c_index_strata_milli": values[1:],
    }


def concordance(ops: Any, scores: Any, times: Any, event: Any, member: Any) -> tuple[Any, Any]:
    """(twice the pairs that are ranked right, ties once; twice the comparable pairs), per cell.

    scores, times [m], event bits [m], member bits [m, C]. A pair (i, j) of one cell is comparable
    where e_i and t_i < t_j, and right where z_j < z_i.
    """
    rows = event.shape[0]
    first = ops.broadcast(ops.reshape(event, (-1, 1)), (rows, rows))
    comparable = ops.mul(first, _less(ops, times))
    under = ops.transpose(_less(ops, scores))  # [i, j]: z_j < z_i
    # 2 where right, 1 of equal scores, 0 where wrong
    ranked = ops.add_public(ops.sub(under, ops.transpose(under)), 1)
    across = ops.transpose(member)
    return tuple(
        ops.dot(across, ops.transpose(ops.matmul(pairs, member)))
        for pairs in (ops.mul(comparable, ranked), ops.scale(comparable, 2))
    )


def _less(ops: Any, values: Any) -> Any:
    """Bits [m, m]: values[i] < values[j]."""
    rows = values.shape[0]
    step, across = max(1, PAIRS_MAX // rows), ops.reshape(values, (1, -1))
    parts = []
    for at in range(0, rows, step):
        mine = ops.reshape(ops.index(values, np.s_[at : at + step]), (-1, 1))
        shape = (mine.shape[0], rows)
        parts.append(ops.less_than(ops.broadcast(mine, shape), ops.broadcast(across, shape)))
    return ops.concat(parts)


def train(features: Real, labels: Any, outputs: int, c: float) -> Real:
    """min Σ_i e_i (ln S_i − z_i) + ‖w‖² / (2c), rows of equal time in each other's R; [1, d + 1].

    The intercept has no part in the likelihood: 0.
    """
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    times, event = np.asarray(labels, float).T
    order = np.argsort(times, kind="stable")
    x, times, event = features[order], times[order], event[order]
    first = np.searchsorted(times, times)  # where the rows of this time begin
    last = np.searchsorted(times, times, side="right") - 1

    def objective(w: Real) -> tuple[float, Real]:
        z = x @ w
        top = z.max(initial=0.0)
        hazard = np.exp(z - top)
        left = np.cumsum(hazard[::-1])[::-1][first]
        loss = float(np.sum(event * (np.log(left) + top - z)))
        residual = event - hazard * np.cumsum(event / left)[last]
        return loss + float(w @ w) / (2 * c), w / c - x.T @ residual

    start, options = np.zeros(x.shape[1]), {"maxiter": MAX_ITERATIONS}
    done = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return np.append(done.x, 0.0)[None, :]


def answer(scores: Real) -> Real:
    """The hazard against that of a row of mean features, [k, 1], e^50 at most."""
    return np.asarray(np.exp(np.minimum(scores, 50)))


CLASS = ModelClass(
    name="cox",
    title="Cox proportional hazards",
    label="survival",
    metrics=("c_index",),
    scorings=("taylor", "leave_one_out"),
    extras={},
    targets=lambda params: 2,
    read_targets=read_targets,
    residuals=residuals,
    spare_bits=1,
    intercept=False,
    descends=False,
    gains=gains,
    evidence=opened,
    train=train,
    answer=answer,
    scale=Scale(BANDS, GRID, np.log),
    opens=(
        Opening(
            "support",
            "[rows, events] of the evidence half: overall, then per stratum; null where there are "
            "fewer than min_cell with the event or without (of several validators: without any "
            "one's rows), and for the smallest other stratum where those would follow by "
            "subtraction. The nodes see which strata are hidden for which reason, and no count of "
            "them",
        ),
        Opening(
            "c_index_milli",
            "share of the comparable pairs that the model ranks rightly, in thousandths; of more "
            "than 500 rows, of pairs within equal groups of 500 at most; null also where there are "
            "fewer than min_cell such pairs",
        ),
        Opening("c_index_strata_milli", "the same of pairs within each stratum"),
    ),
)
