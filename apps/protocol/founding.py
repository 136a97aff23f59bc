"""Who receives the SubDAO tokens (SDT) that an award mints.

Source: paper §6.2, §8.2, §8.6; shares are the RFM's terms. Micro-units throughout.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from apps.protocol.emission import schedule_of
from apps.protocol.money import BPS, mul_div_floor
from apps.protocol.revenue import policy_of
from apps.protocol.tally import rules_of
from apps.protocol.tickets import RING
from apps.protocol.unlocks import unlocks_of

K = TypeVar("K", bound=Hashable)
# Terms that the leaf of a founding did not say at first.
LATER = ("tiers", "rebate_bps", "epoch_s")


@dataclass(frozen=True, slots=True)
class SdtShares:
    """Parts of the supply in basis points; they add up to 10 000."""

    backers_bps: int = 6_000
    treasury_bps: int = 2_000
    reserve_bps: int = 1_500
    submitter_bps: int = 500

    def __post_init__(self) -> None:
        parts = (self.backers_bps, self.treasury_bps, self.reserve_bps, self.submitter_bps)
        if any(part < 0 for part in parts) or sum(parts) != BPS:
            raise ValueError("the shares of the SDT supply are ≥ 0 and add up to 10 000 bps")


@dataclass(frozen=True, slots=True)
class SdtAllocation(Generic[K]):
    """The division of one supply; `total` is the supply to the last micro-unit."""

    backers: dict[K, int]
    submitter: int
    reserve: int
    treasury: int

    @property
    def total(self) -> int:
        return sum(self.backers.values()) + self.submitter + self.reserve + self.treasury


def sdt_allocation(
    supply_micro: int, pledged: Mapping[K, int], shares: SdtShares
) -> SdtAllocation[K]:
    """backer_i = ⌊⌊S·b⌋ · pledge_i / Σ pledges⌋; submitter ⌊S·s⌋; reserve ⌊S·r⌋; the treasury
    takes its share and every remainder, so that the parts add up to S exactly.

    Raises ValueError for S ≤ 0, no pledge, or a pledge ≤ 0.
    """
    if supply_micro <= 0:
        raise ValueError("the supply is > 0")
    if not pledged or any(amount <= 0 for amount in pledged.values()):
        raise ValueError("at least one pledge, each > 0")
    for_backers = mul_div_floor(supply_micro, shares.backers_bps, BPS)
    raised = sum(pledged.values())
    backers = {key: mul_div_floor(for_backers, part, raised) for key, part in pledged.items()}
    submitter = mul_div_floor(supply_micro, shares.submitter_bps, BPS)
    reserve = mul_div_floor(supply_micro, shares.reserve_bps, BPS)
    treasury = supply_micro - sum(backers.values()) - submitter - reserve
    return SdtAllocation(backers, submitter, reserve, treasury)


def terms_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the log says of a SubDAO's parameters when it is founded: by these its members vote and
    are paid until a vote changes them."""
    return {
        "decay_ppm": int(params["decay_ppm"]),
        "rules": rules_of(params),
        "policy": asdict(policy_of(params)),
        "emission": asdict(schedule_of(params["emission"])),
        "unlocks": asdict(unlocks_of(params["unlocks"])),
        "plans": list(params["plans"]),
        "price_micro": str(params["price_micro"]),
        **({"privacy": dict(params["privacy"])} if params.get("privacy") else {}),
        **({"engine": params["engine"]} if params.get("engine", RING) != RING else {}),
        "tiers": list(params.get("tiers", [])),
        "rebate_bps": int(params.get("rebate_bps", 0)),
        "epoch_s": int(params["epoch_s"]),
    }


def shares_of(spec: Mapping[str, Any]) -> SdtShares:
    """As the terms of a checked request divide the supply."""
    terms = spec["terms"]
    return SdtShares(
        backers_bps=terms["backers_sdt_bps"],
        treasury_bps=terms["treasury_sdt_bps"],
        reserve_bps=terms["reserve_sdt_bps"],
        submitter_bps=terms["submitter_sdt_bps"],
    )


def accepted_pledge(amount_micro: int, *, raised_micro: int, target_micro: int) -> int:
    """min(amount, target − raised): what goes over the cap is not taken. 0 when full."""
    if amount_micro <= 0 or not 0 <= raised_micro <= target_micro:
        raise ValueError("a pledge is > 0 and 0 ≤ raised ≤ target")
    return min(amount_micro, target_micro - raised_micro)
