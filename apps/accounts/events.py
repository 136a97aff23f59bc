"""Events of accounts."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from apps.core.events import Event


@dataclass(frozen=True)
class SigningKeyBound(Event):
    """A party has bound a signing key."""

    key_id: UUID
    party_id: UUID
