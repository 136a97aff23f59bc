"""Which updates are copies of one another: one bit for each pair of sites is opened, no distance.

û = w / ‖w‖, so that a copy is found whatever it was multiplied with; two sites' are the same when
‖û_i − û_j‖² < 2^−18: apart by less than 2 ‰ of their length. An error e of 1/‖w‖ enters as e² only.
A zero update is nobody's copy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

COPY_BITS = 18
UNIT_F, GRAM_F = 24, 30


def copies(ops: Any, updates: Any, inverse: Any) -> list[list[int]]:
    """Open the pairs [i, j], i < j, of equal direction.

    updates [K, d] f = 16, inverse [K] f = 22: 1/‖w‖. A distance is at most 4, so that with the 18
    bits it stays under 2^51.
    """
    factor = ops.broadcast(ops.reshape(inverse, (-1, 1)), updates.shape)
    # of length 1; of √2 where ‖w‖² has few bits and is cut
    one, most = 2 << UNIT_F, 3 << GRAM_F
    units = ops.within(ops.mul(updates, factor, f=UNIT_F), -one, one)
    return pairs_of(ops, ops.within(ops.matmul(units, ops.transpose(units), f=GRAM_F), -most, most))


def pairs_of(ops: Any, gram: Any) -> list[list[int]]:
    """The same, of the products [K, K] of all û at f = 30."""
    sites = gram.shape[0]
    gram = ops.reshape(gram, (-1,))
    left, right = np.triu_indices(sites, 1)
    own, other = ops.index(gram, left * (sites + 1)), ops.index(gram, right * (sites + 1))
    both = ops.scale(ops.index(gram, left * sites + right), 2)
    apart = ops.sub(ops.add(own, other), both)
    same = ops.open(ops.less_than(ops.scale(apart, 1 << COPY_BITS), own))
    return [[int(left[at]), int(right[at])] for at in np.flatnonzero(same)]


def distinct(phi: list[int], pairs: list[list[int]]) -> int:
    """How many of those with φ > 0 are left when of each pair of copies only one counts."""
    doubled = {j for i, j in pairs if phi[i] > 0}
    return sum(value > 0 and site not in doubled for site, value in enumerate(phi))


def shared_out(phi: list[int], pairs: list[list[int]]) -> list[int]:
    """Weights in proportion to φ, a site with copies sharing its own with them."""
    count = [1 + sum(site in pair for pair in pairs) for site in range(len(phi))]
    whole = int(np.lcm.reduce(np.array(count, dtype=object)))
    return [value * whole // each for value, each in zip(phi, count)]
