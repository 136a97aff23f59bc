"""The games that φ is a solution of: which coalitions count, and how much, for whom."""

from __future__ import annotations

import math
from functools import cache
from hashlib import sha256
from itertools import combinations

import numpy as np
import numpy.typing as npt

SCORINGS = ("taylor", "shapley", "leave_one_out")
"""Which utility φ is made of: a SubDAO's choice, signed in every ticket of a round."""

EXACT_MAX = 12
"""Exact Shapley values need the loss of all 2^K coalitions; of more sites some are drawn."""

SAMPLED_MAX = 1 << EXACT_MAX
"""As many coalitions at most are scored then."""

SHAPLEY_MAX = 32
"""Of more sites too few coalitions of a size would be drawn."""

SCORING_POINT = 0.75
"""Where utilities are measured: this far along the mean update (why: docs/adr/0005)."""


def coalitions(scoring: str, sites: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """(members [C, K], weights [C, K]): u_k = Σ_S weights[S, k] · gain(S), gain(∅) = 0.

    shapley: every S but ∅; (s−1)!(K−s)!/K! for S ∋ k and −s!(K−s−1)!/K! else, so that u_k is k's
    mean marginal gain over all orders; of more than EXACT_MAX sites nearly, by `sampled`.
    leave_one_out: gain of all less gain of all but k.
    Raises: ValueError for another scoring, or more sites than it can do.
    """
    if scoring == "leave_one_out":
        members = np.concatenate([np.ones((1, sites), bool), ~np.eye(sites, dtype=bool)])
        return members, np.concatenate([np.ones((1, sites)), -np.eye(sites)])
    if scoring != "shapley" or sites > SHAPLEY_MAX:
        raise ValueError(f"no coalitions of {sites} sites are scored by {scoring}")
    if sites > EXACT_MAX:
        return sampled(sites)
    members = (np.arange(1, 1 << sites)[:, None] >> np.arange(sites)) & 1 == 1
    orders = [math.factorial(s) * math.factorial(sites - 1 - s) for s in range(sites)]
    share = np.array([*orders, 0]) / math.factorial(sites)
    size = members.sum(axis=1)[:, None]
    return members, np.where(members, share[size - 1], -share[size])


@cache
def sampled(
    sites: int, most: int = SAMPLED_MAX
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Coalitions and weights as `coalitions` gives, of `most` coalitions at most instead of all.

    Of each size s the additive game c_s + Σ_{k in S} b_sk, Σ_k b_sk = 0, that is nearest to the
    gains of its coalitions; u_k = gain of all / K + Σ_s b_sk / (K − 1). Over all coalitions that is
    the Shapley value. Here over all of the smallest and the largest sizes that fit, and of the
    others equally many, drawn with their complements. What is left out is how sites work together
    within a size, not how one is good or bad.

    Every node computes these weights for itself and must get the same ones to the last bit: draws
    come from K alone, and nothing is summed in an order that a machine may choose.
    """
    sizes: dict[int, list[tuple[int, ...]]] = {}
    left, low = most - 1, 1
    while 2 * low < sites and (here := 2 * math.comb(sites, low)) <= left:
        for size in (low, sites - low):
            sizes[size] = list(combinations(range(sites), size))
        left, low = left - here, low + 1
    middle = sites + 1 - 2 * low
    for size in range(low, sites - low + 1):
        if 2 * size <= sites:
            sizes[size] = _drawn(sites, size, left // middle)
        else:
            rest = sizes[sites - size]
            sizes[size] = [tuple(k for k in range(sites) if k not in each) for each in rest]
    members, weights = [], []
    for _, chosen in sorted(sizes.items()):
        inside = np.array([[k in each for k in range(sites)] for each in map(set, chosen)])
        apart = inside - inside.sum(axis=0) / len(chosen)
        system = np.ones((sites, sites))
        for one in apart:
            system += one[:, None] * one
        inverse, found = _inverse(system), np.zeros(apart.shape)
        for site in range(sites):
            found += apart[:, site, None] * inverse[site]
        members.append(inside)
        weights.append(found / (sites - 1))
    everyone = np.ones((1, sites), bool)
    whole = np.full((1, sites), 1 / sites)
    return np.concatenate([*members, everyone]), np.concatenate([*weights, whole])


def _drawn(sites: int, size: int, count: int) -> list[tuple[int, ...]]:
    """So many different coalitions of a size, or all of them."""
    found: set[tuple[int, ...]] = set()
    for number in range(4 * count):
        order = sorted(
            range(sites), key=lambda k: sha256(f"{sites}/{size}/{number}/{k}".encode()).digest()
        )
        found.add(tuple(sorted(order[:size])))
        if len(found) == count:
            break
    return sorted(found)


def _inverse(system: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of a positive definite matrix, by Gauss and Jordan."""
    sites = len(system)
    wide = np.concatenate([system, np.eye(sites)], axis=1)
    for at in range(sites):
        row = wide[at] / wide[at, at]
        wide = wide - wide[:, at, None] * row
        wide[at] = row
    return wide[:, sites:]
