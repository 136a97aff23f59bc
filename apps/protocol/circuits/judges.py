"""Several validators' utilities as one: the upper stake-weighted median, site by site.

m_k is the largest of the u_vk such that validators with at least half of the weight say as much or
more. So only more than half of the weight can lower a site's score, whatever low numbers the rest
bring (the floor), and at least half is needed to lift it. Of three or more no validator weighs half
or more; of two equal ones nobody can be outvoted, and the higher counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import BadParams
from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.scoring import SCORE_LIMIT_BITS, UTILITY_BOUND

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
    # one of them, each of which is within this
    chosen = ops.sum(ops.mul(chosen, utilities, f=utilities.f), 0)
    return ops.within(chosen, -UTILITY_BOUND, UTILITY_BOUND)


class Judges:
    """The validators by the scoring halves of their rows, and what weighs each one's word."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.rows = [(rows + 1) // 2 for rows in params["rows"]]
        self.weights = params.get("weights") or [1] * len(self.rows)

    def spared(self, bits: int) -> int:
        """How often `of_sites` gives utilities halved that were halved so often."""
        return bits + (len(self.rows) > 1)

    def of_sites(self, ops: Any, utilities: Any) -> Any:
        """[V, K] -> [K] at f = 40: what the one validator says, or the median of several, halved.

        Each validator's are u · rows / 2^⌈log2 rows⌉.
        """
        if len(self.rows) == 1:
            return ops.index(utilities, 0)
        each = [ops.index(utilities, v) for v in range(len(self.rows))]
        return weighted_median(ops, equalised(ops, each, self.rows), self.weights)

    def gains(
        self, ops: Any, scores: Any, targets: Any, of_class: Callable[[Any, Any, Any, Any], Any]
    ) -> list[Any]:
        """Of each validator the loss of score 0 less that of scores [m, o], summed over its rows,
        over the next 2^k; [1] at f = 26. `of_class`: ModelClass.gains."""
        limit = 1 << (SCORE_LIMIT_BITS + scores.f)
        across = ops.transpose(ops.trunc(ops.clamp(scores, -limit, limit), INPUT_F))
        found = []
        for end, count in zip(np.cumsum(self.rows), self.rows, strict=True):
            own = np.s_[end - count : end]
            mine = ops.reshape(ops.index(across, np.s_[:, own]), (1, scores.shape[1], count))
            found.append(of_class(ops, mine, ops.index(targets, own), np.ones((1, 1), np.int64)))
        return found

    def fell(self, ops: Any, gains: Sequence[Any], before: Sequence[Any], least: int) -> Any:
        """Did the loss fall by more than `least` (at f = 26), by the same median? [1]"""
        more = [ops.sub(new, old) for new, old in zip(gains, before, strict=True)]
        line, found = least, more[0]
        if len(more) > 1:  # halved means at f = 40
            line = least << (FACTOR_F - 1)
            found = weighted_median(ops, equalised(ops, more, self.rows), self.weights)
        return ops.ltz(ops.add_public(ops.neg(found), line))

    def open_gain(self, ops: Any, gains: Sequence[Any]) -> int:
        """Opened as the mean over all rows, in thousandths."""
        whole = sum(self.rows)
        factors = [[round(1000 * 2 ** ((n - 1).bit_length() + 8) / whole)] for n in self.rows]
        mean = ops.sum(ops.scale(ops.stack(list(gains)), np.array(factors, np.int64), f=8), 0)
        return int(ops.open_rounded(mean)[0])


def equalised(ops: Any, utilities: Sequence[Any], rows: Sequence[int]) -> Any:
    """[V, K] at f = 40 from each validator's [K], which are u · rows / 2^⌈log2 rows⌉: all u / 2.
    Those have at least 26 fractional bits, of which 26 count."""
    factor = [round(2.0 ** (FACTOR_F - 1 + (n - 1).bit_length()) / n) for n in rows]
    kept = ops.trunc(ops.stack(list(utilities)), KEPT_F)
    return ops.scale(kept, np.array(factor, np.int64)[:, None], f=FACTOR_F)
