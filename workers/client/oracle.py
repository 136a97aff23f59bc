"""What the nodes computed on shares, computed in the clear from what the sites themselves hold.

    w* = Σ_k (φ_k / Σφ) · clip(w_k),   p = σ(w*·x + b)        (paper eq. 1 and 6)

For tests and for the demonstration's report: it takes every custodian's own update, which only
those sites have, and the φ that were opened. No node's store is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.aggregation import aggregate
from apps.protocol.contribution import clip_to_median_norm, flagged, sigmoid
from apps.protocol.encoding import encode
from apps.protocol.metrics import auc
from workers.client import training
from workers.client.home import Home
from workers.client.questions import Row, table_of

__all__ = ["auc", "flagged", "model_of", "own_update", "predictions"]


def own_update(home: Home, round_id: str) -> np.ndarray:
    """The update [d + 1] that this site shared in a round, by its journal. Raises: KeyError."""
    left = home.journal.last("leaving", round=round_id, stage="round")
    if left is None or "own" not in left:
        raise KeyError(f"{home.path} shared no update in round {round_id}")
    return np.fromfile(home.path / "uploads" / left["own"], dtype="<i8") / 2.0 ** left["f"]


def model_of(updates: Sequence[np.ndarray], phi: Sequence[float]) -> np.ndarray:
    """w* [d + 1] of updates and φ in the same order."""
    return aggregate(clip_to_median_norm(np.array(updates)), np.array(phi, dtype=float))


def predictions(
    model: np.ndarray,
    rows: Sequence[Row],
    features: Sequence[Mapping[str, Any]],
    normalisation: Mapping[str, Any],
) -> np.ndarray:
    """Probabilities [m] for rows as a buyer gives them."""
    encoded = encode(table_of(rows, features), features)
    mean, std = training.constants(normalisation)
    return sigmoid(training.standardise(encoded, mean, std) @ model[:-1] + model[-1])
