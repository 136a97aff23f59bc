"""What happened to a proposal. `ref` is what its maker tied it to ("" for a member's own)."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class ProposalSucceeded(Event):
    proposal_id: str
    kind: str
    ref: str


@dataclass(frozen=True)
class ProposalExecuted(Event):
    proposal_id: str
    kind: str
    ref: str


@dataclass(frozen=True)
class ProposalDefeated(Event):
    proposal_id: str
    kind: str
    ref: str


@dataclass(frozen=True)
class ProposalExpired(Event):
    proposal_id: str
    kind: str
    ref: str


@dataclass(frozen=True)
class ProposalCanceled(Event):
    proposal_id: str
    kind: str
    ref: str
