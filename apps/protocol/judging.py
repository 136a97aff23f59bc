"""How much each validator's scores weigh: by its stake, and never alone."""

from __future__ import annotations

from collections.abc import Sequence

from apps.protocol.circuits.judges import WEIGHT_MAX
from apps.protocol.money import MICRO


def judge_weights(stakes_micro: Sequence[int]) -> list[int]:
    """1 + whole tokens staked, at most 10^6; of three or more, less than all others together.

    The second rule caps the largest only, so that no single validator decides.
    """
    weights = [min(1 + stake // MICRO, WEIGHT_MAX) for stake in stakes_micro]
    if len(weights) > 2:
        largest = max(range(len(weights)), key=lambda v: weights[v])
        others = sum(weights) - weights[largest]
        weights[largest] = min(weights[largest], others - 1)
    return weights
