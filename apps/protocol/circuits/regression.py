"""What classes with a numeric target share: cells by rows alone, and R² in thousandths."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, sqrt
from typing import Any

import numpy as np

from apps.protocol.circuits.cells import Rule, cells_shown, open_cells
from apps.protocol.circuits.declare import Opening
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.spread import SQUARES_F, centred, open_deviations

# Squares of numbers at f = 16 are added up to 2^this at once: 2^61 in the word.
SUM_BITS = 29
SHARE_F = 28
SHARE_BOUND = 4 << SHARE_F
ROOT_F = 24
LEAST_MILLI = -1000

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
    Opening(
        "r2_spread_milli",
        "root mean square, in thousandths, of what each row adds to or takes from 1 − R²: "
        "(e² − (1 − R²)·c²) / mean c², e its error, c its target less the mean; null where the "
        "target is constant or R² −1000",
    ),
    Opening("r2_spread_strata_milli", "the same per stratum"),
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
    spread_milli = list(values)
    if cells:
        sizes = [int(counts[cell] or 0) for cell in cells]
        inside = ops.transpose(ops.index(member, np.s_[:, np.array(cells)]))
        wide = [ops.broadcast(ops.reshape(x, (1, -1)), inside.shape) for x in (found, truth)]
        error = ops.mul(inside, ops.sub(wide[1], wide[0]))
        about = centred(ops, wide[1], inside, sizes, limits)
        squares, spread = squared_sums(ops, error, apart), squared_sums(ops, about, apart)
        flat = ops.ltz(ops.add_public(spread, -(1 << low_bits)))
        seen = ops.open(flat).tolist()
        # at most twice the spread, so that nothing overflows: R² ≥ −1
        over = ops.sub(squares, ops.scale(spread, 2))
        squares = ops.sub(squares, ops.relu(over))
        # of sums over the next power of two ≥ m, so that the inverse of a large one keeps its bits
        below = (error.shape[1] - 1).bit_length()
        squares, spread = ops.halve(squares, below), ops.halve(spread, below)
        inverse = ops.reciprocal(spread, f=SHARE_F, bits=bits, low_bits=low_bits)
        # 2 at most, and 1/spread is off by 2^−7 of itself
        share = ops.within(ops.mul(squares, inverse, f=SHARE_F), -SHARE_BOUND, SHARE_BOUND)
        opened = ops.open_rounded(ops.scale(share, 1000)).tolist()
        for cell, constant, part in zip(cells, seen, opened, strict=True):
            values[cell] = 0 if constant else 1000 - int(part)
        varied = [
            place
            for place, cell in enumerate(cells)
            if not seen[place] and (values[cell] or 0) > LEAST_MILLI
        ]
        if varied:
            at = np.array(varied)
            root = ops.rsqrt(ops.index(spread, at), f=ROOT_F, bits=bits, low_bits=low_bits)
            added = added_by_rows(
                ops,
                ops.stack([ops.index(error, at), ops.index(about, at)]),
                root,
                ops.index(share, at),
                [sizes[place] for place in varied],
            )
            for place, value in zip(varied, added, strict=True):
                spread_milli[cells[place]] = value
    return {
        "support": counts,
        "r2_milli": values[0],
        "r2_strata_milli": values[1:],
        "r2_spread_milli": spread_milli[0],
        "r2_spread_strata_milli": spread_milli[1:],
    }


def added_by_rows(ops: Any, both: Any, root: Any, share: Any, counts: Sequence[int]) -> list[int]:
    """Open √(mean of ((e² − ρ·c²) / V)²) in thousandths, V = Σc²/n: the standard deviation of what
    each row has a part in of ρ = 1 − R² = Σe²/Σc², which has no mean.

    both [2, C, m]: e and c at f = 16; root [C]: √(2^b / Σc²), 2^b the next power of two ≥ m;
    share [C]: ρ < 2.
    """
    rows = both.shape[2]
    below = (rows - 1).bit_length()
    sizes = np.array([round(sqrt(n / 2**below) * 2**INPUT_F) for n in counts], np.int64)
    root = ops.reshape(ops.trunc(ops.scale(root, sizes, f=INPUT_F), ROOT_F), (1, -1, 1))
    both = ops.mul(both, ops.broadcast(root, both.shape), f=INPUT_F)
    # no square is more than its sum, which is n for c and ρ·n for e
    reach = (isqrt(2 * rows) + 2) << INPUT_F
    both = ops.within(both, -reach, reach)
    squared = ops.mul(both, both)
    errors, own = ops.index(squared, 0), ops.index(squared, 1)
    part = ops.broadcast(ops.reshape(ops.trunc(share, INPUT_F), (-1, 1)), own.shape)
    # Σ(e² − ρ·c²)² ≤ max · Σ ≤ 2n·4n
    return open_deviations(ops, ops.sub(errors, ops.mul(own, part)), counts, 9 * rows)
