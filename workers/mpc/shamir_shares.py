"""Sharing integers among n nodes, any t + 1 of which can put them together again.

Node i gets f(i + 1) of a polynomial f of degree t with f(0) = x mod 2^89 − 1 and random
coefficients: any t shares are uniform whatever x is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy.typing as npt

from workers.mpc.engines import field89
from workers.mpc.engines.base import Word, as_words
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.field89 import Limbs


def split(ints: npt.ArrayLike, *, n: int, t: int) -> list[Limbs]:
    """Shares by node id, flat and reduced, of signed integers under 2^63."""
    secret = field89.of_words(as_words(ints).reshape(-1))
    stream = field89.Stream()
    slopes = [stream.numbers(secret[0].size) for _ in range(t)]
    shares = []
    for node in range(n):
        value: Limbs = secret
        power = 1
        for slope in slopes:
            power *= node + 1
            value = field89.add(value, field89.mul(slope, field89.of_int(power)))
        shares.append(field89.reduced(value))
    return shares


class WrongShare(Disagreement):
    """Shares of one value lie on no polynomial of degree t.

    culprits: ids of the nodes whose shares are wrong; empty where too few shares tell.
    """

    def __init__(self, culprits: Sequence[int]) -> None:
        self.culprits = tuple(culprits)
        who = f"node {', '.join(map(str, culprits))}" if culprits else "one cannot tell which node"
        super().__init__(f"the shares of an opened value do not fit together: {who}")


def factors(points: Sequence[int], at: int) -> list[int]:
    """λ with f(at) = Σ λ_i f(points[i]), for every f of degree under len(points)."""
    found = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * (at - other) % field89.P
                below = below * (point - other) % field89.P
        found.append(above * pow(below, -1, field89.P) % field89.P)
    return found


def join(shares: Mapping[int, Limbs]) -> Word:
    """The integers mod 2^64 from the shares of any t + 1 nodes (or more), by node id."""
    if not shares:
        raise ValueError("no shares")
    return field89.to_words(at_point(list(shares), list(shares.values()), 0))


def opened(shares: Mapping[int, Limbs], t: int) -> Word:
    """`join` of more than t + 1 nodes' shares, all of which must fit. Raises: WrongShare."""
    nodes = sorted(shares)
    check_fit(nodes, [shares[node] for node in nodes], t)
    return join({node: shares[node] for node in nodes[: t + 1]})


def check_fit(nodes: Sequence[int], shares: Sequence[Limbs], t: int) -> None:
    """Do all shares lie on polynomials of degree t? Raises: WrongShare."""
    if _misfits(range(t + 1), nodes, shares):
        raise WrongShare(_culprits(nodes, shares, t))


def _culprits(nodes: Sequence[int], shares: Sequence[Limbs], t: int) -> list[int]:
    """Ids of the at most (m − t − 1)/2 nodes whose shares leave one polynomial for the rest.

    Two polynomials of degree t that each fit all but that many shares agree on t + 1: are one.
    """
    most = (len(nodes) - t - 1) // 2
    for chosen in itertools.combinations(range(len(nodes)), t + 1):
        wrong = _misfits(chosen, nodes, shares)
        if len(wrong) <= most:
            return [nodes[place] for place in wrong]
    return []


def _misfits(chosen: Sequence[int], nodes: Sequence[int], shares: Sequence[Limbs]) -> list[int]:
    """The places whose shares are not what those at the chosen ones say."""
    known, base = [nodes[place] for place in chosen], [shares[place] for place in chosen]
    return [
        place
        for place, node in enumerate(nodes)
        if place not in chosen and not equal(at_point(known, base, node + 1), shares[place])
    ]


def at_point(nodes: Sequence[int], shares: Sequence[Limbs], at: int) -> Limbs:
    """f(at), slack, of the polynomial that these nodes' shares lie on."""
    return combined(
        [field89.of_int(weight) for weight in factors([i + 1 for i in nodes], at)], shares
    )


def combined(weights: Sequence[Limbs], shares: Sequence[Limbs]) -> Limbs:
    """Σ weights_i · shares_i."""
    terms = [field89.mul(share, weight) for weight, share in zip(weights, shares, strict=True)]
    l0, l1, l2 = (sum(limbs[1:], start=limbs[0]) for limbs in zip(*terms, strict=True))
    return field89.carried(l0, l1, l2)


def equal(a: Limbs, b: Limbs) -> bool:
    left, right = field89.reduced(a), field89.reduced(b)
    return all((x == y).all() for x, y in zip(left, right, strict=True))
