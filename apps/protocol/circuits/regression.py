"""What classes with a numeric target share: cells by rows alone, and R² in thousandths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

NULL_WHERE = "the same per stratum; null where support is"
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
        "least; null where that spread is less than can be measured, which the nodes see",
    ),
    Opening("r2_strata_milli", NULL_WHERE),
    Opening(
        "r2_spread_milli",
        "root mean square, in thousandths, of what each row adds to or takes from 1 − R²: "
        "(e² − (1 − R²)·c²) / mean c², e its error, c its target less the mean; null where R² is "
        "null or −1000",
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


@dataclass(frozen=True, kw_only=True)
class Span:
    """limits: of a target. apart: no two predictions and targets are further apart. Every sum of
    squares is under 2^(bits − 20), and one under 2^(low_bits − 20) is less than can
    be measured."""

    limits: tuple[int, int]
    apart: int
    bits: int
    low_bits: int


def evidence_by(read: Callable[[Any, Any], Any], span: Span) -> Callable[..., dict[str, Any]]:
    """R² of the predictions that `read(ops, scores)` makes, at f = 16."""

    def evidence(ops: Any, scores: Any, targets: Any, strata: Any, rule: Rule) -> dict[str, Any]:
        found, truth = (ops.reshape(x, (-1,)) for x in (read(ops, scores), targets))
        return r_squared(ops, found, truth, strata, rule, span)

    return evidence


def r_squared(
    ops: Any, found: Any, truth: Any, strata: Any, rule: Rule, span: Span, *, naive: Any = None
) -> dict[str, Any]:
    """Open support, R² = 1 − Σ(y − ŷ)² / Σ(y − ȳ)² and its rows' spread per cell; with a naive
    forecast skill as well, the same with Σ(y − n)² below, and mae_skill, of absolute errors.

    found, truth, naive [m] at f = 16, the last two within the limits.
    """
    member = members(ops, strata)
    counts = open_rows(ops, member, rule)
    cells = [cell for cell, count in enumerate(counts) if count is not None]
    names = ["r2"] if naive is None else ["r2", "skill", "mae_skill"]
    spread_of = [f"{name}_spread" for name in names[:2]]
    values: dict[str, list[int | None]] = {n: [None] * len(counts) for n in [*names, *spread_of]}
    if cells:
        many, sizes = len(cells), [int(counts[cell] or 0) for cell in cells]
        inside = ops.transpose(ops.index(member, np.s_[:, np.array(cells)]))

        def wide(rows: Any) -> Any:
            return ops.broadcast(ops.reshape(rows, (1, -1)), inside.shape)

        error = ops.mul(inside, wide(ops.sub(truth, found)))
        about = centred(ops, wide(truth), inside, sizes, span.limits)
        parts = [squared_sums(ops, error, span.apart)]
        if naive is None:
            wholes = [squared_sums(ops, about, span.apart)]
        else:
            by_naive = ops.mul(inside, wide(ops.sub(truth, naive)))
            absolute = _size(ops, ops.stack([error, by_naive]), span.apart)
            absolute = ops.lift(ops.sum(absolute, 2), SQUARES_F)
            about = ops.concat([about, by_naive])
            parts += [*parts, ops.index(absolute, 0)]
            wholes = [squared_sums(ops, about, span.apart), ops.index(absolute, 1)]
        below = (error.shape[1] - 1).bit_length()
        part, whole = (ops.halve(ops.concat(each), below) for each in (parts, wholes))
        none, share, saved = _saved(ops, part, whole, span)
        for place, value in enumerate(saved):
            values[names[place // many]][cells[place % many]] = None if none[place] else value
        varied = [
            place
            for place in range(many * len(spread_of))
            if not none[place] and saved[place] > LEAST_MILLI
        ]
        if varied:
            at = np.array(varied)
            root = ops.rsqrt(ops.index(whole, at), f=ROOT_F, bits=span.bits, low_bits=span.low_bits)
            added = added_by_rows(
                ops,
                ops.stack([ops.index(error, at % many), ops.index(about, at)]),
                root,
                ops.index(share, at),
                [sizes[place % many] for place in varied],
            )
            for place, value in zip(varied, added, strict=True):
                values[spread_of[place // many]][cells[place % many]] = value
    opened: dict[str, Any] = {"support": counts}
    for name, (every, *by_stratum) in values.items():
        opened |= {f"{name}_milli": every, f"{name}_strata_milli": by_stratum}
    return opened


def _size(ops: Any, a: Any, most: int) -> Any:
    """|a|, of numbers within ±most."""
    # twice a less a, or none less a negative one
    return ops.within(ops.sub(ops.scale(ops.relu(a), 2), a), 0, most << a.f)


def _saved(ops: Any, part: Any, whole: Any, span: Span) -> tuple[list[int], Any, list[int]]:
    """1 − part/whole of sums [n] at f = 20, over the next power of two ≥ m, so that the inverse of
    a large one keeps its bits: (where whole is less than can be measured, opened; part/whole, 2 at
    most; 1 less that, opened in thousandths, −1000 at least, and of no meaning where it isn't)."""
    none = ops.open(ops.ltz(ops.add_public(whole, -(1 << span.low_bits)))).tolist()
    # at most twice the whole, so that nothing overflows
    part = ops.sub(part, ops.relu(ops.sub(part, ops.scale(whole, 2))))
    inverse = ops.reciprocal(whole, f=SHARE_F, bits=span.bits, low_bits=span.low_bits)
    # 2 at most, and 1/whole is off by 2^−7 of itself
    share = ops.within(ops.mul(part, inverse, f=SHARE_F), -SHARE_BOUND, SHARE_BOUND)
    opened = ops.open_rounded(ops.scale(share, 1000)).tolist()
    return none, share, [1000 - int(each) for each in opened]


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
