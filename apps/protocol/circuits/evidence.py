"""Secret scores and labels -> opened AUC and accuracy, in thousandths.

AUC = (#{(i, j): i positive, j negative, z_i > z_j} + ½ #ties) / (P·N), by all pairs, exactly.
The counts P and N are opened first; the numerator is divided by them and rounded in secret.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Comparisons at once: bounds memory at some 10 MB per node.
PAIRS_MAX = 1 << 15
QUOTIENT_F = 36


def evidence(ops: Any, logits: Any, flags: Any, min_cell: int) -> dict[str, Any]:
    """Open support, AUC and accuracy.

    logits [m]; flags [m, 1 + R] bits: label, then strata. A stratum with fewer than min_cell
    positives or negatives opens no AUC, with fewer than min_cell rows no accuracy.
    """
    rows = flags.shape[0]
    labels = ops.index(flags, np.s_[:, 0:1])
    ones = ops.public(np.ones((rows, 1), np.int64), 0)
    member = ops.concat([ones, ops.index(flags, np.s_[:, 1:])], axis=1)
    positive = ops.mul(ops.broadcast(labels, member.shape), member)
    negative = ops.sub(member, positive)

    counts = ops.open(ops.stack([ops.sum(member, 0), ops.sum(positive, 0)], axis=1)).tolist()
    support = [[int(total), int(positives)] for total, positives in counts]

    doubled = doubled_pairs(ops, logits, positive, negative)
    right = ops.sum(ops.mul(member, ops.broadcast(hits(ops, logits, labels), member.shape)), 0)
    pairs = [2 * up * (total - up) for total, up in support]
    auc = quotients(ops, doubled, pairs, [min(up, total - up) >= min_cell for total, up in support])
    accuracy = quotients(
        ops, right, [total for total, _ in support], [total >= min_cell for total, _ in support]
    )
    return {
        "support": support,
        "auc_milli": auc[0],
        "auc_strata_milli": auc[1:],
        "accuracy_milli": accuracy[0],
        "accuracy_strata_milli": accuracy[1:],
    }


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


def quotients(
    ops: Any, numerator: Any, denominators: list[int], wanted: list[bool]
) -> list[int | None]:
    """Open round(1000·a/b) for the wanted cells only; None for the others. 0 ≤ a ≤ b public."""
    cells = [cell for cell, use in enumerate(wanted) if use]
    answer: list[int | None] = [None] * len(wanted)
    if not cells:
        return answer
    factor = [(2 * 1000 * 2**QUOTIENT_F // denominators[cell] + 1) // 2 for cell in cells]
    scaled = ops.scale(ops.index(numerator, np.array(cells)), factor, f=QUOTIENT_F)
    for cell, value in zip(cells, ops.open_rounded(scaled).tolist(), strict=True):
        answer[cell] = int(value)
    return answer
