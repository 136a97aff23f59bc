"""What participants do when something happened elsewhere; tied in flai_site/wiring.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.participants import services


def subdao_founded(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """subdaos.SubdaoFounded: its members vote on the first whitelist."""
    services.whitelist_propose(dao_id=payload["dao_id"], now=now)
