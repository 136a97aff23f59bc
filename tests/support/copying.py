"""A buyer who trains a copy of a model of several classes on what it was answered.

Whatever an answer says bounds something that follows from the scores: a logit the scores
themselves, a band or a rounded probability the log-odds of each class, a label the difference from
every other score. A copy is trained to keep to all bounds (a logistic loss of each, `SHARP` wide),
the next rows are asked where it is least sure of the highest class or lies next to a band's edges,
some at random, and so on. A copy of a network has two hidden units for each of the network's: it
finds the way down better. Two of them are trained, and their mean is the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from apps.protocol.circuits import CIRCUITS, ModelClass
from apps.protocol.circuits.layout import INPUT_F, MODEL_F
from apps.protocol.circuits.resolution import BAND, LABEL, LOGIT
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode

Real = npt.NDArray[np.float64]
Layers = list[Real]  # each [in + 1, out], intercept last
Loss = Callable[[Real], tuple[float, Real]]  # scores [n, C] -> (loss, its gradient)
SHARP = {"label": 0.3, "band": 0.05, "rounded": 0.03}
RANDOM = 0.3  # of the rows that are asked next, of a label or a network
TRIED = 12  # rows are looked at for each that is asked


class ManyBox:
    """A model that answers many rows at a time, by the circuit itself; `asked` counts the rows."""

    def __init__(self, model: ModelClass, layers: Layers, resolution: str) -> None:
        self.model, self.layers, self.resolution = model, layers, resolution
        self.circuit = CIRCUITS[model.infer_id(resolution)]
        flat = np.concatenate([layer.T.reshape(-1) for layer in layers])
        self.weights = encode(flat, MODEL_F).astype(np.int64)
        hidden = zip(model.unit_names, layers, strict=False)
        self.sizes = {name: layer.shape[1] for name, layer in hidden}
        self.classes = layers[-1].shape[1]
        self.asked = 0

    def ask(self, rows: Real) -> Real:
        """[n, C, 2]: between which two values each class's score (of a logit), log-odds lies; of a
        label 1 for the likeliest and 0, twice."""
        self.asked += len(rows)
        size = {"features": rows.shape[1], "rows": len(rows), "classes": self.classes}
        values = {"model": [self.weights], "row": [encode(rows).astype(np.int64)]}
        words = run_plain(self.circuit, values, size | self.sizes).sealed.words[0]
        steps = words.astype(np.int64).reshape(len(rows), -1)
        if self.resolution == LOGIT:
            return np.repeat((steps / 2.0**INPUT_F)[:, :, None], 2, axis=2)
        if self.resolution == LABEL:
            return np.repeat(np.eye(self.classes)[steps[:, 0]][:, :, None], 2, axis=2)
        read = self.model.scale.read(self.resolution, steps)
        if self.resolution == BAND:
            ends = read.reshape(len(rows), -1, 2)
        else:
            ends = np.clip(np.stack([read - 0.005, read + 0.005], axis=2), 0, 1)
        return log_odds(ends)


def scored(layers: Layers, rows: Real) -> Real:
    for depth, layer in enumerate(layers):
        rows = (np.maximum(rows, 0) if depth else rows) @ layer[:-1] + layer[-1]
    return rows


def log_odds(chances: Real) -> Real:
    with np.errstate(divide="ignore"):
        return np.log(chances) - np.log1p(-chances)


def chances_of(scores: Real) -> Real:
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return np.clip(grown / grown.sum(1, keepdims=True), 1e-9, 1 - 1e-9)


def _sigmoid(x: Real) -> Real:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def loss_of(answers: Real, resolution: str) -> Loss:
    if resolution == LOGIT:
        wanted = answers[:, :, 0]
        return lambda scores: (float(((scores - wanted) ** 2).sum()) / 2, scores - wanted)
    wide = SHARP[resolution]
    if resolution == LABEL:
        won = answers[:, :, 0] > 0

        def of_label(scores: Real) -> tuple[float, Real]:
            ahead = np.where(won, 60.0, (scores[won][:, None] - scores) / wide)
            pull = _sigmoid(-ahead) / wide
            return float(np.logaddexp(0, -ahead).sum()), np.where(
                won, -(pull * ~won).sum(1, keepdims=True), pull
            )

        return of_label
    low, high = answers[:, :, 0], answers[:, :, 1]

    def of_bounds(scores: Real) -> tuple[float, Real]:
        chance = chances_of(scores)
        odds = log_odds(chance)
        over, under = (odds - low) / wide, (high - odds) / wide
        loss = np.logaddexp(0, -over).sum() + np.logaddexp(0, -under).sum()
        pull = (_sigmoid(-under) - _sigmoid(-over)) / wide
        across = pull / (1 - chance)
        return float(loss), pull - chance * (across.sum(1, keepdims=True) - across)

    return of_bounds


def trained(layers: Layers, rows: Real, loss: Loss, *, turns: int, l2: float) -> Layers:
    """Further on from these weights, by L-BFGS."""
    ends = np.cumsum([layer.size for layer in layers])[:-1]
    shapes = [layer.shape for layer in layers]

    def parts(flat: Real) -> Layers:
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes)]

    def step(flat: Real) -> tuple[float, Real]:
        mine, taken = parts(flat), [rows]
        for layer in mine[:-1]:
            taken.append(np.maximum(taken[-1] @ layer[:-1] + layer[-1], 0))
        value, back = loss(taken[-1] @ mine[-1][:-1] + mine[-1][-1])
        slopes = []
        for layer, inputs in zip(reversed(mine), reversed(taken), strict=True):
            slopes.append(np.vstack([inputs.T @ back, back.sum(0)]))
            back = (back @ layer[:-1].T) * (inputs > 0)
        slope = np.concatenate([each.reshape(-1) for each in reversed(slopes)])
        return value / len(rows) + l2 * float(flat @ flat) / 2, slope / len(rows) + l2 * flat

    start = np.concatenate([layer.reshape(-1) for layer in layers])
    how: Any = {"maxiter": turns, "maxfun": 2 * turns, "maxcor": 20}
    return parts(minimize(step, start, jac=True, method="L-BFGS-B", options=how).x)


def drawn(sizes: Sequence[int], rng: np.random.Generator, last: float = 1.0) -> Layers:
    """Weights at random; the scores of standardised rows spread by about `last`."""
    layers = []
    for depth, (wide, out) in enumerate(pairwise(sizes)):
        gain = (last if depth == len(sizes) - 2 else 1.0) * np.sqrt(min(len(sizes) - 1, 2))
        slopes = rng.normal(size=(wide, out)) * gain / np.sqrt(wide)
        layers.append(np.vstack([slopes, rng.normal(size=(1, out)) * gain / 4]))
    return layers


def rows_until(
    box: ManyBox, good: Callable[[Real, Real], bool], *, rng: np.random.Generator, most: int
) -> int:
    """Rows asked until the copy is `good(rows, its scores)`, judged on 3 000 standardised rows;
    `most` + 1 if never."""
    features = box.layers[0].shape[0] - 1
    judged = rng.normal(size=(3000, features))
    hidden = [layer.shape[1] for layer in box.layers[:-1]]
    size = sum(layer.size for layer in box.layers) if hidden else features + 1
    shape = [features, *(2 * units for units in hidden), box.classes]
    copies = [drawn(shape, rng) for _ in range(2 if hidden else 1)]
    exact = box.resolution == LOGIT
    rows = rng.normal(size=(size, features))
    answers = box.ask(rows)
    while True:
        loss = loss_of(answers, box.resolution)
        turns, l2 = (500, 1e-7) if exact else (150, 1e-5 if hidden else 1e-2 / len(rows))
        copies = [trained(copy, rows, loss, turns=turns, l2=l2) for copy in copies]
        if good(judged, _mean(copies, judged)):
            return box.asked
        if box.asked >= most:
            return most + 1
        count = max(1, size // 2 if exact or not hidden else size)
        seen = rng.normal(size=(TRIED * count, features))
        sure = _sure(_mean(copies, seen), box)
        if len(copies) > 1:
            one, two = (scored(copy, seen) for copy in copies)
            sure = sure - np.abs(one - two).sum(1) / 2
        any_ = 0 if box.resolution == BAND and not hidden else int(RANDOM * count)
        chosen = np.argsort(sure)[: count - any_]
        asked = seen[np.concatenate([chosen, rng.integers(0, len(seen), any_)])]
        rows = np.vstack([rows, asked])
        answers = np.concatenate([answers, box.ask(asked)])


def _sure(scores: Real, box: ManyBox) -> Real:
    """How far the highest two lie apart; of a band the nearest two edges."""
    if box.resolution == BAND:
        edges = log_odds(np.array(box.model.scale.bands[1:-1]))
        apart = np.abs(log_odds(chances_of(scores))[:, :, None] - edges).min(axis=2)
        return np.sort(apart, axis=1)[:, :2].sum(axis=1)
    ordered = np.sort(scores, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _mean(copies: Sequence[Layers], rows: Real) -> Real:
    return np.mean([scored(copy, rows) for copy in copies], axis=0)
