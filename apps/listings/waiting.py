"""Wait for a query to end without asking the database again and again.

Whoever ends a query notifies PostgreSQL in the same transaction; a lost connection costs a waiter
its timeout, nothing else.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any
from uuid import UUID

from django.db import connection

from apps.accounts.models import Party
from apps.core.notes import Listener
from apps.listings.channels import ENDED_CHANNEL
from apps.listings.models import Query
from apps.listings.selectors import ENDED, query_ended, query_get


class Waiters:
    """Whoever waits in this process, by query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._listener = Listener(ENDED_CHANNEL, self._wake)

    def register(self, query_id: Any) -> threading.Event:
        """An event that is set when the query ends; register first, then read the row."""
        event = threading.Event()
        with self._lock:
            self._waiting[str(query_id)].add(event)
        self._listener.listen()
        return event

    def forget(self, query_id: Any, event: threading.Event) -> None:
        with self._lock:
            waiting = self._waiting.get(str(query_id))
            if waiting is not None:
                waiting.discard(event)
                if not waiting:
                    del self._waiting[str(query_id)]

    def close(self) -> None:
        """Stop listening; for whoever takes the database away."""
        self._listener.close()

    def _wake(self, query_id: str) -> None:
        with self._lock:
            for event in self._waiting.get(query_id, ()):
                event.set()


waiters = Waiters()


def ended_within(
    party: Party, query_id: UUID, wait_s: int, *, new: bool = False
) -> tuple[Query, int]:
    """The buyer's query once it has ended or `wait_s` have passed, and what was waited at most.

    Holds no database connection meanwhile. `new`: it was made just now, is the buyer's, and will
    hardly have ended. Raises NotFound.
    """
    if not new or not wait_s:
        query = query_get(party, query_id)
        if not wait_s or query.state in ENDED:
            return query, wait_s
    ended = waiters.register(query_id)
    try:
        # It may have ended before we were listening.
        if not query_ended(query_id):
            connection.close()
            ended.wait(wait_s)
    finally:
        waiters.forget(query_id, ended)
    return query_get(party, query_id), wait_s
