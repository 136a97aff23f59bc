"""What has happened in training."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class RoundOpened(Event):
    round_id: str
    dao_id: str


@dataclass(frozen=True)
class RoundClosed(Event):
    """Done, void or failed; the phase says which."""

    round_id: str
    dao_id: str


@dataclass(frozen=True)
class VersionAccepted(Event):
    version_id: str
    dao_id: str


@dataclass(frozen=True)
class VersionRejected(Event):
    version_id: str
    dao_id: str
