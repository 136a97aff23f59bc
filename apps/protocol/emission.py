"""How a SubDAO's reserve of tokens comes out, and what soul-bound points are worth in them.

    released in epoch n   E_n = ⌊ρ · R_n⌋                    R_n: what the reserve has left
    divided               ⌊E·c⌋ contributors, ⌊E·s⌋ sponsors, the treasury all the rest
    conversion            ⌊x / Σ_j π_j · P⌋                   x points given up, P their pot
    a sponsor's part      ⌊p_i / Σ_j p_j · S⌋ − taken_i       p: pledges, S: all sponsors' parts

Source: paper §6.2, which names the three classes and leaves the schedule to the SubDAO. A part of
what is left can't exceed it, whatever is voted: Σ E_n ≤ R_1, the reserve within the supply's cap.
A conversion weighs points as eq. 9 weighs votes. It never lowers the price P / Σπ of those who
keep theirs: P − ⌊xP/Π⌋ ≥ P·(Π − x)/Π. So nobody gains by being first, and nobody needs to hurry.
Micro-units and micro-points, integers only; shares in basis points (1/10 000).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from apps.protocol.money import BPS, mul_div_floor

RATE_BPS_MAX = 1_000
CONVERTIBLE_BPS_MAX = 5_000


@dataclass(frozen=True)
class Schedule:
    """What a SubDAO's token holders decide about the reserve.

    rate_bps: ρ, at most a tenth each epoch. convertible_bps: the part of a member's points that may
    be given up between two emissions, at most half, so that somebody is always left to vote.

    Raises ValueError, naming the field, outside of that.
    """

    rate_bps: int = 200
    contributors_bps: int = 6_000
    sponsors_bps: int = 2_000
    treasury_bps: int = 2_000
    convertible_bps: int = 2_500

    def __post_init__(self) -> None:
        for name, most in (
            ("rate_bps", RATE_BPS_MAX),
            ("contributors_bps", BPS),
            ("sponsors_bps", BPS),
            ("treasury_bps", BPS),
            ("convertible_bps", CONVERTIBLE_BPS_MAX),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise ValueError(f"{name} lies between 0 and {most}")
        if self.contributors_bps + self.sponsors_bps + self.treasury_bps != BPS:
            raise ValueError(f"the three classes' shares sum to {BPS}")


FIELDS = tuple(field.name for field in fields(Schedule))


def schedule_of(raw: Any) -> Schedule:
    """A schedule from untrusted data with exactly its fields. Raises ValueError naming what."""
    if not isinstance(raw, Mapping) or set(raw) != set(FIELDS):
        raise ValueError(f"give {', '.join(FIELDS)} and nothing else")
    return Schedule(**raw)


@dataclass(frozen=True)
class Emission:
    """What one epoch releases; `total` is the sum of the three to the last micro-unit."""

    contributors: int
    sponsors: int
    treasury: int

    @property
    def total(self) -> int:
        return self.contributors + self.sponsors + self.treasury


def emission(reserve_micro: int, schedule: Schedule) -> Emission:
    """E = ⌊ρ · R⌋, divided by floors; the treasury keeps what they leave over."""
    whole = mul_div_floor(reserve_micro, schedule.rate_bps, BPS)
    contributors = mul_div_floor(whole, schedule.contributors_bps, BPS)
    sponsors = mul_div_floor(whole, schedule.sponsors_bps, BPS)
    return Emission(contributors, sponsors, whole - contributors - sponsors)


def course(reserve_micro: int, schedule: Schedule, epochs: int) -> list[int]:
    """What is left after each of the next `epochs` epochs, should the schedule stay as it is."""
    left = []
    for _ in range(epochs):
        reserve_micro -= emission(reserve_micro, schedule).total
        left.append(reserve_micro)
    return left


def converted(points_micro: int, *, all_points_micro: int, pot_micro: int) -> int:
    """⌊x / Σπ · P⌋ tokens for x points.

    Raises ValueError unless 0 < x ≤ Σπ and P ≥ 0.
    """
    if not 0 < points_micro <= all_points_micro:
        raise ValueError("points are > 0, and no more than there are")
    return mul_div_floor(pot_micro, points_micro, all_points_micro)


def convertible(points_micro: int, *, done_micro: int, schedule: Schedule) -> int:
    """Points that a member may still give up until the next emission.

    ⌊(π + done) · share⌋ − done, at least 0: π is what is left after the `done` of this period.
    """
    may = mul_div_floor(points_micro + done_micro, schedule.convertible_bps, BPS)
    return min(max(may - done_micro, 0), points_micro)


def sponsor_due(
    pledged_micro: int, *, all_pledged_micro: int, emitted_micro: int, taken_micro: int
) -> int:
    """⌊p / Σp · S⌋ − taken: what a sponsor may take now; floors of a growing sum only grow.

    Raises ValueError unless 0 < p ≤ Σp and the other amounts are ≥ 0.
    """
    if not 0 < pledged_micro <= all_pledged_micro or taken_micro < 0:
        raise ValueError("a pledge is > 0, and no more than all of them")
    return max(mul_div_floor(emitted_micro, pledged_micro, all_pledged_micro) - taken_micro, 0)
