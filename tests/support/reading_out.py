"""A buyer who wants the model itself: asks row after row, and makes a copy of what was answered.

What it knows of the weights is a normal distribution, N(m, S). It asks where it is least sure, on
an edge between two steps, and cuts the distribution down to the step that was answered (assumed
density filtering). One method for every resolution: a logit is a very narrow step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits import CIRCUITS, ModelClass
from apps.protocol.circuits.layout import FEATURE_LIMIT, INPUT_F, MODEL_F
from apps.protocol.circuits.resolution import LOGIT
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode

Real = npt.NDArray[np.float64]
Interval = tuple[float, float]
FAR = 1e6
# What is kept is a normal distribution, the truth is not: a little doubt keeps it from being sure
# of what is wrong.
DOUBT = 0.1
POINTS = np.linspace(0, 1, 401)


class BlackBox:
    """A model that answers one row at a time, by the circuit itself; `asked` counts the rows."""

    def __init__(self, model: ModelClass, weights: Real, resolution: str) -> None:
        self.circuit = CIRCUITS[model.infer_id(resolution)]
        self.weights = encode(weights, MODEL_F).astype(np.int64)
        self.edges = None if resolution == LOGIT else model.scale.edges(resolution)
        self.asked = 0

    def ask(self, row: Real) -> Interval:
        """Between which two scores the model's own lies."""
        self.asked += 1
        values = {"model": [self.weights], "row": [encode(row[None, :]).astype(np.int64)]}
        params = {"features": len(row), "rows": 1}
        (word,) = run_plain(self.circuit, values, params).sealed.words[0].astype(np.int64)
        if self.edges is None:
            return (word - 1) / 2.0**INPUT_F, (word + 1) / 2.0**INPUT_F
        ends = np.concatenate([[-FAR], self.edges, [FAR]])
        return float(ends[word]), float(ends[word + 1])


def read_out(box: BlackBox, features: int, good: Callable[[Real], bool], most: int) -> int:
    """Rows asked until `good(copy's weights)`, which only the measurement can know; `most` + 1 if
    never."""
    mean, spread = np.zeros(features + 1), np.eye(features + 1)
    directional = box.edges is not None and len(box.edges) == 1
    while box.asked < most:
        row = question(mean, spread, box.edges, directional=directional)
        mean, spread = learnt(mean, spread, np.append(row, 1.0), box.ask(row))
        spread = spread * (1 + DOUBT / (features + 1))
        if good(mean):
            return box.asked
    return most + 1


def question(mean: Real, spread: Real, edges: Real | None, *, directional: bool) -> Real:
    """The row in whose direction the weights are least known, moved onto the nearest edge; of the
    directions the widest whose row can be moved there."""
    unsure = spread
    if directional and (length := float(np.linalg.norm(mean))) > 0:
        # a label says nothing of the weights' common size
        flat = np.eye(len(mean)) - np.outer(mean, mean) / length**2
        unsure = flat @ spread @ flat
    values, vectors = np.linalg.eigh(unsure)
    for place in range(len(values) - 1, -1, -1):
        row, short = _along(mean, vectors[:, place], float(values[place]), edges)
        full = np.append(row, 1.0)
        if short <= float(np.sqrt(max(full @ spread @ full, 0))) / 2:
            break
    return row


def _along(mean: Real, way: Real, variance: float, edges: Real | None) -> tuple[Real, float]:
    """(row of this direction, as large as it may be and on an edge; by how much it misses it)."""
    reach = FEATURE_LIMIT / max(float(np.abs(way[:-1]).max()), 1e-9)
    if edges is not None and len(edges) > 1:
        reach = min(reach, float(edges[-1] - edges[0]) / 2 / np.sqrt(max(variance, 1e-18)))
    # as much of the direction as the row can have, whose last entry is always 1
    scale = min(reach, 1 / max(abs(float(way[-1])), 1e-9))
    row = way[:-1] * (scale if way[-1] >= 0 else -scale)
    said = float(row @ mean[:-1] + mean[-1])
    edge = said if edges is None else float(edges[np.argmin(np.abs(edges - said))])
    if (size := float(mean[:-1] @ mean[:-1])) > 1e-12:
        row = row + mean[:-1] * (edge - said) / size
    row = np.clip(row, -FEATURE_LIMIT, FEATURE_LIMIT)
    return row, abs(float(row @ mean[:-1] + mean[-1]) - edge)


def learnt(mean: Real, spread: Real, row: Real, within: Interval) -> tuple[Real, Real]:
    """N(m, S) after row·w was found to lie within these bounds."""
    said, way = float(row @ mean), spread @ row
    variance = float(row @ way)
    deviation = np.sqrt(variance)
    low, high = max(within[0], said - 8 * deviation), min(within[1], said + 8 * deviation)
    if low >= high:  # not believed before: take the nearest bound
        low = high = float(np.clip(said, *within))
    at = low + (high - low) * POINTS
    chance = np.exp(-(((at - said) / deviation) ** 2) / 2)
    chance = chance / chance.sum() if chance.sum() > 0 else np.full(len(at), 1 / len(at))
    found = float(chance @ at)
    left = float(chance @ (at - found) ** 2)
    kept = max(left / variance, 1e-9)
    mean = mean + way * (found - said) / variance
    spread = spread - np.outer(way, way) * (1 - kept) / variance
    return mean, (spread + spread.T) / 2
