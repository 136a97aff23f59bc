"""What wallets does about events of lower apps; flai_site/wiring.py ties them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.accounts.models import PartyKey
from apps.core.transactions import durable
from apps.wallets import log


def signing_key_bound(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """Leaf "accounts.signing_key" with the key and its proof of possession; once a key."""
    with durable():
        key = PartyKey.objects.select_for_update(of=("self",)).select_related("party")
        bound = key.get(id=payload["key_id"])
        if log.leaf_for("accounts.signing_key", bound.id) is None:
            body = {
                "id": str(bound.id),
                "pid": bound.party.pid,
                "public_key": bound.public_key,
                "signature": bound.signature,
            }
            log.append("accounts.signing_key", body, now=now)
