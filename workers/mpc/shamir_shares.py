"""Sharing integers among n nodes, any t + 1 of which can put them together again.

Node i gets f(i + 1) of a polynomial f of degree t with f(0) = x mod 2^89 − 1 and random
coefficients: any t shares are uniform whatever x is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from workers.mpc.engines import field89
from workers.mpc.engines.base import Word, as_words
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


def join(shares: Mapping[int, Limbs]) -> Word:
    """The integers mod 2^64 from the shares of any t + 1 nodes (or more), by node id."""
    total = None
    for node, share in shares.items():
        above = below = 1
        for other in shares:
            if other != node:
                above = above * (other + 1) % field89.P
                below = below * (other - node) % field89.P
        term = field89.mul(share, field89.of_int(above * pow(below, -1, field89.P)))
        total = term if total is None else field89.add(total, term)
    if total is None:
        raise ValueError("no shares")
    return field89.to_words(total)
