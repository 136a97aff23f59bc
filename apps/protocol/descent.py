"""Gradient steps on the rows of several sites, in real numbers: what NAME_sgd computes on shares.

Arrays are NumPy float64; features are standardised, weights are [out, in + 1] of each layer with
intercepts last: one layer, unless a class has hidden ones (circuits/network.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.descent import SCORING_HALVINGS
from apps.protocol.circuits.layout import FEATURE_LIMIT, MODEL_F, WEIGHT_LIMIT
from apps.protocol.circuits.network import BACK_LIMIT, start_of
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
RESIDUALS |= {name: RESIDUALS["multinomial"] for name in ("mlp", "mlp2")}
# mean loss
LOSSES: dict[str, Callable[[Real, Real], float]] = {
    "logistic": lambda z, y: float(np.mean(np.logaddexp(0, z) - y * z)),
    "multinomial": lambda z, y: float(-np.mean(np.log((softmax(z) * y).sum(axis=1)))),
    "linear": lambda z, y: float(np.mean((y - z) ** 2) / 2),
}
LOSSES |= {name: LOSSES["multinomial"] for name in ("mlp", "mlp2")}


@dataclass
class Descent:
    """Where steps led: weights, each site's φ before it is scaled, and what was seen on the way."""

    layers: list[Real]
    utilities: Real
    improved: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)

    @property
    def weights(self) -> Real:
        """Of a class that is linear in them."""
        (only,) = self.layers
        return only


def descend(
    sites: Sequence[tuple[Real, Real]],
    holdout: tuple[Real, Real],
    schedule: Mapping[str, int],
    *,
    kind: str,
    hidden: Sequence[int] = (),
    start: Sequence[Real] | None = None,
) -> Descent:
    """Before each epoch φ_k ← φ_k + ⟨g_k, −∇L_val⟩ in the last layer's weights, at ¼ of them, and
    a_k = [φ_k > 0]; in each step, of each layer, g = Σ a_k g_k / Σ a_k n_k · steps;
    v ← μv + g − λw;  w ← w + ηv.

    sites: (features [n_k, d], targets [n_k, t]) each; holdout: those rows that score; schedule as
    `circuits.descent.SCHEDULE`; kind: a model class; hidden: units of its hidden layers; start:
    weights of each layer.
    Source: MISSION M-FL6; paper eq. 1 and 7 with rows in place of updates.
    """
    residuals, loss = RESIDUALS[kind], LOSSES[kind]
    inputs = [_with_one(x) for x, _ in sites]
    targets = [y for _, y in sites]
    seen, truth = _with_one(holdout[0]), holdout[1]
    rows = list(zip(inputs, targets, strict=True))
    counts = np.array([len(x) for x in inputs])
    weights = list(start or public_start([seen.shape[1] - 1, *hidden, truth.shape[1]]))
    speed = [np.zeros_like(each) for each in weights]
    steps, patience = schedule["steps"], schedule["patience"]
    start_loss = loss(np.zeros_like(truth), truth)
    best, least, missed = weights, start_loss - loss(scores_of(weights, holdout[0]), truth), 0
    done = Descent(weights, np.zeros(len(sites)))
    for _ in range(schedule["epochs"]):
        point = weights[-1] / 2**SCORING_HALVINGS
        judge = forward(weights, seen)[-1]
        wanted = residuals(judge @ point.T, truth).T @ judge / len(seen)
        done.utilities = done.utilities + [
            float(np.sum(residuals(x @ point.T, y).T @ x / counts.sum() * wanted))
            for x, y in zip([forward(weights, x)[-1] for x in inputs], targets, strict=True)
        ]
        active = (done.utilities > NOISE).astype(float)
        taken = float(active @ counts)
        share = active * (steps / taken if taken else 0.0)
        for step in range(steps):
            each = [gradients(weights, x[step::steps], y[step::steps], residuals) for x, y in rows]
            for layer, (own, moving) in enumerate(zip(weights, speed, strict=True)):
                gradient = sum(part * one[layer] for part, one in zip(share, each, strict=True))
                shrunk = schedule["l2_ppm"] * PPM * own
                shrunk[:, -1] = 0
                speed[layer] = schedule["momentum_ppm"] * PPM * moving + gradient - shrunk
            weights = [w + schedule["rate_ppm"] * PPM * v for w, v in zip(weights, speed)]
        weights = [np.clip(each, -WEIGHT_LIMIT, WEIGHT_LIMIT) for each in weights]
        gain = start_loss - loss(scores_of(weights, holdout[0]), truth)
        done.gains.append(gain)
        if patience:
            done.improved.append(int(gain > least + LEAST_GAIN))
            missed = 0 if done.improved[-1] else missed + 1
            if not missed:
                best, least = weights, gain
            if missed == patience:
                break
    done.layers = best if patience else weights
    return done


def public_start(widths: Sequence[int]) -> list[Real]:
    """The weights [out, in + 1] that steps begin at."""
    layers = list(pairwise(widths))
    flat, parts = start_of(layers) / 2.0**MODEL_F, []
    for into, out in layers:
        parts.append(flat[: out * (into + 1)].reshape(out, -1))
        flat = flat[out * (into + 1) :]
    return parts


def scores_of(weights: Sequence[Real], features: Real) -> Real:
    """Scores [n, o] of features [n, d]."""
    return np.asarray(forward(weights, _with_one(features))[-1] @ weights[-1].T)


def forward(weights: Sequence[Real], inputs: Real) -> list[Real]:
    """What each layer takes, [n, in + 1]: units a = min(max(z, 0), 16) of the layer before."""
    taken = [inputs]
    for each in weights[:-1]:
        taken.append(_with_one(np.clip(taken[-1] @ each.T, 0, FEATURE_LIMIT)))
    return taken


def gradients(
    weights: Sequence[Real], inputs: Real, targets: Real, residuals: Callable[[Real, Real], Real]
) -> list[Real]:
    """−∂(Σ loss)/∂W of each layer, of rows with a 1; what flows back is cut to ±8."""
    taken = forward(weights, inputs)
    errors = residuals(taken[-1] @ weights[-1].T, targets)
    found: list[Real] = []
    for place in range(len(weights) - 1, -1, -1):
        found.insert(0, errors.T @ taken[place])
        if place:
            z = taken[place - 1] @ weights[place - 1].T
            back = np.clip(errors @ weights[place][:, :-1], -BACK_LIMIT, BACK_LIMIT)
            errors = back * ((z >= 0) & (z <= FEATURE_LIMIT))
    return found


def _with_one(rows: Real) -> Real:
    return np.column_stack([rows, np.ones(len(rows))])
