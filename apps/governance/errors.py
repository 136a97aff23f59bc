"""What a vote may be refused for besides its rules."""

from __future__ import annotations

from apps.core.errors import DomainError


class SnapshotWaits(DomainError):
    code = "snapshot_waits"
    status = 503
    text = (
        "Votes are weighed by what everybody had when voting began, and the last payments of that "
        "moment are still being written. Try again in a few seconds; nothing was counted."
    )
