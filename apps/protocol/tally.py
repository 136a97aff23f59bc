"""The life of a proposal, derived from facts and the clock; nothing here is ever stored.

    pending → active → defeated
                     → queued (timelock runs) → succeeded (may be executed) → executed
                                                                            → expired
    canceled from pending or active

Source: paper §6.5 and eq. 9; the rules are those of OpenZeppelin's Governor.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from apps.protocol.money import BPS, mul_div_floor
from apps.protocol.wire import digest

K = TypeVar("K", bound=Hashable)

PPM = 1_000_000
PROPOSAL_DOMAIN = "flai/proposal/v1"


# What the proposals of a DAO run by: of a SubDAO the log tells it at its founding.
RULES = (
    "voting_delay_s",
    "voting_period_s",
    "timelock_s",
    "late_quorum_s",
    "grace_s",
    "quorum_bps",
    "threshold_bps",
)
SUPERDAO_RULES = {
    "voting_delay_s": 0,
    "voting_period_s": 3 * 86_400,
    "timelock_s": 0,
    "late_quorum_s": 0,
    "grace_s": 7 * 86_400,
    "quorum_bps": 2_000,
    "threshold_bps": 5_000,
}
# A request's own times, in the vote that decides on it.
OWN_TIMES = ("voting_delay_s", "voting_period_s", "timelock_s")


def rules_of(params: Mapping[str, Any]) -> dict[str, int]:
    """A DAO's `RULES` out of its parameters. Raises LookupError, TypeError, ValueError."""
    return {name: int(params[name]) for name in RULES}


def payload_hash(*, dao: str, kind: str, payload: Mapping[str, Any]) -> str:
    """What exactly is voted on: the digest over the DAO's pid, the kind and the payload."""
    return digest(PROPOSAL_DOMAIN, {"dao": dao, "kind": kind, "payload": dict(payload)})


class State(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    CANCELED = "canceled"
    DEFEATED = "defeated"
    QUEUED = "queued"
    SUCCEEDED = "succeeded"
    EXECUTED = "executed"
    EXPIRED = "expired"


class Support(StrEnum):
    AGAINST = "against"
    FOR = "for"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides a proposal's state besides the time. Weights are integers ≥ 0 (micro-units)."""

    voting_starts_at: datetime
    voting_ends_at: datetime
    timelock_s: int
    grace_s: int
    quorum_bps: int
    threshold_bps: int
    total_weight: int
    for_weight: int = 0
    against_weight: int = 0
    abstain_weight: int = 0
    canceled_at: datetime | None = None
    executed_at: datetime | None = None


def quorum_reached(facts: Facts) -> bool:
    """(for + abstain) / total ≥ quorum, with the snapshot's total. No holders, no quorum."""
    present = facts.for_weight + facts.abstain_weight
    return facts.total_weight > 0 and present * BPS >= facts.quorum_bps * facts.total_weight


def vote_carried(facts: Facts) -> bool:
    """for > against, and for / (for + against) ≥ threshold: a tie is defeated."""
    cast = facts.for_weight + facts.against_weight
    return (
        facts.for_weight > facts.against_weight
        and facts.for_weight * BPS >= facts.threshold_bps * cast
    )


def execution_opens_at(facts: Facts) -> datetime:
    """The end of voting plus the timelock."""
    return facts.voting_ends_at + timedelta(seconds=facts.timelock_s)


def execution_closes_at(facts: Facts) -> datetime:
    """From here on a proposal that carried but was never executed is expired."""
    return execution_opens_at(facts) + timedelta(seconds=facts.grace_s)


def proposal_state(facts: Facts, now: datetime) -> State:
    """The state at `now`. Intervals are closed at their start and open at their end:
    a vote at exactly `voting_ends_at` is late."""
    if facts.executed_at is not None:
        return State.EXECUTED
    if facts.canceled_at is not None:
        return State.CANCELED
    if now < facts.voting_starts_at:
        return State.PENDING
    if now < facts.voting_ends_at:
        return State.ACTIVE
    if not (quorum_reached(facts) and vote_carried(facts)):
        return State.DEFEATED
    if now < execution_opens_at(facts):
        return State.QUEUED
    if now < execution_closes_at(facts):
        return State.SUCCEEDED
    return State.EXPIRED


def extended_deadline(
    *,
    voting_ends_at: datetime,
    voted_at: datetime,
    extension_s: int,
    had_quorum: bool,
    has_quorum: bool,
    already_extended: bool,
) -> datetime:
    """The deadline after a vote: the vote that first reaches the quorum leaves the others at
    least `extension_s` to answer it, once. `extension_s = 0` switches the rule off."""
    if had_quorum or not has_quorum or already_extended:
        return voting_ends_at
    return max(voting_ends_at, voted_at + timedelta(seconds=extension_s))


def voting_shares_ppm(points: Mapping[K, int]) -> dict[K, int]:
    """v_k = π_k / Σ_j π_j in parts per million, floored. For showing: votes are counted in π_k.

    Source: paper eq. 9. Σπ = 0 gives 0 for everyone. Raises ValueError for a negative π_k.
    """
    if any(value < 0 for value in points.values()):
        raise ValueError("points are ≥ 0")
    whole = sum(points.values())
    if whole == 0:
        return dict.fromkeys(points, 0)
    return {key: share_ppm(value, whole) for key, value in points.items()}


def share_ppm(part: int, whole: int) -> int:
    """One v_k of `voting_shares_ppm`; `whole` > 0."""
    return mul_div_floor(part, PPM, whole)
