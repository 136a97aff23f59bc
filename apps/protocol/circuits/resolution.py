"""How finely a paid query's answer leaves the computation: label, band, rounded or logit.

    label    binary: 1 where z ≥ 0; classes: the place of the highest score, the first of equals
    band     how many of the scale's inner edges the answer has reached
    rounded  the place of the scale's nearest value, the upper one of two as near
    logit    the scores themselves

All but the logit are steps of the answer. An answer has reached a value exactly when its score has
reached another, so whoever may know the step learns it by comparisons of the exact score, and
nothing finer is ever opened, sealed or computed. Every engine gives the same step.

Classes' probabilities are the exception: p_c = e^(z_c) / Σ e^(z_j) is computed on shares within
2e-5, so that a probability so near an edge may fall on either side of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Real = npt.NDArray[np.float64]

# Coarse to fine.
LABEL, BAND, ROUNDED, LOGIT = RESOLUTIONS = ("label", "band", "rounded", "logit")

EDGE_F = 20


@dataclass(frozen=True)
class Scale:
    """What answers of a class are cut to.

    bands: edges of the bands, from the least answer to the largest; an answer beyond these two is
        in the outermost band.
    grid: the values that an answer is rounded to, ascending.
    score: an answer -> the score at which it is reached; increasing.
    """

    bands: tuple[float, ...]
    grid: tuple[float, ...]
    score: Callable[[Real], Real]

    def edges(self, resolution: str) -> Real:
        """The scores at which the next step begins; for a label the middle of the scale."""
        grid = np.array(self.grid)
        inner = {
            LABEL: np.array([grid[0] + grid[-1]]) / 2,
            BAND: np.array(self.bands[1:-1]),
            ROUNDED: (grid[:-1] + grid[1:]) / 2,
        }
        return self.score(inner[resolution])

    def read(self, resolution: str, steps: npt.NDArray[np.int64]) -> Real:
        """Steps [k, o] as answers: [k, o], or of bands [k, 2·o], each from … to.

        Raises: IndexError for a step that does not exist.
        """
        if (steps < 0).any():
            raise IndexError("a step is negative")
        if resolution == LABEL:
            return steps.astype(float)
        if resolution == ROUNDED:
            return np.array(self.grid)[steps]
        ends = np.array([self.bands[:-1], self.bands[1:]]).T
        return ends[steps].reshape(len(steps), -1)


def hundredths(low: float, high: float) -> tuple[float, ...]:
    return tuple(low + (high - low) * k / 100 for k in range(101))


def fifths(low: float, high: float) -> tuple[float, ...]:
    return tuple(low + (high - low) * k / 5 for k in range(6))


def reached(ops: Any, values: Any, edges: Real) -> Any:
    """How many of the edges each value has reached, [n]: one comparison in depth, E wide."""
    # so few bits that a logarithm's last one, which machines may disagree on, plays no part
    at = np.round(edges * 2.0**EDGE_F).astype(np.int64)[:, None] << (values.f - EDGE_F)
    wide = ops.broadcast(ops.reshape(values, (1, -1)), (len(edges), int(np.prod(values.shape))))
    below = ops.ltz(ops.add_public(wide, np.broadcast_to(-at, wide.shape)))
    return ops.add_public(ops.neg(ops.sum(below, 0)), len(edges))


def highest(ops: Any, scores: Any) -> Any:
    """[k, C] -> [k]: the place of the highest score, the first of equals; two comparisons deep."""
    rows, classes = scores.shape
    columns = ops.transpose(scores)
    left, right = np.triu_indices(classes, 1)
    later = ops.less_than(ops.index(columns, left), ops.index(columns, right))
    # won[c] = pairs in which c is not beaten: as the later one when higher, as the earlier if not
    table = np.zeros((len(left), classes), np.int64)
    table[np.arange(len(left)), right] = 1
    table[np.arange(len(left)), left] = -1
    wins = ops.combine(later, table, 0)
    others = np.arange(classes)[::-1].reshape(-1, 1)
    lacking = ops.add_public(wins, np.broadcast_to(others - (classes - 1), (classes, rows)))
    beaten = ops.ltz(lacking)
    top = ops.add_public(ops.neg(beaten), 1)
    return ops.reshape(ops.combine(top, np.arange(classes).reshape(-1, 1), 0), (-1,))
