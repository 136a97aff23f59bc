"""Gradient steps on the rows of several sites, in real numbers: what NAME_sgd computes on shares.

Arrays are NumPy float64; features are standardised, weights are [o, d + 1] with intercepts last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.descent import SCORING_HALVINGS
from apps.protocol.circuits.layout import WEIGHT_LIMIT
from apps.protocol.contribution import sigmoid

Real = npt.NDArray[np.float64]

LEAST_GAIN = 2.0**-12
NOISE = 2.0**-18
PPM = 1e-6


def softmax(scores: Real) -> Real:
    """e^(z_c) / Σ_j e^(z_j) per row, without overflow."""
    each = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(each / each.sum(axis=1, keepdims=True))


# target less prediction, of scores [m, o] and targets [m, t]
RESIDUALS: dict[str, Callable[[Real, Real], Real]] = {
    "logistic": lambda z, y: y - sigmoid(z),
    "multinomial": lambda z, y: y - softmax(z),
    "linear": lambda z, y: y - z,
}
# mean loss
LOSSES: dict[str, Callable[[Real, Real], float]] = {
    "logistic": lambda z, y: float(np.mean(np.logaddexp(0, z) - y * z)),
    "multinomial": lambda z, y: float(-np.mean(np.log((softmax(z) * y).sum(axis=1)))),
    "linear": lambda z, y: float(np.mean((y - z) ** 2) / 2),
}


@dataclass
class Descent:
    """Where steps led: weights, each site's φ before it is scaled, and what was seen on the way."""

    weights: Real
    utilities: Real
    improved: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)


def descend(
    sites: Sequence[tuple[Real, Real]],
    holdout: tuple[Real, Real],
    schedule: Mapping[str, int],
    *,
    kind: str,
    start: Real | None = None,
) -> Descent:
    """Before each epoch φ_k ← φ_k + ⟨g_k, −∇L_val⟩ at ¼·w and a_k = [φ_k > 0]; in each step
    g = Σ a_k g_k / Σ a_k n_k · steps;  v ← μv + g − λw;  w ← w + ηv.

    sites: (features [n_k, d], targets [n_k, t]) each; holdout: those rows that score; schedule as
    `circuits.descent.SCHEDULE`; kind: a model class.
    Source: MISSION M-FL6; paper eq. 1 and 7 with rows in place of updates.
    """
    residuals, loss = RESIDUALS[kind], LOSSES[kind]
    inputs = [_with_one(x) for x, _ in sites]
    targets = [y for _, y in sites]
    seen, truth = _with_one(holdout[0]), holdout[1]
    counts = np.array([len(x) for x in inputs])
    weights = np.zeros((truth.shape[1], seen.shape[1])) if start is None else start
    speed = np.zeros_like(weights)
    steps, patience = schedule["steps"], schedule["patience"]
    penalised = np.array([1.0] * (seen.shape[1] - 1) + [0.0])
    start_loss = loss(np.zeros((len(seen), len(weights))), truth)
    best, least, missed = weights, start_loss - loss(seen @ weights.T, truth), 0
    done = Descent(weights, np.zeros(len(sites)))
    for _ in range(schedule["epochs"]):
        point = weights / 2**SCORING_HALVINGS
        wanted = residuals(seen @ point.T, truth).T @ seen / len(seen)
        done.utilities = done.utilities + [
            float(np.sum(residuals(x @ point.T, y).T @ x / counts.sum() * wanted))
            for x, y in zip(inputs, targets, strict=True)
        ]
        active = (done.utilities > NOISE).astype(float)
        taken = float(active @ counts)
        share = active * (steps / taken if taken else 0.0)
        for step in range(steps):
            gradient = sum(
                part * residuals(x[step::steps] @ weights.T, y[step::steps]).T @ x[step::steps]
                for part, x, y in zip(share, inputs, targets, strict=True)
            )
            shrunk = schedule["l2_ppm"] * PPM * weights * penalised
            speed = schedule["momentum_ppm"] * PPM * speed + gradient - shrunk
            weights = weights + schedule["rate_ppm"] * PPM * speed
        weights = np.clip(weights, -WEIGHT_LIMIT, WEIGHT_LIMIT)
        gain = start_loss - loss(seen @ weights.T, truth)
        done.gains.append(gain)
        if patience:
            done.improved.append(int(gain > least + LEAST_GAIN))
            missed = 0 if done.improved[-1] else missed + 1
            if not missed:
                best, least = weights, gain
            if missed == patience:
                break
    done.weights = best if patience else weights
    return done


def _with_one(rows: Real) -> Real:
    return np.column_stack([rows, np.ones(len(rows))])
