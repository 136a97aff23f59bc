"""What the marketplace does when something has happened elsewhere. Harmless when repeated."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.listings.services import listing_open


def version_accepted(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """An accepted version goes on sale."""
    listing_open(version_id=payload["version_id"], now=now)
