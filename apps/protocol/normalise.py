"""Mean and deviation of the federation from its totals (paper eq. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from apps.protocol.wire import digest

CONSTANTS_DOMAIN = "flai/normalisation/v1"
SUMS_F = 20
# Each site rounds its sums to half a unit at f = 20; so many sites may round the same way. A
# variance that rounding alone could make says nothing, and dividing by it would amplify noise.
ROUNDING = 64 * 2.0**-21


def normalisation(sums: Sequence[int | str], features: int) -> tuple[list[float], list[float]]:
    """μ_j = Σx_j / n, σ_j² = (Σx_j² − n·μ_j²) / (n − 1); exact until the last square root.

    sums: what `moments` opens: [n, Σx_1…Σx_d, Σx_1²…Σx_d²] as integers, value · 2^20.
    Returns (mean, std); std is 1 where the variance is no more than rounding could make.
    Raises: ValueError for a wrong length, fewer than two rows, or sums that no rows have.
    """
    if len(sums) != 1 + 2 * features:
        raise ValueError("the sums do not fit the number of features")
    values = [Fraction(int(value), 1 << SUMS_F) for value in sums]
    count = values[0]
    if count < 2:
        raise ValueError("at least two rows are needed")
    mean, std = [], []
    columns = zip(values[1 : 1 + features], values[1 + features :], strict=True)
    for column, (total, squares) in enumerate(columns, 1):
        centre = total / count
        variance = float((squares - count * centre * centre) / (count - 1))
        floor = ROUNDING * (1 + 2 * abs(float(centre))) / (float(count) - 1)
        if variance < -floor:
            raise ValueError(
                f"no rows have the sums of column {column}, so some site shared others than "
                "those of its rows"
            )
        mean.append(float(centre))
        std.append(math.sqrt(variance) if variance > floor else 1.0)
    return mean, std


def public_constants(sums: Sequence[int | str], features: int) -> dict[str, Any]:
    """What a round publishes of `normalisation`: {"f", "mean", "std"}, integers at f = 20.

    features: encoded columns. The sums are of the first of them, which are numbers; the others are
    levels', whose mean is 0 and deviation 1 (encoding.py). Whoever has the receipted sums computes
    the same, so nobody need be believed. A deviation below the grid is one step of it, since sites
    divide by it. Raises: ValueError.
    """
    numbers = numbers_in(sums)
    if numbers > features:
        raise ValueError("the sums do not fit the number of features")
    mean, std = normalisation(sums, numbers)
    levels = features - numbers
    return {
        "f": SUMS_F,
        "mean": [round(value * 2**SUMS_F) for value in mean] + [0] * levels,
        "std": [max(1, round(value * 2**SUMS_F)) for value in std] + [1 << SUMS_F] * levels,
    }


def numbers_in(sums: Sequence[int | str]) -> int:
    """Of how many columns these are the sums."""
    return (len(sums) - 1) // 2


def constants_digest(constants: Mapping[str, Any]) -> str:
    """Hex name of public constants: what the tickets of all who encode by them carry."""
    return digest(CONSTANTS_DOMAIN, {name: constants[name] for name in ("f", "mean", "std")})
