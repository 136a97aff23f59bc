"""Metrics of a binary classifier, in real numbers, and which of its cells may be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """(#{positive above negative} + ½·#{ties}) / (P·N), over all pairs.

    Returns None when there is no positive or no negative row.
    """
    z = np.asarray(scores, dtype=np.float64)
    y = np.asarray(labels) == 1
    above: Any = z[y][:, None] - z[~y][None, :]
    if above.size == 0:
        return None
    return float((np.count_nonzero(above > 0) + 0.5 * np.count_nonzero(above == 0)) / above.size)


def accuracy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Share of rows where (z ≥ 0) equals the label; None for no rows."""
    z = np.asarray(logits, dtype=np.float64)
    if z.size == 0:
        return None
    return float(np.mean((z >= 0) == (np.asarray(labels) == 1)))


def cells_shown(support: Sequence[tuple[int, int]], min_cell: int) -> list[int]:
    """The cells of [(rows, positives)], all rows first and then the strata, that may be seen.

    A cell is large with min_cell positives and min_cell negatives. Small strata are hidden; unless
    they are large together, the smallest large stratum is hidden too, the first among equals: else
    the hidden rows would follow from the total by subtraction.
    """

    def large(rows: int, positives: int) -> bool:
        return min(positives, rows - positives) >= min_cell

    shown = [cell for cell, count in enumerate(support) if large(*count)]
    strata = [cell for cell in shown if cell]
    hidden = [count for cell, count in enumerate(support) if cell and cell not in shown]
    together = large(sum(rows for rows, _ in hidden), sum(up for _, up in hidden))
    if hidden and strata and not together:
        shown.remove(min(strata, key=lambda cell: support[cell][0]))
    return shown
