"""Which sites share the same rows, or most of them: one bit for each pair of sites is opened.

Of each site some rows (public places, evenly spread) are looked up among all rows of all sites. A
row is found at a site that has one within 2^−6 deviations of it (root mean square over features;
labels are not looked at, so that a copy with other labels is one). It is evidence only where it is
alone at its own site: what many patients have in common, as of a few binary features, proves
nothing. Two sites share rows when half of what was looked up of either one is evidence against the
other. `apps.protocol.descent.same_rows` is the same in real numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits.layout import INPUT_F
from apps.protocol.circuits.network import VALUES_MAX

NEAR_BITS = 12  # of the mean square
LOOKED_UP_MAX, LOOKED_UP_MIN = 1 << 18, 8  # comparisons in all, and rows of a site


def looked_up(counts: Sequence[int]) -> list[npt.NDArray[np.int64]]:
    """Of each site the places of those of its rows that are looked up, among all sites' rows."""
    rows = sum(counts)
    each = max(LOOKED_UP_MIN, LOOKED_UP_MAX // (rows * len(counts)))
    begins = np.cumsum(counts) - np.array(counts)
    return [
        begin + np.linspace(0, count - 1, min(count, each)).astype(np.int64)
        for begin, count in zip(begins, counts, strict=True)
    ]


def same_rows(ops: Any, inputs: Any, counts: Sequence[int]) -> list[list[int]]:
    """Open the pairs [i, j], i < j, of sites with the same rows.

    inputs [N, d + 1] f = 16 within ±16, the last column 1, sites in their order. Distances are
    exact: under 2^10 · 2^10 · 2^32.
    """
    places, sites, exact = looked_up(counts), len(counts), 2 * INPUT_F
    owner = np.repeat(np.arange(sites), [len(one) for one in places])
    ends = np.cumsum(counts)
    squared, across = ops.dot(inputs, inputs, f=exact), ops.transpose(inputs)
    least = (inputs.shape[1] - 1) << (exact - NEAR_BITS)
    step = max(1, VALUES_MAX // int(ends[-1]))
    asked, found = np.concatenate(places), []
    for part in np.split(asked, range(step, len(asked), step)):
        shape = (len(part), int(ends[-1]))
        both = ops.add(
            ops.broadcast(ops.reshape(ops.index(squared, part), (-1, 1)), shape),
            ops.broadcast(ops.reshape(squared, (1, -1)), shape),
        )
        common = ops.scale(ops.matmul(ops.index(inputs, part), across, f=exact), 2)
        near = ops.ltz(ops.add_public(ops.sub(both, common), -least))
        mine = [np.s_[:, end - count : end] for end, count in zip(ends, counts, strict=True)]
        found.append(ops.stack([ops.sum(ops.index(near, at), 1) for at in mine], axis=1))
    hits = ops.concat(found)
    at_home = ops.index(hits, (np.arange(len(owner)), owner))
    few = ops.ltz(
        ops.concat([ops.add_public(at_home, -2), ops.reshape(ops.add_public(hits, -1), (-1,))])
    )
    alone = ops.reshape(ops.index(few, np.s_[: len(owner)]), (-1, 1))
    there = ops.add_public(ops.neg(ops.reshape(ops.index(few, np.s_[len(owner) :]), hits.shape)), 1)
    evidence = ops.mul(ops.broadcast(alone, hits.shape), there)
    against = ops.stack([ops.sum(ops.index(evidence, owner == k), 0) for k in range(sites)])
    half = np.array([[len(one)] for one in places], np.int64)
    apart = ops.ltz(ops.add_public(ops.scale(against, 2), -half))
    left, right = np.triu_indices(sites, 1)
    # neither is: 1 where both directions say so
    both_apart = ops.mul(ops.index(apart, (left, right)), ops.index(apart, (right, left)))
    same = 1 - ops.open(both_apart)
    return [[int(left[at]), int(right[at])] for at in np.flatnonzero(same)]
