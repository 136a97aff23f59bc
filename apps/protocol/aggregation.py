"""Aggregation of updates by contribution, in real numbers (paper eq. 1 and 6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MIN_CONTRIBUTORS = 3


class VoidRound(ValueError):
    """Fewer than three positive contributions: the aggregate would be some site's own update."""


def aggregate(updates: npt.ArrayLike, phi: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """w* = Σ_k (φ_k / S)·w_k, S = Σ_j φ_j.

    updates [K, d+1] already clipped, phi [K] ≥ 0 (any common scale).
    Raises: VoidRound when fewer than three φ are positive.
    """
    weights = np.asarray(updates, dtype=np.float64)
    shares = np.asarray(phi, dtype=np.float64)
    if np.count_nonzero(shares > 0) < MIN_CONTRIBUTORS:
        raise VoidRound("fewer than three contributions are positive")
    combined: npt.NDArray[np.float64] = shares @ weights / shares.sum()
    return combined
