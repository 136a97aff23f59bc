"""How far rows lie from the mean of their cell: the standard deviation, of which intervals follow.

It is taken in secret, of cells whose counts are open, and opened in thousandths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import Opening

# 1/n is public and has so many bits.
PART_F = 24
VALUE_F = 16
SQUARES_F = 20

LOSS_SPREAD = (
    Opening(
        "log_loss_spread_milli",
        "standard deviation of the rows' log-loss, in thousandths of a nat, for its interval",
    ),
    Opening("log_loss_spread_strata_milli", "the same per stratum; null where support is"),
)


def parts_of(counts: Sequence[int]) -> Any:
    """1/n of each cell at PART_F."""
    return np.array([round(2**PART_F / (count or 1)) for count in counts], np.int64)


def centred(
    ops: Any, wide: Any, inside: Any, counts: Sequence[int], limits: tuple[int, int]
) -> Any:
    """Each cell's values less their mean, and 0 for who is not in it; [C, m] at f = 16.

    wide [C, m] at f = 16, within the limits; inside [C, m] bits.
    """
    own = ops.mul(inside, wide)
    mean = ops.trunc(ops.scale(ops.sum(own, 1), parts_of(counts), f=PART_F), VALUE_F)
    # between the least and the largest; 1/n is off by 2^−13 of itself
    least, most = (end << VALUE_F for end in limits)
    mean = ops.within(mean, least - (abs(least) >> 12) - 1, most + (abs(most) >> 12) + 1)
    return ops.mul(inside, ops.sub(wide, ops.broadcast(ops.reshape(mean, (-1, 1)), wide.shape)))


def open_deviations(ops: Any, apart: Any, counts: Sequence[int], most: int) -> list[int]:
    """Open √(Σ_i v_i² / n) in thousandths, of v = apart [C, m] at f = 16 with no mean square above
    `most`."""
    rows = apart.shape[1]
    total = ops.dot(apart, apart, f=SQUARES_F)
    # no more than m means
    total = ops.within(total, 0, (rows * most + 1) << SQUARES_F)
    mean = ops.trunc(ops.scale(total, parts_of(counts), f=PART_F), SQUARES_F)
    # 1/n is off by 2^−13 of itself
    mean = ops.within(mean, 0, (most + (most >> 10) + 1) << SQUARES_F)
    bits = SQUARES_F + (most + (most >> 10) + 1).bit_length() + 1
    root = ops.sqrt(mean, f=SQUARES_F, bits=bits)
    return [int(value) for value in ops.open_rounded(ops.scale(root, 1000)).tolist()]


def spreads(
    ops: Any, values: Any, member: Any, sizes: Sequence[int | None], limits: tuple[int, int]
) -> list[int | None]:
    """Open the standard deviation of values [m] at f = 16, within the limits, in each cell of
    member [m, C] whose size is known; None for the others."""
    cells = [cell for cell, size in enumerate(sizes) if size is not None]
    answer: list[int | None] = [None] * len(sizes)
    if not cells:
        return answer
    counts = [int(sizes[cell] or 0) for cell in cells]
    inside = ops.transpose(ops.index(member, np.s_[:, np.array(cells)]))
    wide = ops.broadcast(ops.reshape(values, (1, -1)), inside.shape)
    apart = centred(ops, wide, inside, counts, limits)
    found = open_deviations(ops, apart, counts, (limits[1] - limits[0]) ** 2)
    for cell, value in zip(cells, found, strict=True):
        answer[cell] = value
    return answer
