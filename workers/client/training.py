"""What a custodian computes beside its data: sums for the normalisation, and a trained update.

scikit-learn is imported by the classes' trainers only: it costs 80 MB and a second, and no other
step of the agent needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol import descent
from apps.protocol.circuits import CLASSES, ModelClass
from apps.protocol.circuits.moments import SITE_ROWS_MAX, SUMS_F
from apps.protocol.circuits.network_round import LENGTH_MAX
from apps.protocol.targets import extras_of, scale_of, time_unit_of
from workers.client.data import DataError, Table

FEATURE_BOUND = 16.0
UPDATE_BOUND = 64.0
SUM_BITS = 62
CONSTANTS_F = 20


def moments(
    table: Table, *, f: int, sites: int, limits: Sequence[int] | None = None, series: bool = False
) -> np.ndarray:
    """[n, Σx_1 … Σx_d, Σx_1² … Σx_d²] over the site's rows, real numbers [1 + 2d], of the columns
    that are numbers.

    The lags of a `series` are one variable, shifted: sums of two of them differ by a few values at
    its ends only, which the total would give away. So every column has the first one's sums.
    Every sum must stay below 2^62 / (2^f · sites), so that the total of all sites fits the ring,
    and every value within its limit: else the nodes would cut the sums.
    Raises: DataError that names the column which does not; for too many rows.
    """
    if table.rows > SITE_ROWS_MAX:
        raise DataError(f"{table.path.name} has more than {SITE_ROWS_MAX} rows. Give fewer.")
    features = table.features[:, : len(table.numbers)]
    largest = np.abs(features).max(axis=0)
    for name, value, limit in zip(table.numbers, largest, limits or (), strict=bool(limits)):
        if value * 2.0**SUMS_F > limit:
            raise DataError(
                f"{table.path.name}, column “{name}”: it has a value of {value:g}, and the round "
                f"takes {limit / 2.0**SUMS_F:g} at most."
            )
    bound = 2.0 ** (SUM_BITS - f) / max(1, sites)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = features.sum(axis=0)
        squares = (features**2).sum(axis=0)
    for name, total, square in zip(table.numbers, sums, squares, strict=True):
        if abs(total) >= bound or square >= bound:
            raise DataError(
                f"{table.path.name}, column “{name}”: its numbers are too large to be summed "
                "securely. Give it in a larger unit (grams as kilograms, say)."
            )
    if series:
        sums, squares = (np.full_like(each, each[0]) for each in (sums, squares))
    return np.concatenate([[float(table.rows)], sums, squares])


def constants(normalisation: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(mean [d], std [d]) from the round's public constants, integers at f = 20."""
    mean, std = (
        np.array([int(value) for value in normalisation[name]], dtype=float) / 2.0**CONSTANTS_F
        for name in ("mean", "std")
    )
    return mean, std


def standardise(
    features: np.ndarray, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray
) -> np.ndarray:
    """(x − mean) / std, each within ±16. features [n, d]."""
    with np.errstate(over="ignore"):
        z = (features - np.asarray(mean, dtype=float)) / np.asarray(std, dtype=float)
    return np.clip(z, -FEATURE_BOUND, FEATURE_BOUND)


def train(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    c: float,
    model: ModelClass = CLASSES["logistic"],
    label: Mapping[str, Any] | None = None,
    hidden: Sequence[int] = (),
) -> np.ndarray:
    """The update of a model class on standardised features: weights [o·(d + 1)], intercepts last;
    or the sums that it shares instead, or of a network what its steps changed from the public
    start.

    `c` is scikit-learn's inverse strength of the L2 penalty; `label` the request's, for a class
    whose targets have a scale or classes; `hidden` the units that it names, if any. Raises:
    DataError where the result is no finite number.
    """
    about = label or {}
    if model.hidden:
        return _changed(features, target_columns(labels, model, about), hidden or model.hidden, c)
    outputs = model.outputs(extras_of(model, {"label": about}))
    wanted = targets(labels, model, about)
    if model.sums:
        return bounded(model.sums.made(features, wanted))
    assert model.train is not None
    return bounded(model.train(features, wanted, outputs, c).reshape(-1))


def _changed(
    features: np.ndarray, targets: np.ndarray, hidden: Sequence[int], c: float
) -> np.ndarray:
    """Flat, no longer than the nodes take."""
    with np.errstate(over="ignore", invalid="ignore"):
        learnt = descent.learnt(features, targets, hidden, c)
    start = descent.public_start([features.shape[1], *hidden, targets.shape[1]])
    parts = [(new - old).reshape(-1) for new, old in zip(learnt, start, strict=True)]
    change = _finite(np.concatenate(parts))
    # a hair's breadth for what rounding to 2^−16 adds
    most = LENGTH_MAX - 2.0**-16 * len(change) ** 0.5
    return change * min(1.0, most / max(float(np.linalg.norm(change)), 1e-9))


def targets(labels: np.ndarray, model: ModelClass, label: Mapping[str, Any]) -> np.ndarray:
    """Labels as the class trains on them: numbers on ±2 of their range, times on 0 … 2."""
    if model.label == "survival":
        return labels / [time_unit_of(label), 1.0]
    if model.label != "number":
        return labels
    middle, unit = scale_of(model, label)
    return (labels - middle) / unit


def target_columns(labels: np.ndarray, model: ModelClass, label: Mapping[str, Any]) -> np.ndarray:
    """Labels as a holdout holds them: [n, t], one-hot of classes."""
    if model.label == "classes":
        return np.eye(len(label["classes"]))[labels]
    return targets(labels, model, label).reshape(len(labels), -1)


def bounded(update: np.ndarray) -> np.ndarray:
    """The update within ±64, as nodes clamp it. Raises: DataError for what is not finite."""
    return np.clip(_finite(update), -UPDATE_BOUND, UPDATE_BOUND)


def _finite(update: np.ndarray) -> np.ndarray:
    if not np.isfinite(update).all():
        raise DataError("The trained weights are not finite numbers.")
    return update
