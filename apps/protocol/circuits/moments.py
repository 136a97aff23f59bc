"""moments@1: totals from which the federation's mean and variance follow (paper eq. 4).

Each custodian brings [n, Σx_1 … Σx_d, Σx_1² … Σx_d²] over its own rows at f = 20; only the total
over all (at least three) custodians is opened, so that no site's own sums can be told. And nobody
could tell who sent what no rows have: so each site's are first cut to what n rows of values within
±B_j can have, 0 ≤ n ≤ 2^20, |Σx_j| ≤ n·B_j, 0 ≤ Σx_j² ≤ n·B_j², each 2^42 / K at most. The B_j are
"limits", from the schema's ranges; 2^21 where there is none. Agents check that their own sums fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import (
    BadParams,
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
SUMS_F = 20
# A site's rows, and the largest |x| as its word: n·B² fits beside sums that do, compared at f = 0
# where B is over FINE_MAX, else at f = 20.
SITE_ROWS_MAX, LIMIT_MAX, FINE_MAX = 1 << 20, 1 << 41, 1 << 30
TOTAL_BITS = 62
LIMITS = "limits"


def validate(params: Params) -> None:
    """params = {"features": d}, of numbers, or with "limits": d whole numbers, at f = 20.

    Raises: BadParams.
    """
    only(params, "features", *({LIMITS} & set(params)))
    whole(params, "features", 0, FEATURES_MAX)
    limits = limits_in(params)
    right = isinstance(limits, (list, tuple)) and len(limits) == params["features"]
    if not right or not all(type(b) is int and 1 <= b <= LIMIT_MAX for b in limits):
        raise BadParams(f"parameter 'limits' must give each feature 1 to {LIMIT_MAX}")


def limits_in(params: Params) -> Sequence[int]:
    """B_j of each feature, its word at f = 20."""
    found: Sequence[int] = params.get(LIMITS, [LIMIT_MAX] * params["features"])
    return found


def limits_of(features: Sequence[Mapping[str, Any]]) -> list[int]:
    """The B_j by a schema's numbers: the larger end of a range, rounded up."""
    found = []
    for feature in features:
        ends = [feature.get(end) for end in ("min", "max")]
        if None in ends:
            found.append(LIMIT_MAX)
            continue
        largest = max(abs(Decimal(str(end))) for end in ends) * (1 << SUMS_F)
        found.append(int(min(largest.to_integral_value(ROUND_CEILING), Decimal(LIMIT_MAX))) or 1)
    return found


def sums_shape(params: Params, index: int) -> Shape:
    return (1 + 2 * params["features"],)


def cut(ops: Any, sums: Any, limits: Sequence[int]) -> Any:
    """Of any words [K, 1 + 2d], what rows within the limits can have, give or take a few rows."""
    sites, size, most = sums.shape[0], len(limits), (1 << TOTAL_BITS) // max(2, sums.shape[0])
    high = np.append(SITE_ROWS_MAX << SUMS_F, np.full(2 * size, most))
    low = np.concatenate([[0], np.full(size, -most), np.zeros(size, np.int64)])
    sums = ops.clamp(sums, low, high)
    count, sums = ops.index(sums, np.s_[:, :1]), ops.index(sums, np.s_[:, 1:])
    if not size:
        return count
    # two more, so that rounding takes nothing from a site whose values are all at the limit
    rows = ops.add_public(ops.trunc(count, 0), 2)
    fine = np.array([limit <= FINE_MAX for limit in limits] * 2)
    most_of_one = [*limits, *(-(-(limit**2) >> SUMS_F) for limit in limits)]
    places, parts = [], []
    for at, f in ((np.flatnonzero(fine), SUMS_F), (np.flatnonzero(~fine), 0)):
        if not len(at):
            continue
        each = [-(-most_of_one[j] >> (SUMS_F - f)) for j in at]
        room = ops.scale(ops.broadcast(rows, (sites, len(at))), each, f=f)
        mine = ops.index(sums, np.s_[:, at])
        whole = ops.trunc(mine, f)
        over = ops.relu(ops.stack([ops.sub(whole, room), ops.sub(ops.neg(whole), room)]))
        over = ops.lift(over, SUMS_F)
        places.append(at)
        parts.append(ops.add(ops.sub(mine, ops.index(over, 0)), ops.index(over, 1)))
    order = np.argsort(np.concatenate(places))
    return ops.concat([count, ops.index(ops.concat(parts, axis=1), np.s_[:, order])], axis=1)


def run(ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params) -> Outcome:
    """Open Σ over custodians, as decimal strings of integers at f = 20."""
    total = ops.sum(cut(ops, ops.stack(secrets["sums"]), limits_in(params)), 0)
    return Outcome(openings={"sums": [str(value) for value in ops.open(total).tolist()]})


CIRCUIT = Circuit(
    name="moments",
    version=1,
    slots={"sums": Slot("custodian", sums_shape, f=SUMS_F)},
    validate=validate,
    run=run,
    opens=(
        Opening(
            "sums",
            "number of rows, and per feature the sum and the sum of squares, over all sites "
            "together (decimal integers, value x 2^20), each site's cut to what rows within the "
            "schema's ranges can have",
        ),
    ),
    min_members={"custodian": 3},
)
