"""What training does when something has happened elsewhere. Harmless when repeated."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.training import running, services
from apps.training.models import ModelVersion, Phase, Round


def whitelist_executed(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """The roster may be complete: open a round."""
    services.round_open_if_ready(dao_id=payload["dao_id"], now=now)


def nodes_succeeded(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """What the old set made, the new one keeps: its models are asked there from now on."""
    kept = Round.objects.filter(nodes=payload["old"]).exclude(phase__in=(Phase.VOID, Phase.FAILED))
    kept.update(nodes=payload["new"])


def model_reshared(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """The model that a round made is asked where it lives now, and as it lives there."""
    made = ModelVersion.objects.filter(model=payload["model"]).values("round")
    engine = {"engine": payload["engine"]} if payload.get("engine") else {}
    Round.objects.filter(pk__in=made).update(nodes=payload["nodes"], **engine)


def proposal_lost(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """A version that was not accepted is rejected."""
    if payload["kind"] == "training.accept_version" and payload["ref"]:
        running.version_reject(version_id=payload["ref"], now=now)
