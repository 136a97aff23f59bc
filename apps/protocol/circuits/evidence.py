"""Secret scores and labels -> opened AUC and accuracy, in thousandths.

AUC = (#{(i, j): i positive, j negative, z_i > z_j} + ½ #ties) / (P·N), by all pairs, exactly.
Which cells are large enough to be seen is decided first, in secret; only their counts P and N are
opened, and the numerator is divided by them and rounded in secret. `metrics.cells_shown` is the
same decision in the clear.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Comparisons at once: bounds memory at some 10 MB per node.
PAIRS_MAX = 1 << 15
QUOTIENT_F = 36


def evidence(ops: Any, logits: Any, flags: Any, min_cell: int) -> dict[str, Any]:
    """Open support, AUC and accuracy.

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
    shown = cells_shown(ops, totals, positives, min_cell)
    counts = open_cells(ops, ops.stack([totals, positives], axis=1), shown)
    support = [None if count is None else [int(count[0]), int(count[1])] for count in counts]

    doubled = doubled_pairs(ops, logits, positive, negative)
    right = ops.sum(ops.mul(member, ops.broadcast(hits(ops, logits, labels), member.shape)), 0)
    pairs = [None if count is None else 2 * count[1] * (count[0] - count[1]) for count in support]
    auc = quotients(ops, doubled, pairs)
    accuracy = quotients(ops, right, [None if count is None else count[0] for count in support])
    return {
        "support": support,
        "auc_milli": auc[0],
        "auc_strata_milli": auc[1:],
        "accuracy_milli": accuracy[0],
        "accuracy_strata_milli": accuracy[1:],
    }


def cells_shown(ops: Any, totals: Any, positives: Any, min_cell: int) -> list[int]:
    """The cells whose counts may be seen; totals and positives [1 + R]: all rows, then strata.

    A cell is large when it has min_cell positives and as many negatives. Strata that are not are
    hidden; where they are not large together either, their counts would follow from the total by
    subtraction, so the smallest large stratum is hidden with them. Opened on the way: which cells
    are large, whether the hidden ones are together, and which large stratum is the smallest.
    """
    both = ops.stack([positives, ops.sub(totals, positives)])
    large = _large(ops, both, min_cell)
    shown = [cell for cell, yes in enumerate(large) if yes]
    strata = [cell for cell in shown if cell]
    hidden = [cell for cell, yes in enumerate(large) if cell and not yes]
    if not hidden or not strata:
        return shown
    if len(hidden) > 1:
        together = ops.sum(ops.index(both, np.s_[:, hidden]), 1)
        if _large(ops, ops.reshape(together, (2, 1)), min_cell)[0]:
            return shown
    smallest = strata[_smallest(ops, ops.index(totals, np.array(strata)))]
    return [cell for cell in shown if cell != smallest]


def _large(ops: Any, both: Any, min_cell: int) -> list[bool]:
    """Open for each column of both [2, C] whether its two counts are at least min_cell."""
    small = ops.ltz(ops.add_public(both, -min_cell))
    enough = ops.add_public(ops.neg(small), 1)
    large = ops.open(ops.mul(ops.index(enough, 0), ops.index(enough, 1)))
    return [bool(value) for value in large.tolist()]


def _smallest(ops: Any, counts: Any) -> int:
    """Open the place of the smallest of counts [K], the first among equals, and no count."""
    size = counts.shape[0]
    left, right = np.triu_indices(size, 1)
    if not len(left):
        return 0
    # the later of a pair goes first only when it is smaller
    later = ops.less_than(ops.index(counts, right), ops.index(counts, left))
    table = np.zeros((len(left), size), np.int64)
    table[np.arange(len(left)), left], table[np.arange(len(left)), right] = 1, -1
    # how many go before each; `right` has its left neighbours before it unless it is smaller
    before = ops.add_public(ops.combine(later, table, 0), np.arange(size))
    return int(np.flatnonzero(ops.open(ops.ltz(ops.add_public(before, -1))))[0])


def open_cells(ops: Any, counts: Any, shown: list[int]) -> list[Any]:
    """Open these rows of counts [C, n]; None for the others."""
    answer: list[Any] = [None] * counts.shape[0]
    if shown:
        opened = ops.open(ops.index(counts, np.array(shown))).tolist()
        for cell, count in zip(shown, opened, strict=True):
            answer[cell] = count
    return answer


def hits(ops: Any, logits: Any, labels: Any) -> Any:
    """[m, 1] bits: 1 where (z ≥ 0) equals the label."""
    below = ops.reshape(ops.ltz(logits), labels.shape)
    # label xor (z < 0)
    return ops.sub(ops.add(labels, below), ops.scale(ops.mul(labels, below), 2))


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


def quotients(ops: Any, numerator: Any, denominators: list[int | None]) -> list[int | None]:
    """Open round(1000·a/b), 0 ≤ a ≤ b, b public; None where b is."""
    cells = [cell for cell, b in enumerate(denominators) if b is not None]
    answer: list[int | None] = [None] * len(denominators)
    if not cells:
        return answer
    factor = [(2 * 1000 * 2**QUOTIENT_F // denominators[cell] + 1) // 2 for cell in cells]
    scaled = ops.scale(ops.index(numerator, np.array(cells)), factor, f=QUOTIENT_F)
    for cell, value in zip(cells, ops.open_rounded(scaled).tolist(), strict=True):
        answer[cell] = int(value)
    return answer
