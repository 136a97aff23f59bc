"""What staked tokens of a SubDAO unlock (paper §6.3): asking a new model before everybody may.

A party has it unlocked with a stake of at least `stake_bps` of the supply. In the first
`early_access_s` after a SubDAO's model went on sale for the first time only these may ask it, and
whoever submitted its request (§8.6); 0 means that everybody may from the start. Later versions
replace earlier ones for everybody at once: nobody's access ever stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from apps.protocol.money import BPS

EARLY_ACCESS_S_MAX = 30 * 86_400
STAKE_BPS_MAX = 1_000


@dataclass(frozen=True)
class Unlocks:
    """Raises ValueError, naming the field, outside of its bounds."""

    early_access_s: int = 0
    stake_bps: int = 10

    def __post_init__(self) -> None:
        for name, least, most in (
            ("early_access_s", 0, EARLY_ACCESS_S_MAX),
            ("stake_bps", 1, STAKE_BPS_MAX),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} lies between {least} and {most}")


FIELDS = tuple(field.name for field in fields(Unlocks))


def unlocks_of(raw: Any) -> Unlocks:
    """From untrusted data with exactly its fields. Raises ValueError naming what."""
    if not isinstance(raw, Mapping) or set(raw) != set(FIELDS):
        raise ValueError(f"give {', '.join(FIELDS)} and nothing else")
    return Unlocks(**raw)


def unlocked(unlocks: Unlocks, *, staked_micro: int, supply_micro: int) -> bool:
    """staked > 0 and staked / supply ≥ stake_bps / 10 000."""
    return staked_micro > 0 and staked_micro * BPS >= supply_micro * unlocks.stake_bps


def early(unlocks: Unlocks, *, opened_ms: int, at_ms: int) -> bool:
    """Is this still the time of early access?"""
    return at_ms < opened_ms + 1000 * unlocks.early_access_s
