"""What happened to a Request-for-Model."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class RfmSubmitted(Event):
    rfm_id: str
    proposal_id: str


@dataclass(frozen=True)
class RfmApproved(Event):
    rfm_id: str
    proposal_id: str


@dataclass(frozen=True)
class RfmRejected(Event):
    rfm_id: str
    proposal_id: str


@dataclass(frozen=True)
class CrowdfundFilled(Event):
    rfm_id: str


@dataclass(frozen=True)
class RfmAwarded(Event):
    rfm_id: str
    dao_id: str


@dataclass(frozen=True)
class RfmFailed(Event):
    rfm_id: str
