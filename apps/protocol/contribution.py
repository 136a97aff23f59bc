"""Contribution scores in real numbers: what `logistic_round` computes on shares.

Arrays are NumPy float64; w_k has the intercept last; rows are standardised features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.copies import COPY_BITS
from apps.protocol.circuits.games import SCORING_POINT, coalitions

Real = npt.NDArray[np.float64]

FLAG_SHARE = 0.1


def sigmoid(z: npt.ArrayLike) -> Real:
    """σ(z) = 1 / (1 + e^−z), without overflow."""
    # tanh saturates quietly where exp overflows
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64))))


def clip_to_median_norm(updates: npt.ArrayLike) -> Real:
    """w_k · min(1, median_j ‖w_j‖ / ‖w_k‖): nobody gains weight by scaling an update up.

    updates: [K, d+1]. The median of an even number is the mean of the two middle norms.
    """
    weights = np.asarray(updates, dtype=np.float64)
    norms = np.linalg.norm(weights, axis=1)
    safe = np.where(norms > 0, norms, 1.0)
    clipped: Real = weights * np.minimum(1.0, np.median(norms) / safe)[:, None]
    return clipped


def taylor_scores(updates: npt.ArrayLike, rows: npt.ArrayLike, labels: npt.ArrayLike) -> Real:
    """u_k = ⟨w_k − p, −∇L_val(p)⟩ at p = ¾·w̄, with mean log-loss L_val.

    The first-order gain of going on from p to w_k. At w̄ itself the scores would sum to 0, so that
    about half of all honest sites would score nothing; short of it, whoever pulls the way the mean
    does is above 0, and who does not is still below.

    updates [K, d+1] already clipped, rows [m, d], labels [m] in {0, 1}; m ≥ 1.
    Source: paper eq. 7 (Validate_sMPC by gradient alignment).
    """
    weights = np.asarray(updates, dtype=np.float64)
    inputs = np.column_stack([np.asarray(rows, dtype=np.float64), np.ones(len(np.asarray(labels)))])
    point = SCORING_POINT * weights.mean(axis=0)
    errors = np.asarray(labels, dtype=np.float64) - sigmoid(inputs @ point)
    descent = inputs.T @ errors / len(errors)
    scores: Real = (weights - point) @ descent
    return scores


def coalition_scores(
    updates: npt.ArrayLike, rows: npt.ArrayLike, labels: npt.ArrayLike, scoring: str
) -> Real:
    """u_k of the game gain(S) = L_val(0) − L_val(mean of w_j, j in S), mean log-loss L_val.

    updates [K, d+1] already clipped, rows [m, d], labels [m] in {0, 1}.
    Source: paper eq. 7 (Validate_sMPC by Shapley value or by leave-one-out).
    """
    weights, truth = np.asarray(updates, np.float64), np.asarray(labels, np.float64)
    inputs = np.column_stack([np.asarray(rows, np.float64), np.ones(len(truth))])
    members, shares = coalitions(scoring, len(weights))
    logits = members / members.sum(axis=1)[:, None] @ weights @ inputs.T
    losses = np.mean(np.logaddexp(0, logits) - truth * logits, axis=1)
    scores: Real = (math.log(2) - losses) @ shares
    return scores


def upper_median(utilities: npt.ArrayLike, weights: Sequence[int]) -> Real:
    """m_k: the largest u_vk such that validators with at least half of the weight say as much or
    more. utilities [V, K] -> [K]; circuits/judges.py does the same on shares."""
    said = np.asarray(utilities, dtype=np.float64)
    heavy = np.asarray(weights, dtype=np.float64)
    support = np.einsum("w,wvk->vk", heavy, said[:, None, :] >= said[None, :, :])
    best: Real = np.where(2 * support >= heavy.sum(), said, -np.inf).max(axis=0)
    return best


def phi_from_utilities(utilities: npt.ArrayLike, *, noise: float = 0.0) -> Real:
    """φ_k = max(u_k, 0) / max_j max(u_j, 0) ∈ [0, 1]; all 0 when no utility exceeds `noise`.

    Source: paper eq. 7; clipping and scale as settled: φ_max = 1.
    """
    raw: Any = np.maximum(np.asarray(utilities, dtype=np.float64), 0.0)
    largest = raw.max(initial=0.0)
    return np.asarray(raw / largest if largest > noise else np.zeros_like(raw))


def phi_milli(phi: npt.ArrayLike) -> list[int]:
    """φ as it is opened: thousandths, halves rounded up."""
    return [int(value) for value in np.floor(np.asarray(phi, dtype=np.float64) * 1000 + 0.5)]


def copies(updates: npt.ArrayLike) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of updates [K, d] that are the same but for their length:
    ‖û_i − û_j‖² < 2^-18 of the unit vectors; a zero update is nobody's copy."""
    w = np.asarray(updates, dtype=np.float64)
    norms = np.linalg.norm(w, axis=1, keepdims=True)
    units = np.divide(w, norms, out=np.zeros_like(w), where=norms > 0)
    pairs = combinations(range(len(w)), 2)
    near = 2.0**-COPY_BITS
    return [
        (i, j)
        for i, j in pairs
        if norms[i] > 0 and float(np.sum((units[i] - units[j]) ** 2)) < near
    ]


def without_copies(
    phi: Sequence[int], pairs: Sequence[Sequence[int]], committed: Sequence[int]
) -> list[int]:
    """φ, with 0 for whoever committed later to what is the same as an earlier update.

    `committed` says when each site did: any numbers that grow with time, none twice.
    """
    late = {max(pair, key=lambda site: committed[site]) for pair in pairs}
    return [0 if site in late else value for site, value in enumerate(phi)]


def flagged(phi: Mapping[str, float]) -> list[str]:
    """Who contributed next to nothing: φ_k < 0.1 · median of all φ, or φ_k = 0. From φ alone.

    φ in any common scale. Returns the names in order. Source: MISSION M-FL7.
    """
    if not phi:
        return []
    line = FLAG_SHARE * float(np.median(list(phi.values())))
    return sorted(name for name, value in phi.items() if value == 0 or value < line)
