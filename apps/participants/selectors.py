"""Reads of calls, applications and rosters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from apps.accounts.models import Party
from apps.participants.models import Application, Call, Role
from apps.subdaos.models import Dao


@dataclass(frozen=True)
class Member:
    """One whitelisted member of a SubDAO, with the key that its application was signed by."""

    application_id: UUID
    party: Party
    role: str
    public_key: str


def roster(dao: Dao) -> list[Member]:
    """The whitelisted members, sorted by (role, key) as the protocol's roster wants them."""
    rows = (
        Application.objects.filter(call__dao=dao, whitelisted_at__isnull=False, removed_at=None)
        .select_related("party")
        .order_by("role", "public_key")
    )
    return [Member(row.id, row.party, row.role, row.public_key) for row in rows]


def applications(call: Call) -> QuerySet[Application]:
    return Application.objects.filter(call=call).select_related("party").order_by("filed_at", "id")


def verified(call: Call) -> QuerySet[Application]:
    """Verified and not yet decided on."""
    return applications(call).filter(whitelisted_at=None, rejected_at=None)


def counts(call: Call) -> dict[str, int]:
    """{"custodian": n, "validator": m} of applications that stand."""
    standing = applications(call).filter(rejected_at=None, removed_at=None)
    roles = Counter(standing.values_list("role", flat=True))
    return {role.value: roles[role.value] for role in Role}


def application_of(call: Call, party: Party | None) -> Application | None:
    return applications(call).filter(party=party).first() if party else None


def describe(application: Application) -> dict[str, Any]:
    """As the API gives it; the attestation holds no row and no count below five."""
    return {
        "id": str(application.id),
        "party": {
            "slug": application.party.slug,
            "name": application.party.name,
            "pid": application.party.pid,
        },
        "role": application.role,
        "status": application.status.value,
        "public_key": application.public_key,
        "attestation": application.attestation,
        "signature": application.signature,
        "filed_at": application.filed_at,
        "whitelisted_at": application.whitelisted_at,
    }
