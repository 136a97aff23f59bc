"""What classes with a numeric target share: cells by rows alone, and R² in thousandths."""

from __future__ import annotations

from typing import Any

import numpy as np

from apps.protocol.circuits.cells import MEAN_F, Rule, cells_shown, open_cells, quotients
from apps.protocol.circuits.declare import Opening

SQUARES_F = 20
# Squares of numbers at f = 16 are added up to 2^this at once: 2^61 in the word.
SUM_BITS = 29
SHARE_F = 30
SHARE_BOUND = 8 << SHARE_F
# 1/n is public and has so many bits
PART_F = 24

OPENS = (
    Opening(
        "support",
        "[rows] of the evidence half: overall, then per stratum; null where there are fewer than "
        "twice min_cell (of several validators: without any one's rows), and for the smallest "
        "other stratum where those would follow by subtraction. The nodes see which strata are "
        "hidden for which reason, and no count of them",
    ),
    Opening(
        "r2_milli",
        "1 less the squared errors' share of the target's own spread, in thousandths, −1000 at "
        "least; 0 where the target is constant, of which the nodes see that it is",
    ),
    Opening("r2_strata_milli", "the same per stratum; null where support is"),
)


def members(ops: Any, strata: Any) -> Any:
    """[m, 1 + R] bits: all rows, then the strata."""
    ones = ops.public(np.ones((strata.shape[0], 1), np.int64), 0)
    return ops.concat([ones, strata], axis=1)


def open_rows(ops: Any, member: Any, rule: Rule) -> list[int | None]:
    """Open the rows of the cells that have 2·min_cell of them and give no smaller one away."""
    totals = ops.sum(member, 0)
    shown = cells_shown(ops, totals, rule.told(ops, member), 2 * rule.min_cell)
    counts = open_cells(ops, ops.reshape(totals, (-1, 1)), shown)
    return [None if count is None else int(count[0]) for count in counts]


def squared_sums(ops: Any, values: Any, most: int) -> Any:
    """Σ_i v_i² at f = 20 of values [C, m] at f = 16 within ±most, of as many at once as the word
    holds; [C]."""
    cells, rows = values.shape
    step = (1 << SUM_BITS) // (most * most)
    blocks = max(1, -(-rows // step))
    none = ops.public(np.zeros((cells, -rows % blocks), np.int64), values.f)
    parts = ops.reshape(ops.concat([values, none], axis=1), (cells, blocks, -1))
    return ops.sum(ops.dot(parts, parts, f=SQUARES_F), 1)


def r_squared(
    ops: Any,
    found: Any,
    truth: Any,
    strata: Any,
    rule: Rule,
    *,
    limits: tuple[int, int],
    apart: int,
    bits: int,
    low_bits: int,
) -> dict[str, Any]:
    """Open support and R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² per cell.

    found, truth [m] at f = 16, truth within the limits, no two of all these further apart than
    `apart`; every sum of squares under 2^(bits − 20), and one under 2^(low_bits − 20) is a constant
    target.
    """
    member = members(ops, strata)
    counts = open_rows(ops, member, rule)
    cells = [cell for cell, count in enumerate(counts) if count is not None]
    values: list[int | None] = [None] * len(counts)
    if cells:
        inside = ops.transpose(ops.index(member, np.s_[:, np.array(cells)]))
        wide = [ops.broadcast(ops.reshape(x, (1, -1)), inside.shape) for x in (found, truth)]
        error, own = ops.mul(inside, ops.sub(wide[1], wide[0])), ops.mul(inside, wide[1])
        squares = squared_sums(ops, error, apart)
        parts = np.array([round(2**PART_F / (counts[cell] or 1)) for cell in cells], np.int64)
        mean = ops.trunc(ops.scale(ops.sum(own, 1), parts, f=PART_F), 16)
        # between the least and the largest; 1/n is off by 2^−13 of itself
        least, most = (end << 16 for end in limits)
        mean = ops.within(mean, least + (least >> 12) - 1, most + (most >> 12) + 1)
        centred = ops.mul(
            inside, ops.sub(wide[1], ops.broadcast(ops.reshape(mean, (-1, 1)), inside.shape))
        )
        spread = squared_sums(ops, centred, apart)
        flat = ops.ltz(ops.add_public(spread, -(1 << low_bits)))
        seen = ops.open(flat).tolist()
        # at most twice the spread, so that nothing overflows: R² ≥ −1
        over = ops.sub(squares, ops.scale(spread, 2))
        squares = ops.sub(squares, ops.relu(over))
        inverse = ops.reciprocal(spread, f=SHARE_F, bits=bits, low_bits=low_bits)
        # 2 at most, and 1/spread is off by one unit: that is 4 of the largest squares
        share = ops.within(ops.mul(squares, inverse, f=SHARE_F), -SHARE_BOUND, SHARE_BOUND)
        opened = ops.open_rounded(ops.scale(share, 1000)).tolist()
        for cell, constant, part in zip(cells, seen, opened, strict=True):
            values[cell] = 0 if constant else 1000 - int(part)
    return {"support": counts, "r2_milli": values[0], "r2_strata_milli": values[1:]}


__all__ = ["MEAN_F", "OPENS", "members", "open_rows", "quotients", "r_squared"]
