"""Which cells of a secret table may be seen, and openings of their means and ratios.

A cell is all rows or one stratum (or bin). Which cells are large enough is decided in secret; only
what is divided by the counts of a large cell, rounded to thousandths, is opened. Of several
validators each knows its own rows, so a cell must also be large without any one's of them, or hold
no others: a validator whose region is its own learns nothing of anybody there.
`metrics.cells_shown` is the same decision in the clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

QUOTIENT_F = 36
MEAN_F = 22
COUNT_BITS = 13
QUOTIENT_BOUND = (1 << 62) - 1


@dataclass(frozen=True)
class Rule:
    """How many rows of each kind a cell needs, and whose rows are looked at: so many of the first
    validator, then so many of the next."""

    min_cell: int
    rows: Sequence[int]

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """[m, G] = 1 where a row counts: among all, then, of several validators, among the others
        of each."""
        owner = np.repeat(np.arange(len(self.rows)), self.rows)
        others = owner[:, None] != np.arange(len(self.rows))
        every = np.ones((len(owner), 1), np.int64)
        return np.concatenate([every, others], axis=1) if len(self.rows) > 1 else every

    def told(self, ops: Any, *kinds: Any) -> Any:
        """[G, K, C] of K kinds of flags [m, C]: how many of each kind each group has."""
        counts = ops.combine(ops.concat(kinds, axis=1), self.groups, 0)
        return ops.reshape(counts, (-1, len(kinds), kinds[0].shape[1]))


def cells_shown(ops: Any, totals: Any, kinds: Any, min_cell: int) -> list[int]:
    """The cells whose counts may be seen; totals [1 + R], kinds [G, K, 1 + R] (`Rule.told`): all
    rows, then strata.

    A cell is large when each of its kinds has at least min_cell rows, and of each validator's
    others as many, or none of any kind. Strata that are not are hidden; while they are not large
    together either, their counts would follow from the total by subtraction, so the smallest large
    stratum is hidden with them (and another, where that one is a single validator's own). Opened
    on the way: which cells are large, whether the hidden ones are together, and which large stratum
    is the smallest.
    """
    large = _large(ops, kinds, min_cell)
    shown = [cell for cell, yes in enumerate(large) if yes]
    strata = [cell for cell in shown if cell]
    hidden = [cell for cell, yes in enumerate(large) if cell and not yes]

    def together() -> bool:
        counts = ops.sum(ops.index(kinds, np.s_[:, :, hidden]), 2)
        return _large(ops, ops.reshape(counts, (*kinds.shape[:2], 1)), min_cell)[0]

    safe = not hidden or (len(hidden) > 1 and together())
    while strata and not safe:
        smallest = strata.pop(_smallest(ops, ops.index(totals, np.array(strata))))
        hidden.append(smallest)
        # of one validator's rows a large cell and more are large
        safe = kinds.shape[0] == 1 or together()
    return [cell for cell in shown if cell not in hidden]


def _large(ops: Any, kinds: Any, min_cell: int) -> list[bool]:
    """Open for each cell of kinds [G, K, C] whether in each group all kinds have min_cell rows, or,
    but for the first group, which is of all rows, none has any."""
    groups, count, cells = kinds.shape
    some = ops.index(ops.sum(kinds, 1), np.s_[1:])
    flat = ops.reshape(kinds, (-1, cells))
    tested = ops.ltz(ops.concat([ops.add_public(flat, -min_cell), ops.add_public(some, -1)]))
    small = ops.reshape(ops.index(tested, np.s_[: groups * count]), kinds.shape)
    none = ops.index(tested, np.s_[groups * count :])
    wide = ops.add_public(ops.neg(small), 1)
    enough = _all(ops, ops.stack([ops.index(wide, np.s_[:, kind]) for kind in range(count)]))
    # of what has no rows no kind has enough: the sum is a bit
    enough = ops.concat([ops.index(enough, np.s_[:1]), ops.add(ops.index(enough, np.s_[1:]), none)])
    return [bool(value) for value in ops.open(_all(ops, enough)).tolist()]


def _all(ops: Any, bits: Any) -> Any:
    """The product of bits [n, …] over the first axis, two by two."""
    while (count := bits.shape[0]) > 1:
        half = count // 2
        both = ops.mul(ops.index(bits, np.s_[:half]), ops.index(bits, np.s_[half : 2 * half]))
        bits = ops.concat([both, ops.index(bits, np.s_[2 * half :])]) if count % 2 else both
    return ops.index(bits, 0)


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


def open_cells(ops: Any, counts: Any, shown: Sequence[int]) -> list[Any]:
    """Open these rows of counts [C, n]; None for the others."""
    answer: list[Any] = [None] * counts.shape[0]
    if shown:
        opened = ops.open(ops.index(counts, np.array(shown))).tolist()
        for cell, count in zip(shown, opened, strict=True):
            answer[cell] = count
    return answer


def quotients(
    ops: Any, numerator: Any, denominators: Sequence[int | None], *, f: int = QUOTIENT_F
) -> list[int | None]:
    """Open round(1000·a/b), b public; None where b is. |a/b| · 1000 · 2^(a.f + f) < 2^62."""
    cells = [cell for cell, b in enumerate(denominators) if b is not None]
    answer: list[int | None] = [None] * len(denominators)
    if not cells:
        return answer
    factor = [(2 * 1000 * 2**f // (denominators[cell] or 1) + 1) // 2 for cell in cells]
    scaled = ops.scale(ops.index(numerator, np.array(cells)), factor, f=f)
    # a mean of b numbers is no larger than they are
    scaled = ops.within(scaled, -QUOTIENT_BOUND, QUOTIENT_BOUND)
    for cell, value in zip(cells, ops.open_rounded(scaled).tolist(), strict=True):
        answer[cell] = int(value)
    return answer


def ratios(
    ops: Any,
    part: Any,
    whole: Any,
    cells: Sequence[int],
    min_cell: int,
    *,
    told: Any = None,
    bits: int = COUNT_BITS,
) -> list[int | None]:
    """Open round(1000·a/b), 0 ≤ a ≤ b < 2^bits both secret counts, in cells where b ≥ min_cell; or
    where told [G, 1, C] is large, if there is such: the b of all, and of each validator's others.

    Opened on the way: which these are.
    """
    answer: list[int | None] = [None] * part.shape[0]
    if not cells:
        return answer
    kinds = ops.reshape(whole, (1, 1, -1)) if told is None else told
    large = _large(ops, ops.index(kinds, np.s_[:, :, np.array(cells)]), min_cell)
    cells = [cell for cell, yes in zip(cells, large, strict=True) if yes]
    if not cells:
        return answer
    places = np.array(cells)
    inverse = ops.reciprocal(ops.index(whole, places), f=QUOTIENT_F, bits=bits)
    share = ops.scale(ops.mul(ops.index(part, places), inverse), 1000)
    # a ≤ b, and 1/b is off by 2^−12 of itself at most
    share = ops.within(share, 0, 1001 << QUOTIENT_F)
    for cell, value in zip(cells, ops.open_rounded(share).tolist(), strict=True):
        answer[cell] = int(value)
    return answer
