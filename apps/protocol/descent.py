"""Gradient steps on the rows of several sites, in real numbers: what NAME_sgd computes on shares;
and a site's own on its rows, whose mean is a round of networks.

Arrays are NumPy float64; features are standardised, weights are [out, in + 1] of each layer with
intercepts last: one layer, unless a class has hidden ones (circuits/network.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.descent import SCORING_HALVINGS, counted, warm_epochs
from apps.protocol.circuits.layout import FEATURE_LIMIT, MODEL_F, WEIGHT_LIMIT
from apps.protocol.circuits.network import BACK_LIMIT, start_of
from apps.protocol.circuits.network_round import LENGTH_MAX, SCORING_POINT
from apps.protocol.circuits.same_rows import NEAR_BITS, looked_up
from apps.protocol.contribution import phi_from_utilities, sigmoid, upper_median

Real = npt.NDArray[np.float64]

# How a site steps on its own rows.
LOCAL_EPOCHS, LOCAL_ROWS, LOCAL_RATE, LOCAL_MOMENTUM = 20, 32, 0.05, 0.9
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
    """Where steps led: weights, each site's φ before it is scaled, what was seen on the way, and
    which sites share the same rows."""

    layers: list[Real]
    utilities: Real
    improved: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    @property
    def weights(self) -> Real:
        """Of a class that is linear in them."""
        (only,) = self.layers
        return only


def descend(
    sites: Sequence[tuple[Real, Real]],
    holdouts: Sequence[tuple[Real, Real]],
    schedule: Mapping[str, int],
    *,
    kind: str,
    judges: Sequence[int] | None = None,
    hidden: Sequence[int] = (),
    start: Sequence[Real] | None = None,
) -> Descent:
    """Before each epoch φ_vk ← φ_vk + c_k·⟨g_k, −∇L_v⟩ in the last layer's weights, at ¼ of them,
    a_k = [median_v φ_vk > 0] / (1 + how many share its rows); in each step, of each layer,
    g = Σ a_k c_k g_k / Σ a_k m_k · steps;  v ← μv + g − λw;  w ← w + ηv. With ḡ_k = g_k / n_k,
    m_k = min(n_k, 2·median n), c_k = m_k / n_k · min(1, median_j ‖ḡ_j‖ / ‖ḡ_k‖). Of networks φ is
    taken on hidden features less the validator's mean, and in the first epochs on rows that no step
    has seen (`circuits.descent.warm_epochs`).

    sites: (features [n_k, d], targets [n_k, t]) each; holdouts: each validator's rows that score;
    schedule as `circuits.descent.SCHEDULE`; kind: a model class; judges: the validators' weights;
    hidden: units of its hidden layers; start: weights of each layer.
    Source: MISSION M-FL6; paper eq. 1 and 7 with rows in place of updates.
    """
    residuals, loss = RESIDUALS[kind], LOSSES[kind]
    inputs = [_with_one(x) for x, _ in sites]
    targets = [y for _, y in sites]
    judged = [(_with_one(x), y) for x, y in holdouts]
    votes = judges or [1] * len(judged)
    pairs = same_rows([x for x, _ in sites])
    doubled = np.array([1 + sum(k in pair for pair in pairs) for k in range(len(sites))])
    rows = list(zip(inputs, targets, strict=True))
    counts = np.array([len(x) for x in inputs])
    whole = counted(counts.tolist())
    weights = list(start or public_start([inputs[0].shape[1] - 1, *hidden, targets[0].shape[1]]))
    speed = [np.zeros_like(each) for each in weights]
    steps, patience = schedule["steps"], schedule["patience"]

    def gained() -> Real:
        """Of each validator."""
        return np.array(
            [loss(np.zeros_like(y), y) - loss(scores_of(weights, x), y) for x, y in holdouts]
        )

    said = np.zeros((len(judged), len(sites)))
    best, least, missed = weights, gained(), 0
    done = Descent(weights, said[0], pairs=pairs)
    for epoch in range(schedule["epochs"]):
        point = weights[-1] / 2**SCORING_HALVINGS
        unseen = epoch < warm_epochs(hidden, schedule)
        asked = [np.arange(n) % steps % 2 == 1 if unseen else np.arange(n) >= 0 for n in counts]
        shown = [
            (forward(weights, x[at])[-1], y[at]) for (x, y), at in zip(rows, asked, strict=True)
        ]
        given = [residuals(h @ point.T, t).T @ h / len(t) for h, t in shown]
        norms = np.array([np.linalg.norm(each) for each in given])
        most = np.median(norms)
        clip = np.where(norms > most, most / np.maximum(norms, most or 1), 1)
        for v, (x, y) in enumerate(judged):
            seen = forward(weights, x)[-1]
            middle = np.append(seen.mean(axis=0)[:-1] if hidden else np.zeros(seen.shape[1] - 1), 0)
            wanted = residuals(seen @ point.T, y).T @ (seen - middle) / len(x) / counts.sum()
            each = [residuals(h @ point.T, t).T @ (h - middle) / len(t) for h, t in shown]
            said[v] += whole * clip * [np.sum(mean * wanted) for mean in each]
        done.utilities = upper_median(said, votes)
        active = (done.utilities > NOISE) / doubled
        taken = float(active @ whole)
        share = active * clip * whole / counts * (steps / taken if taken else 0.0)
        for step in range(0, steps, 2 if unseen else 1):
            each = [gradients(weights, x[step::steps], y[step::steps], residuals) for x, y in rows]
            for layer, (own, moving) in enumerate(zip(weights, speed, strict=True)):
                gradient = sum(part * one[layer] for part, one in zip(share, each, strict=True))
                shrunk = schedule["l2_ppm"] * PPM * own
                shrunk[:, -1] = 0
                speed[layer] = schedule["momentum_ppm"] * PPM * moving + gradient - shrunk
            weights = [w + schedule["rate_ppm"] * PPM * v for w, v in zip(weights, speed)]
        weights = [np.clip(each, -WEIGHT_LIMIT, WEIGHT_LIMIT) for each in weights]
        gains = gained()
        done.gains.append(float(np.average(gains, weights=[len(x) for x, _ in judged])))
        if patience:
            more = upper_median((gains - least)[:, None], votes)
            done.improved.append(int(more[0] > LEAST_GAIN))
            missed = 0 if done.improved[-1] else missed + 1
            if not missed:
                best, least = weights, gains
            if missed == patience:
                break
    done.layers = best if patience else weights
    return done


def learnt(features: Real, targets: Real, hidden: Sequence[int], c: float) -> list[Real]:
    """Weights [out, in + 1] of each layer that a site's own steps on all its rows lead to, from the
    public start: LOCAL_EPOCHS of batches of some LOCAL_ROWS, softmax loss, L2 of 1 / (c·n).

    features [n, d], targets [n, o] one-hot; c as scikit-learn's.
    """
    inputs, residuals = _with_one(features), RESIDUALS["multinomial"]
    weights = public_start([features.shape[1], *hidden, targets.shape[1]])
    speed = [np.zeros_like(each) for each in weights]
    rows, steps = len(inputs), max(1, len(inputs) // LOCAL_ROWS)
    for step in range(LOCAL_EPOCHS * steps):
        own = np.s_[step % steps :: steps]
        found = gradients(weights, inputs[own], targets[own], residuals)
        for each, moving, gradient in zip(weights, speed, found, strict=True):
            moving *= LOCAL_MOMENTUM
            moving += gradient / len(targets[own])
            moving[:, :-1] -= each[:, :-1] / (c * rows)
            each += LOCAL_RATE * moving
    return weights


def averaged(
    changes: Real,
    holdouts: Sequence[tuple[Real, Real]],
    hidden: Sequence[int],
    *,
    judges: Sequence[int] | None = None,
) -> tuple[Real, list[Real]]:
    """(φ [K], weights of each layer) of one round of networks: NAME_round of a class with hidden
    layers in real numbers, copies aside (circuits/network_round.py).

    changes [K, ·]: what each site's steps changed, flat; holdouts: each validator's rows that
    score, (features [m, d], targets [m, o]); judges: the validators' weights.
    """
    sizes = [holdouts[0][0].shape[1], *hidden, holdouts[0][1].shape[1]]
    length = np.linalg.norm(changes, axis=1)
    kept = np.where(length > LENGTH_MAX, 0, length)
    part = np.minimum(kept, np.median(kept)) / np.maximum(length, NOISE)
    clipped = changes * part[:, None]
    half = SCORING_POINT * clipped.mean(axis=0)
    point, said = moved(sizes, half), []
    for x, y in holdouts:
        found = gradients(point, _with_one(x), y, RESIDUALS["multinomial"])
        descent = np.concatenate([each.reshape(-1) for each in found]) / len(x)
        said.append((clipped - half) @ descent)
    phi = phi_from_utilities(upper_median(np.array(said), judges or [1] * len(said)))
    total = phi.sum()
    return phi, moved(sizes, phi @ clipped / total if total else 0 * half)


def moved(widths: Sequence[int], change: Real) -> list[Real]:
    """The public start and this change of it, flat, by layers."""
    parts, at = [], 0
    for each in public_start(widths):
        parts.append(each + change[at : at + each.size].reshape(each.shape))
        at += each.size
    return parts


def same_rows(sites: Sequence[Real]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of sites with the same rows, or half of them: of features [n_k, d].

    A row is found where one is within 2^−6 (root mean square), and is evidence where none else is
    at its own site.
    """
    counts = [len(x) for x in sites]
    asked = np.concatenate(looked_up(counts))
    every, owner = np.concatenate(sites), np.repeat(np.arange(len(sites)), counts)
    squared = np.sum(every**2, axis=1)
    apart = squared[asked, None] + squared[None, :] - 2 * every[asked] @ every.T
    hits = (apart < every.shape[1] * 2.0**-NEAR_BITS) @ np.eye(len(sites), dtype=int)[owner]
    alone = hits[np.arange(len(asked)), owner[asked]] < 2
    evidence = alone[:, None] & (hits > 0)
    share = np.array([evidence[owner[asked] == k].mean(axis=0) for k in range(len(sites))])
    return [
        (i, j)
        for i, j in combinations(range(len(sites)), 2)
        if max(share[i, j], share[j, i]) >= 0.5
    ]


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
