"""logistic_infer@1: logits of secret rows under a secret linear model (paper eq. 2 and 8).

ẑ = X·w + b, sealed to the asker, who applies the sigmoid. Features are clamped to ±16 first:
without it one row with huge entries could pack several weights into one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import Circuit, Outcome, Params, Shape, Slot, only, whole

FEATURES_MAX = 1000
ROWS_MAX = 1000
FEATURE_LIMIT = 16
MODEL_F = 24
INPUT_F = 16


def validate(params: Params) -> None:
    """params = {"features": d, "rows": k}. Raises: BadParams."""
    only(params, "features", "rows")
    whole(params, "features", 1, FEATURES_MAX)
    whole(params, "rows", 1, ROWS_MAX)


def model_shape(params: Params, index: int) -> Shape:
    return (params["features"] + 1,)


def row_shape(params: Params, index: int) -> Shape:
    return (params["rows"], params["features"])


def with_intercept(ops: Any, rows: Any) -> Any:
    """[x, 1]: the model's last entry is its intercept."""
    ones = np.full((rows.shape[0], 1), 1 << rows.f, dtype=np.int64)
    return ops.concat([rows, ops.public(ones, rows.f)], axis=1)


def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
    """Logits [k] at f = 16. Bound: 16·64·1001 · 2^40 < 2^60."""
    (model,), (rows,) = secrets["model"], secrets["row"]
    limit = FEATURE_LIMIT << INPUT_F
    inputs = with_intercept(ops, ops.clamp(rows, -limit, limit))
    logits = ops.matmul(inputs, ops.reshape(model, (-1, 1)), f=INPUT_F)
    return Outcome(sealed=ops.reshape(logits, (-1,)))


CIRCUIT = Circuit(
    name="logistic_infer",
    version=1,
    slots={
        "model": Slot("model", model_shape, f=MODEL_F),
        "row": Slot("buyer", row_shape, f=INPUT_F),
    },
    validate=validate,
    run=run,
    sealed=True,
)
