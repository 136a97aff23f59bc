"""What happened to applications."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class ApplicationVerified(Event):
    application_id: str
    call_id: str


@dataclass(frozen=True)
class WhitelistExecuted(Event):
    dao_id: str
    proposal_id: str
