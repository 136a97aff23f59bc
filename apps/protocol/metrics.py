"""Metrics of a binary classifier, in real numbers."""

from __future__ import annotations

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
