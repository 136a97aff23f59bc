"""Several validators' utilities as one: the upper stake-weighted median, site by site.

m_k is the largest of the u_vk such that validators with at least half of the weight say as much or
more. So only more than half of the weight can lower a site's score, whatever low numbers the rest
bring (the floor), and at least half is needed to lift it. Of three or more no validator weighs half
or more; of two equal ones nobody can be outvoted, and the higher counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import BadParams

WEIGHT_MAX = 1_000_000
FACTOR_F = 14
KEPT_F = 26


def check_weights(params: Mapping[str, Any]) -> None:
    """One whole number from 1 to 10^6 for each validator; of three, none half of all.

    Raises: BadParams.
    """
    if "weights" not in params:
        return
    weights, count = params["weights"], len(params["rows"])
    whole = isinstance(weights, (list, tuple)) and all(type(w) is int for w in weights)
    if not whole or len(weights) != count or not all(1 <= w <= WEIGHT_MAX for w in weights):
        raise BadParams(f"parameter 'weights' must give each validator 1 to {WEIGHT_MAX}")
    if count > 2 and 2 * max(weights) >= sum(weights):
        raise BadParams("no validator of three or more may have half of the weight")


def weighted_median(ops: Any, utilities: Any, weights: Sequence[int]) -> Any:
    """[V, K] -> [K], same f. Two batches of comparisons and one product, for any V and K.

    Equal utilities stand in the order of the validators. v is the median when the weight above it
    is less than half, and with its own is not.
    """
    count, total = utilities.shape[0], sum(weights)
    left, right = np.triu_indices(count, 1)
    # 1 where the later of a pair is above the earlier one
    above = ops.less_than(ops.index(utilities, left), ops.index(utilities, right))
    table = np.zeros((len(left), count), np.int64)
    for pair, (low, high) in enumerate(zip(left.tolist(), right.tolist())):
        table[pair, low], table[pair, high] = weights[high], -weights[low]
    before = np.array([sum(weights[:v]) for v in range(count)], np.int64)[:, None]
    heavier = ops.add_public(ops.combine(above, table, 0), before)
    twice = ops.scale(heavier, 2)
    own = 2 * np.array(weights, np.int64)[:, None]
    short = ops.ltz(ops.stack([ops.add_public(twice, -total), ops.add_public(twice, own - total)]))
    chosen = ops.sub(ops.index(short, 0), ops.index(short, 1))
    return ops.sum(ops.mul(chosen, utilities, f=utilities.f), 0)


def equalised(ops: Any, utilities: Sequence[Any], rows: Sequence[int]) -> Any:
    """[V, K] at f = 40 from each validator's [K], which are u · rows / 2^⌈log2 rows⌉: all u / 2."""
    factor = [round(2.0 ** (FACTOR_F - 1 + (n - 1).bit_length()) / n) for n in rows]
    kept = ops.trunc(ops.stack(list(utilities)), KEPT_F)
    return ops.scale(kept, np.array(factor, np.int64)[:, None], f=FACTOR_F)
