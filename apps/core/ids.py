"""Ids that a caller's retry must find again."""

from __future__ import annotations

import uuid


def effect_of(party_id: uuid.UUID, operation: str, given: uuid.UUID | None) -> uuid.UUID:
    """The id of what `party_id` does by `operation`, fixed by the id that the caller gave for it.

    A given id is never used as it is: some ids are derived from public ones (the refund of a
    pledge, the resolution of a hold), and whoever could take one of those first would block that
    transfer for ever. Without a given id: a new one.
    """
    return uuid.uuid5(party_id, f"flai/{operation}/{given}") if given else uuid.uuid4()
