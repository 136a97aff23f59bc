"""Kinds of proposals that decide who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.participants import services
from apps.participants.models import Application
from apps.subdaos.models import Dao

Status = Application.Status


@action(services.WHITELIST, house="sbgt")
class Whitelist:
    """{"applications": [ids]}: admit verified applications, or removed members, to the rounds."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        rows = _named(payload, dao)
        if any(row.status not in (Status.VERIFIED, Status.REMOVED) for row in rows):
            raise BadInput("not_verified", "Only verified, undecided applications are admitted.")
        return {"applications": sorted(str(row.id) for row in rows)}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return _changes(_rows(payload["applications"], dao), Status.WHITELISTED)

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.whitelist(
            dao=dao,
            application_ids=payload["applications"],
            proposal_id=proposal_id,
            now=now,
        )


@action(services.REMOVE, house="sbgt")
class Remove:
    """{"applications": [ids]}: whitelisted members take no part in later rounds."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        rows = _named(payload, dao)
        if any(row.status != Status.WHITELISTED for row in rows):
            raise BadInput("not_whitelisted", "Only whitelisted members can be removed.")
        return {"applications": sorted(str(row.id) for row in rows)}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return _changes(_rows(payload["applications"], dao), Status.REMOVED)

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.remove(
            dao=dao,
            application_ids=payload["applications"],
            proposal_id=proposal_id,
            now=now,
        )


def _named(payload: Payload, dao: Dao) -> list[Application]:
    """The applications to this SubDAO that a payload lists. Raises BadInput."""
    ids = payload.get("applications")
    if set(payload) != {"applications"} or not isinstance(ids, list):
        raise BadInput("bad_payload", "Give applications, a list of ids, and nothing else.")
    if not 1 <= len(ids) <= services.LIST_MAX or not all(isinstance(one, str) for one in ids):
        raise BadInput("bad_payload", f"Name 1 to {services.LIST_MAX} applications by their ids.")
    rows = _rows(ids, dao)
    if len(rows) != len(set(ids)):
        raise BadInput("unknown_application", "An application is not one to this SubDAO.")
    return rows


def _changes(rows: Sequence[Application], after: Application.Status) -> list[dict[str, Any]]:
    return [
        {
            "label": f"{row.party.name} ({row.role}, {row.attestation['rows']} rows)",
            "before": row.status.value,
            "after": after.value,
        }
        for row in rows
    ]


def _rows(ids: list[str], dao: Dao) -> list[Application]:
    try:
        wanted = [UUID(one) for one in ids]
    except ValueError:
        raise BadInput("bad_payload", "An id is no UUID.") from None
    return list(
        Application.objects.filter(id__in=wanted, call__dao=dao)
        .select_related("party")
        .order_by("role", "party__slug")
    )
