"""Metrics in real numbers, how sure they are, and which cells may be seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Z95 = 1.959964  # of a 95 % interval


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


def recall(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Share of the positives with z ≥ 0; None where there is none."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels) == 1
    return float(np.mean(z[y] >= 0)) if y.any() else None


def precision(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Share of positives among the rows with z ≥ 0; None where there is none."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels) == 1
    return float(np.mean(y[z >= 0])) if (z >= 0).any() else None


def log_loss(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Mean of ln(1 + e^z) − y·z; None for no rows."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return float(np.mean(np.logaddexp(0, z) - y * z)) if z.size else None


def calibration(
    logits: npt.ArrayLike, labels: npt.ArrayLike, edges: Sequence[float]
) -> list[tuple[int, int, float | None]]:
    """(rows, positives, mean probability) per bin of the probability; the bins end at `edges`."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels) == 1
    chance = 1 / (1 + np.exp(-z))
    place = np.searchsorted(edges, chance, side="right")
    bins = [(chance[place == at], y[place == at]) for at in range(len(edges) + 1)]
    return [(len(p), int(hit.sum()), float(p.mean()) if len(p) else None) for p, hit in bins]


def c_index(scores: npt.ArrayLike, times: npt.ArrayLike, events: npt.ArrayLike) -> float | None:
    """Of pairs of which one has the event before the other's time, the share where its score is the
    higher one, half of those with equal scores (Harrell); None where there is no such pair."""
    z, t, e = (np.asarray(each, dtype=np.float64) for each in (scores, times, events))
    pairs = (e == 1)[:, None] & (t[:, None] < t[None, :])
    apart = np.sign(z[:, None] - z[None, :])[pairs]
    return float(np.mean((apart + 1) / 2)) if apart.size else None


def r_squared(found: npt.ArrayLike, truth: npt.ArrayLike) -> float | None:
    """1 − Σe² / Σc², e = y − ŷ, c = y less its mean; None for a constant target."""
    errors, own = _squares(found, truth)
    return float(1 - errors.sum() / own.sum()) if own.any() else None


def r_squared_spread(found: npt.ArrayLike, truth: npt.ArrayLike) -> float | None:
    """Of 1 − R²: see `ratio_spread`; None for a constant target."""
    return ratio_spread(*_squares(found, truth))


def ratio_spread(errors: Any, own: Any) -> float | None:
    """√ mean of ((e² − ρ·c²) / V)² of e² and c² of each row, ρ = Σe²/Σc² and V the mean c²: the
    standard deviation of what a row has a part in of ρ (the infinitesimal jackknife's); None where
    every c is 0."""
    if not own.any():
        return None
    added = (errors - errors.sum() / own.sum() * own) / own.mean()
    return float(np.sqrt(np.mean(added**2)))


def skill(y: Any, found: Any, naive: Any) -> tuple[float, float]:
    """How much smaller a forecast's errors are than the naive one's: of squares, 1 − MSE/MSE_ref
    (Murphy 1988), and of sizes, 1 − MAE/MAE_ref. 0: as good as the naive one."""
    squared = np.sum((y - found) ** 2) / np.sum((y - naive) ** 2)
    return 1 - float(squared), 1 - float(np.sum(np.abs(y - found)) / np.sum(np.abs(y - naive)))


def log_loss_spread(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Standard deviation of the rows' ln(1 + e^z) − y·z; None for no rows."""
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return float(np.std(np.logaddexp(0, z) - y * z)) if z.size else None


def _squares(found: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Any, Any]:
    """(e², c²) of each row."""
    y = np.asarray(truth, dtype=np.float64)
    return (y - np.asarray(found, dtype=np.float64)) ** 2, (y - y.mean()) ** 2


def spread_interval(value: float, spread: float, rows: int) -> tuple[float, float]:
    """95 % interval of a mean > 0, or a ratio of means, of so many rows of which each adds with
    this standard deviation: about its logarithm, by Student's t of rows / 2 degrees of freedom,
    since spread itself is measured. Both are taken to have been rounded to thousandths.
    """
    value, half = max(value, 0.0005), 0.0005
    freedom = max(rows, 6) / 2
    error = (spread + half) / (value * math.sqrt(max(rows - 2, 1)))
    reach = min(_student(freedom) * error, 50.0)
    return value * math.exp(-reach), value * math.exp(reach)


def _student(freedom: float, z: float = Z95) -> float:
    """The 97.5 % point of Student's t, by two terms of Cornish and Fisher's expansion: 4 % too
    small for three degrees of freedom, under 1 % from six on."""
    first = (z**3 + z) / (4 * freedom)
    return z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def share_interval(share: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share that was seen in `count` rows."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = (
        math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) * z / (1 + z * z / count)
    )
    return max(0.0, middle - reach), min(1.0, middle + reach)


def auc_interval(auc: float, positives: int, negatives: int, z: float = Z95) -> tuple[float, float]:
    """Newcombe's (2006, method 5) interval of an AUC of so many positive and negative rows: the θ
    with |θ − A| = z·SE(θ), of Hanley and McNeil's SE² = θ(1 − θ)(1 + h(1 − θ)/(2 − θ) + hθ/(1 + θ))
    / PN with h = (P + N)/2 − 1. It ends within 0 and 1, and is no wider where A is near them.
    """
    half = (positives + negatives) / 2 - 1

    def beyond(theta: float) -> float:
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        return z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    def end(edge: float) -> float:
        inside, outside = auc + (edge - auc) * 1e-9, edge
        for _ in range(50):
            middle = (inside + outside) / 2
            if abs(middle - auc) < beyond(middle):
                inside = middle
            else:
                outside = middle
        return outside

    return end(0.0), end(1.0)


def called_positive(rows: int, positives: int, accuracy: float, recall: float) -> int:
    """How many rows are called positive, as it follows from these: TP + FP with TP = recall · P and
    FP = N − (accuracy · rows − TP)."""
    hits = round(recall * positives)
    return hits + rows - positives - round(accuracy * rows) + hits


def cells_shown(
    support: Sequence[tuple[int, int]],
    min_cell: int,
    own: Sequence[Sequence[tuple[int, int]]] = (),
) -> list[int]:
    """The cells of [(rows, positives)], all rows first and then the strata, that may be seen.

    A cell is large with min_cell positives and min_cell negatives; where there are several
    validators, own [V, C, 2], without the rows of any one of them too, or it has no others. Small
    strata are hidden; while they are not large together, the smallest large stratum is hidden too,
    the first among equals: else the hidden rows would follow from the total by subtraction.
    """
    every = np.array([support])
    others = every - np.array(own) if len(own) > 1 else every

    def large(cells: list[int]) -> bool:
        rows, positives = np.concatenate([every, others])[:, cells].sum(axis=1).T
        enough = np.minimum(positives, rows - positives) >= min_cell
        return bool(enough[0] and np.all(enough[1:] | (rows[1:] == 0)))

    shown = [cell for cell in range(len(support)) if large([cell])]
    hidden = [cell for cell in range(1, len(support)) if cell not in shown]
    while hidden and (strata := [cell for cell in shown if cell]) and not large(hidden):
        hidden.append(min(strata, key=lambda cell: support[cell][0]))
        shown.remove(hidden[-1])
    return shown
