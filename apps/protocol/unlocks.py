"""What a stake unlocks (paper §6.3).

    early access    a new model may be asked by those who have staked its SubDAO's token, before
                    everybody may
    forks           who has staked so much of a SubDAO's token may propose a fork of its model
    sponsorship     who has staked FLAI may pledge to a new request before everybody may

A party has it unlocked with a stake of at least `stake_bps` of the supply. In the first
`early_access_s` after a SubDAO's model went on sale for the first time only these may ask it, and
whoever submitted its request (§8.6); 0 means that everybody may from the start. Later versions
replace earlier ones for everybody at once: nobody's access ever stops. In the first `first_s` of a
crowdfund only stakers of FLAI may pledge, by what the SuperDAO has voted; 0 means everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from apps.protocol.money import BPS, mul_div_ceil

EARLY_ACCESS_S_MAX = 30 * 86_400
STAKE_BPS_MAX = 1_000
FIRST_S_MAX = 7 * 86_400


@dataclass(frozen=True)
class Unlocks:
    """Raises ValueError, naming the field, outside of its bounds."""

    early_access_s: int = 0
    stake_bps: int = 10

    def __post_init__(self) -> None:
        _check(self, ("early_access_s", 0, EARLY_ACCESS_S_MAX), ("stake_bps", 1, STAKE_BPS_MAX))


@dataclass(frozen=True)
class Sponsoring:
    """Of the SuperDAO. Raises ValueError, naming the field, outside of its bounds."""

    first_s: int = 0
    stake_bps: int = 1

    def __post_init__(self) -> None:
        _check(self, ("first_s", 0, FIRST_S_MAX), ("stake_bps", 1, STAKE_BPS_MAX))


def _check(rules: object, *bounds: tuple[str, int, int]) -> None:
    for name, least, most in bounds:
        value = getattr(rules, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} lies between {least} and {most}")


Rules = TypeVar("Rules", Unlocks, Sponsoring)


def unlocks_of(raw: Any) -> Unlocks:
    """From untrusted data with exactly its fields. Raises ValueError naming what."""
    return _rules_of(Unlocks, raw)


def sponsoring_of(raw: Any) -> Sponsoring:
    """As `unlocks_of`."""
    return _rules_of(Sponsoring, raw)


def _rules_of(kind: type[Rules], raw: Any) -> Rules:
    names = [field.name for field in fields(kind)]
    if not isinstance(raw, Mapping) or set(raw) != set(names):
        raise ValueError(f"give {', '.join(names)} and nothing else")
    return kind(**raw)


def needed_micro(rules: Unlocks | Sponsoring, *, supply_micro: int) -> int:
    """The least stake: ⌈supply · stake_bps / 10 000⌉, something in any case."""
    return max(mul_div_ceil(supply_micro, rules.stake_bps, BPS), 1)


def unlocked(rules: Unlocks | Sponsoring, *, staked_micro: int, supply_micro: int) -> bool:
    """staked > 0 and staked / supply ≥ stake_bps / 10 000."""
    return staked_micro >= needed_micro(rules, supply_micro=supply_micro)


def early(unlocks: Unlocks, *, opened_ms: int, at_ms: int) -> bool:
    """Is this still the time of early access?"""
    return at_ms < opened_ms + 1000 * unlocks.early_access_s


def first(sponsoring: Sponsoring, *, opened_ms: int, at_ms: int) -> bool:
    """Is this still the time in which stakers alone may pledge?"""
    return sponsoring.first_s > 0 and at_ms < opened_ms + 1000 * sponsoring.first_s
