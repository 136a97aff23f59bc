"""The bench's circuits: what models, statistics and rounds cost, each up to the opened result.

They are written as all circuits are, but no node carries them: nothing here may run on shares of
anybody's data. W1 logistic inference, W2 and W3 multilayer perceptrons, W4 right answers of eight
linear models, W5 weighted aggregation, W6 moments and correlations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from apps.protocol.circuits.declare import Circuit, Opening, Outcome, Params, Shape, Slot
from workers.mpc.engines.base import Word
from workers.mpc.fixed import encode

F = 16
MODEL_F = 24


class Workload(NamedTuple):
    """A circuit, its inputs as words per slot, its parameters."""

    circuit: Circuit
    values: Mapping[str, list[Word]]
    params: dict[str, Any]


def wave(*shape: int) -> Any:
    """Spread-out values in (-1, 1), the same in every run."""
    return np.sin(np.arange(1, int(np.prod(shape)) + 1) * 2.399963).reshape(shape)


def _circuit(name: str, run: Any, fractions: Mapping[str, int], *, keeps: bool = False) -> Circuit:
    """A circuit whose slots take the shapes that `params` lists."""

    def shape_of(slot: str) -> Any:
        def shape(params: Params, index: int) -> Shape:
            return tuple(params[slot])

        return shape

    return Circuit(
        name=name,
        version=1,
        slots={slot: Slot("custodian", shape_of(slot), f=f) for slot, f in fractions.items()},
        validate=lambda params: None,
        run=run,
        opens=() if keeps else (Opening("value", "what the bench compares"),),
    )


def _workload(
    name: str, run: Any, inputs: Mapping[str, tuple[Any, int]], *, keeps: bool = False
) -> Workload:
    """One input per slot, or a list of equal ones."""
    values, fractions, params = {}, {}, {}
    for slot, (given, f) in inputs.items():
        items = given if isinstance(given, list) else [given]
        values[slot] = [encode(item, f) for item in items]
        fractions[slot], params[slot] = f, list(items[0].shape)
    return Workload(_circuit(name, run, fractions, keeps=keeps), values, params)


def _opened(ops: Any, secret: Any) -> Outcome:
    return Outcome(openings={"value": (ops.open(secret) / 2.0**secret.f).tolist()})


def _with_ones(ops: Any, rows: Any) -> Any:
    return ops.concat([rows, ops.public(np.full((rows.shape[0], 1), 1 << rows.f), rows.f)], axis=1)


def _layer(ops: Any, rows: Any, weights: Any) -> Any:
    return ops.matmul(_with_ones(ops, rows), weights, f=F)


def logistic(rows: int, *, sigmoid: str, features: int = 30) -> Workload:
    """W1: probabilities of `rows` rows; sigmoid "accurate" (cubic pieces) or "hard" (3 pieces)."""

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        (model,), (row,) = secrets["model"], secrets["row"]
        score = _layer(ops, row, model)
        return _opened(ops, getattr(ops, f"sigmoid_{sigmoid}")(score))

    inputs = {"model": (wave(features + 1, 1), MODEL_F), "row": (wave(rows, features), F)}
    return _workload(f"logistic_{sigmoid}", run, inputs)


def perceptron(rows: int, *layers: int) -> Workload:
    """W2, W3: scores of an MLP with ReLU between its layers."""

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        (value,) = secrets["row"]
        for depth in range(len(layers) - 1):
            (weights,) = secrets[f"w{depth}"]
            value = _layer(ops, ops.relu(value) if depth else value, weights)
        return _opened(ops, value)

    inputs = {"row": (wave(rows, layers[0]), F)}
    for depth, (wide, high) in enumerate(pairwise(layers)):
        inputs[f"w{depth}"] = (wave(wide + 1, high) / wide**0.5, F)
    return _workload("mlp_" + "_".join(map(str, layers)), run, inputs)


def right_answers(models: int = 8, rows: int = 200, features: int = 30) -> Workload:
    """W4: how many rows each linear model gets right; models, rows and labels are secret."""

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        (weights,), (row,), (label,) = secrets["models"], secrets["row"], secrets["label"]
        # only a sign is wanted: the exact product needs no truncation
        scores = ops.matmul(_with_ones(ops, row), weights, f=2 * F)
        below = ops.ltz(scores)
        wide = ops.broadcast(label, below.shape)
        # label xor (score < 0): summed over the rows inside one product
        product = ops.dot(ops.transpose(wide), ops.transpose(below))
        plain = ops.add(ops.sum(wide, 0), ops.sum(below, 0))
        return _opened(ops, ops.sub(plain, ops.scale(product, 2)))

    inputs = {
        "models": (wave(features + 1, models), F),
        "row": (wave(rows, features), F),
        "label": ((wave(rows, 1) > 0).astype(float), 0),
    }
    return _workload("right_answers", run, inputs)


def aggregation(words: int, *, weights: str, sites: int = 10) -> Workload:
    """W5: Σ a_k w_k with public weights: "integer" ones, or φ (three decimals, truncated)."""

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        updates = secrets["update"]
        if weights == "integer":
            total = ops.weighted_sum(updates, range(1, sites + 1))
        else:
            phi = [round((k + 1) / sites * 2**F) for k in range(sites)]
            total = ops.trunc(ops.halve(ops.weighted_sum(updates, phi), F), F)
        return Outcome(result=total)

    updates = [wave(words) * (k + 1) / sites for k in range(sites)]
    return _workload(f"aggregate_{weights}", run, {"update": (updates, F)}, keeps=True)


def moments(sites: int = 8, rows: int = 1000, features: int = 10) -> Workload:
    """W6: mean, variance and correlations of all sites' secret rows."""
    size = sites * rows

    def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
        row = ops.concat(list(secrets["row"]), axis=0)
        # Σx and Σxxᵀ by one product: a column of ones beside the features
        rows_1 = _with_ones(ops, row)
        sums = ops.matmul(ops.transpose(rows_1), rows_1, f=2 * F)
        share = round(2.0**26 / size)
        means = ops.trunc(ops.scale(sums, share, f=26), 24)
        mean = ops.reshape(ops.index(means, np.s_[features, :features]), (features, 1))
        square = ops.index(means, np.s_[:features, :features])
        covariance = ops.sub(square, ops.matmul(mean, ops.transpose(mean), f=24))
        variance = ops.index(covariance, (np.arange(features), np.arange(features)))
        inverse = ops.reshape(ops.rsqrt(variance, f=20, bits=34, low_bits=8), (features, 1))
        scale = ops.matmul(inverse, ops.transpose(inverse), f=20)
        correlation = ops.mul(covariance, scale, f=24)
        return _opened(
            ops,
            ops.concat([ops.reshape(part, (-1,)) for part in (mean, variance, correlation)]),
        )

    blocks = [wave(rows, features) + 0.1 * k for k in range(sites)]
    return _workload("moments", run, {"row": (blocks, F)})


def all_workloads() -> list[tuple[str, Workload]]:
    return [
        ("W1/b1/accurate", logistic(1, sigmoid="accurate")),
        ("W1/b1000/accurate", logistic(1000, sigmoid="accurate")),
        ("W1/b1/3-segment", logistic(1, sigmoid="hard")),
        ("W1/b1000/3-segment", logistic(1000, sigmoid="hard")),
        ("W2/b1", perceptron(1, 30, 64, 1)),
        ("W2/b1000", perceptron(1000, 30, 64, 1)),
        ("W3/b1", perceptron(1, 784, 128, 10)),
        ("W3/b128", perceptron(128, 784, 128, 10)),
        ("W4", right_answers()),
        ("W5/1e5/integer", aggregation(100_000, weights="integer")),
        ("W5/1e5/phi", aggregation(100_000, weights="phi")),
        ("W5/1e6/integer", aggregation(1_000_000, weights="integer")),
        ("W5/1e6/phi", aggregation(1_000_000, weights="phi")),
        ("W6", moments()),
    ]
