"""Noise on a model before anybody uses it, so that no site's update shows through its answers.

With `clip_milli` C and `rho_micro` ρ among a round's parameters, updates are shortened to length C
instead of the median one, and each weight of w* = Σ (a_k / S)·w_k gets a discrete Gaussian of
variance Δ² / 2ρ, that the nodes make together (`ops.noise`). Δ is by how much w* can change when
one site sends another update and what was opened before, φ and the pairs of copies, stays:

    Δ = 2·C'·max_k a_k / S     C' = C and what fixed point can add to a clipped update's length

C is public: by the median one site would move how all others are clipped. docs/adr/0028.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import BadParams, Params, whole
from apps.protocol.circuits.layout import MODEL_F, WEIGHT_LIMIT

CLIP, RHO = "clip_milli", "rho_micro"
CLIP_MILLI = (100, 64_000)
RHO_MICRO = (1, 100_000_000)
# Of more, each within ±64, ‖w‖² would leave the 56 bits that it is read with (scoring.lengths).
SIZE_MAX = (1 << 12) - 1
MILLI, MICRO = 1_000, 1_000_000
# 1/‖w‖ of up to 2^12 is off by 2^−14 of itself and 2^−22: C' ≤ C + (C + 1)·2^−8 has room.
SLACK_BITS = 8
NORM_F, SHARE_F = 20, 30


def asked(params: Params) -> set[str]:
    """The names of these parameters, where the round is to have noise. Both, or neither."""
    return {CLIP, RHO} if {CLIP, RHO} & set(params) else set()


def check(params: Params, size: int | None) -> None:
    """size: how many numbers a model has; None where rounds of its class make no noise.

    Raises: BadParams.
    """
    if not asked(params):
        return
    if size is None:
        raise BadParams("rounds of this model class make no noise, so they have no privacy budget")
    if size > SIZE_MAX:
        raise BadParams(f"a model under a privacy budget has {SIZE_MAX} numbers at most")
    whole(params, CLIP, *CLIP_MILLI)
    whole(params, RHO, *RHO_MICRO)


def bound_of(params: Params) -> int | None:
    """C as a word at f = 20; None where the median bounds."""
    return (int(params[CLIP]) << NORM_F) // MILLI if asked(params) else None


def variance_of(params: Params, weights: Sequence[int], size: int) -> int:
    """Δ² / 2ρ in units of 2^−48, rounded up, of a model of so many numbers made with these weights.

    A weight a_k / S is its word at f = 30, rounded; each number of w* is cut with an error that
    differs by less than 2 units of 2^−24.
    """
    one = 1 << MODEL_F
    clip = -(-int(params[CLIP]) * one // MILLI)
    reach = clip + ((clip + one) >> SLACK_BITS) + 1
    largest = -(-max(weights) * (1 << SHARE_F) // sum(weights)) + 1
    sensitivity = -(-2 * reach * largest >> SHARE_F) + 2 * (isqrt(size) + 1)
    return -(-sensitivity * sensitivity * MICRO // (2 * int(params[RHO])))


def noised(ops: Any, model: Any, slopes: Any, weights: Sequence[int], params: Params) -> Any:
    """The model, flat at f = 24, with noise wherever `slopes` is 1, and within ±64 again."""
    size = model.shape[0]
    drawn = ops.noise((size,), variance=variance_of(params, weights, size), f=MODEL_F)
    limit = WEIGHT_LIMIT << MODEL_F
    return ops.clamp(ops.add(model, ops.scale(drawn, np.asarray(slopes))), -limit, limit)
