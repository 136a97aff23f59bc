"""Layers on shares. A class that is linear in its weights is a network of one.

Weights are one flat vector: of each layer W [out, in + 1] row by row, the intercept last. A layer
takes inputs within ±16 at f = 16 and a 1, and gives z = inputs · Wᵀ. A hidden one passes on

    a = min(max(z, 0), 16)                       ReLU, cut where features are cut

and what flows back through it, from residuals δ within ±10 of the layer behind, is

    δ' = [0 ≤ z ≤ 16] · cut(δ · W, ±8)

So inputs and residuals of every layer keep the bounds of a linear class, and with them its
gradients, steps and words: |δ · W| ≤ 10 · 64 · 64, at f = 44 under 2^60. Behind layers of more
units than 64 residuals have 16 fractional bits in this product, which is then under 2^60.

Steps on a network, at a site as on shares, begin at public weights, uniform in
±√(6 / (in + out)), drawn by SHA-256 from the sizes. Zeros would never part the units; a secret
start would hide nothing that the steps do not hide by themselves, and nobody could recompute it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.layout import (
    FEATURE_LIMIT,
    INPUT_F,
    MODEL_F,
    SCORE_F,
    with_intercept,
)

UNITS_MAX, FINE_UNITS_MAX = 1024, 64
# What a node's memory bears: weights, of which steps keep several, and units of a layer times the
# rows of all sites.
WEIGHTS_MAX, STEPS_WEIGHTS_MAX, ALIVE_MAX = 1 << 20, 1 << 17, 1 << 22
BACK_LIMIT = 8
SCORE_SHIFT = 8
# Values that are compared at once: bounds memory.
VALUES_MAX = 1 << 17
START_CONTEXT = b"flai/start/v1"

Layers = Sequence[tuple[int, int]]


def size_of(layers: Layers) -> int:
    """How many weights there are."""
    return sum(out * (into + 1) for into, out in layers)


def columns_of(ops: Any, flat: Any, layers: Layers) -> list[Any]:
    """Of each layer Wᵀ [in + 1, out]."""
    found, at = [], 0
    for into, out in layers:
        end = at + out * (into + 1)
        found.append(ops.transpose(ops.reshape(ops.index(flat, np.s_[at:end]), (out, into + 1))))
        at = end
    return found


def flat_of(ops: Any, columns: Sequence[Any]) -> Any:
    """The inverse of `columns_of`."""
    return ops.concat([ops.reshape(ops.transpose(each), (-1,)) for each in columns])


def forward(ops: Any, inputs: Any, columns: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """(what each layer takes [n, in + 1] at f = 16, where hidden units are alive [n, out])."""
    taken, alive = [inputs], []
    for each in columns[:-1]:
        passed, bits = _by_rows(lambda z: _relu(ops, z), ops, ops.matmul(taken[-1], each, SCORE_F))
        taken.append(with_intercept(ops, passed))
        alive.append(bits)
    return taken, alive


def backward(ops: Any, errors: Any, columns: Sequence[Any], alive: Sequence[Any]) -> list[Any]:
    """The residuals of each layer [n, out], of those of the last one."""
    found = [errors]
    for each, bits in zip(columns[:0:-1], reversed(alive), strict=True):
        across = ops.transpose(ops.index(each, np.s_[:-1]))
        limit = BACK_LIMIT << SCORE_F
        errors = ops.trunc(found[0], back_f(each.shape[1]))
        (cut,) = _by_rows(
            lambda back: (ops.clamp(back, -limit, limit),),  # noqa: B023 - called at once
            ops,
            ops.matmul(errors, across, SCORE_F),
        )
        found.insert(0, ops.mul(bits, cut))
    return found


def back_f(units: int) -> int:
    """Fractional bits of the residuals of so many units, where they flow back."""
    return SCORE_F if units <= FINE_UNITS_MAX else INPUT_F


def under_the_highest(ops: Any, scores: Any) -> Any:
    """Scores [m, C] less the row's highest, plus 8: softmax and order stay, and a cut at ±8 takes
    only what is e^16 times less likely. A network's scores soon pass 8."""

    def shifted(part: Any) -> tuple[Any]:
        top = ops.transpose(ops.max(ops.transpose(part)))
        apart = ops.sub(part, ops.broadcast(top, part.shape))
        return (ops.add_public(apart, SCORE_SHIFT << part.f),)

    (found,) = _by_rows(shifted, ops, scores)
    return found


def start_of(layers: Layers) -> npt.NDArray[np.int64]:
    """The public weights that steps begin at, flat at f = 24: zeros of a linear class."""
    if len(layers) == 1:
        return np.zeros(size_of(layers), np.int64)
    parts = []
    for place, (into, out) in enumerate(layers):
        bound = isqrt((6 << 2 * MODEL_F) // (into + out))
        name = START_CONTEXT + f"\0{place}\0{into}\0{out}".encode()
        drawn = hashlib.shake_256(name).digest(8 * into * out)
        words = np.frombuffer(drawn, "<u8").reshape(out, into) % np.uint64(2 * bound + 1)
        each = np.zeros((out, into + 1), np.int64)
        each[:, :-1] = words.astype(np.int64) - bound
        parts.append(each.reshape(-1))
    return np.concatenate(parts)


def _relu(ops: Any, z: Any) -> tuple[Any, Any]:
    """(a at f = 16, alive) of z at f = 20."""
    top = FEATURE_LIMIT << z.f
    outside = ops.ltz(ops.stack([z, ops.add_public(ops.neg(z), top)]))
    below, above = (ops.reshape(ops.index(outside, at), z.shape) for at in (0, 1))
    # z is not both under 0 and above the top
    alive = ops.within(ops.add_public(ops.neg(ops.add(below, above)), 1), 0, 1)
    cut = ops.reshape(ops.lift(ops.scale(above, FEATURE_LIMIT), z.f), z.shape)
    # z where it is alive, and the top only where it is not
    passed = ops.within(ops.add(ops.mul(alive, z), cut), 0, top)
    return ops.trunc(passed, INPUT_F), alive


def _by_rows(fn: Callable[[Any], tuple[Any, ...]], ops: Any, values: Any) -> list[Any]:
    """What fn gives of values [n, k], of as many rows at once as memory bears."""
    rows, width = values.shape
    step = max(1, VALUES_MAX // width)
    parts = [fn(ops.index(values, np.s_[at : at + step])) for at in range(0, rows, step)]
    return [ops.concat(list(each)) for each in zip(*parts, strict=True)]
