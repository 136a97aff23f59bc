"""Kinds of proposals that decide who takes part."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.participants import services
from apps.participants.models import Application
from apps.subdaos.models import Dao


@action(services.WHITELIST, house="sbgt")
class Whitelist:
    """{"applications": [ids]}: admit verified applications to the SubDAO's rounds."""

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        ids = payload.get("applications")
        if set(payload) != {"applications"} or not isinstance(ids, list):
            raise BadInput("bad_payload", "Give applications, a list of ids, and nothing else.")
        if not 1 <= len(ids) <= services.LIST_MAX or not all(isinstance(one, str) for one in ids):
            raise BadInput(
                "bad_payload", f"Name 1 to {services.LIST_MAX} applications by their ids."
            )
        rows = _rows(ids, dao)
        if len(rows) != len(set(ids)):
            raise BadInput("unknown_application", "An application is not one to this SubDAO.")
        if any(row.status != Application.Status.VERIFIED for row in rows):
            raise BadInput("not_verified", "Only verified, undecided applications are admitted.")
        return {"applications": sorted(str(row.id) for row in rows)}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        return [
            {
                "label": f"{row.party.name} ({row.role}, {row.attestation['rows']} rows)",
                "before": row.status.value,
                "after": Application.Status.WHITELISTED.value,
            }
            for row in _rows(payload["applications"], dao)
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.whitelist(
            dao=dao,
            application_ids=payload["applications"],
            proposal_id=proposal_id,
            now=now,
        )


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
