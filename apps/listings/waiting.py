"""Wait for a query to end without asking the database again and again.

Whoever ends a query notifies PostgreSQL in the same transaction; one thread a process listens and
wakes whoever waits here. A lost connection costs a waiter its timeout, nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from typing import Any
from uuid import UUID

import psycopg
from django.db import connection

from apps.accounts.models import Party
from apps.listings.models import Query
from apps.listings.selectors import ENDED, query_ended, query_get

logger = logging.getLogger(__name__)
CHANNEL = "flai_query"
RECONNECT_S = 1.0


def announce(*query_ids: Any) -> None:
    """Wake the waiters of these queries when the present transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_notify(%s, id) FROM unnest(%s::text[]) AS id",
            [CHANNEL, [str(query_id) for query_id in query_ids]],
        )


class Waiters:
    """One listening thread for all waiting requests of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._stop = threading.Event()

    def register(self, query_id: Any) -> threading.Event:
        """An event that is set when the query ends; register first, then read the row."""
        event = threading.Event()
        with self._lock:
            self._waiting[str(query_id)].add(event)
            if self._thread is None or not self._thread.is_alive():
                self._listening.clear()
                parameters = connection.get_connection_params()
                self._thread = threading.Thread(
                    target=self._listen, args=(parameters,), name="query-waiters", daemon=True
                )
                self._thread.start()
        self._listening.wait(RECONNECT_S)
        return event

    def forget(self, query_id: Any, event: threading.Event) -> None:
        with self._lock:
            waiting = self._waiting.get(str(query_id))
            if waiting is not None:
                waiting.discard(event)
                if not waiting:
                    del self._waiting[str(query_id)]

    def close(self) -> None:
        """Stop listening and give the connection back; for whoever takes the database away."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            announce("")  # so that it sees that it is to stop
            thread.join()
        self._stop.clear()

    def _listen(self, parameters: dict[str, Any]) -> None:
        known = {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context")}
        known.pop("prepare_threshold", None)
        while not self._stop.is_set():
            try:
                with psycopg.connect(**known, autocommit=True) as link:
                    link.execute(f"LISTEN {CHANNEL}")
                    self._listening.set()
                    for note in link.notifies():
                        self._wake(note.payload)
                        if self._stop.is_set():
                            return
            except psycopg.Error as error:
                logger.warning("waiting for queries: %s", type(error).__name__)
            self._listening.clear()
            self._stop.wait(RECONNECT_S)

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
