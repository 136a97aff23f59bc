"""moments@1: totals from which the federation's mean and variance follow (paper eq. 4).

Each custodian brings [n, Σx_1 … Σx_d, Σx_1² … Σx_d²] over its own rows at f = 20; only the total
over all (at least three) custodians is opened, so that no site's own sums can be told.
|total| < 2^43 in value, else it wraps: agents check their own sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.circuits.declare import (
    Circuit,
    Opening,
    Outcome,
    Params,
    Shape,
    Slot,
    only,
    whole,
)

FEATURES_MAX = 1000


def validate(params: Params) -> None:
    """params = {"features": d}. Raises: BadParams."""
    only(params, "features")
    whole(params, "features", 1, FEATURES_MAX)


def sums_shape(params: Params, index: int) -> Shape:
    return (1 + 2 * params["features"],)


def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
    """Open Σ over custodians, as decimal strings of integers at f = 20."""
    total = ops.sum(ops.stack(secrets["sums"]), 0)
    # agents check their own sums; who does not could send any total
    total = ops.within(total, -(1 << 63), (1 << 63) - 1)
    return Outcome(openings={"sums": [str(value) for value in ops.open(total).tolist()]})


CIRCUIT = Circuit(
    name="moments",
    version=1,
    slots={"sums": Slot("custodian", sums_shape, f=20)},
    validate=validate,
    run=run,
    opens=(
        Opening(
            "sums",
            "number of rows, and per feature the sum and the sum of squares, over all sites "
            "together (decimal integers, value x 2^20)",
        ),
    ),
    min_members={"custodian": 3},
)
