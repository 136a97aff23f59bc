"""What training does when something has happened elsewhere. Harmless when repeated."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.training import running, services


def whitelist_executed(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """The roster may be complete: open a round."""
    services.round_open_if_ready(dao_id=payload["dao_id"], now=now)


def proposal_lost(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """A version that was not accepted is rejected."""
    if payload["kind"] == "training.accept_version" and payload["ref"]:
        running.version_reject(version_id=payload["ref"], now=now)
