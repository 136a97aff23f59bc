"""The games that φ is a solution of: which coalitions count, and how much, for whom."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

SCORINGS = ("taylor", "shapley", "leave_one_out")
"""Which utility φ is made of: a SubDAO's choice, signed in every ticket of a round."""

SHAPLEY_MAX = 12
"""Exact Shapley values need the loss of all 2^K coalitions."""

SCORING_POINT = 0.75
"""Where utilities are measured: this far along the mean update (why: docs/adr/0005)."""


def coalitions(scoring: str, sites: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """(members [C, K], weights [C, K]): u_k = Σ_S weights[S, k] · gain(S), gain(∅) = 0.

    shapley: every S but ∅; (s−1)!(K−s)!/K! for S ∋ k and −s!(K−s−1)!/K! else, so that u_k is k's
    mean marginal gain over all orders. leave_one_out: gain of all less gain of all but k.
    Raises: ValueError for another scoring, or more sites than it can do.
    """
    if scoring == "leave_one_out":
        members = np.concatenate([np.ones((1, sites), bool), ~np.eye(sites, dtype=bool)])
        return members, np.concatenate([np.ones((1, sites)), -np.eye(sites)])
    if scoring != "shapley" or sites > SHAPLEY_MAX:
        raise ValueError(f"no coalitions of {sites} sites are scored by {scoring}")
    members = (np.arange(1, 1 << sites)[:, None] >> np.arange(sites)) & 1 == 1
    orders = [math.factorial(s) * math.factorial(sites - 1 - s) for s in range(sites)]
    share = np.array([*orders, 0]) / math.factorial(sites)
    size = members.sum(axis=1)[:, None]
    return members, np.where(members, share[size - 1], -share[size])
