"""Wait for a query to end without asking the database again and again.

Whoever ends a query notifies PostgreSQL in the same transaction; a lost connection costs a waiter
its timeout, nothing else.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

from django.db import connection

from apps.accounts.models import Party
from apps.core.errors import DomainError, NotFound
from apps.core.notes import Listener
from apps.listings.channels import ENDED_CHANNEL
from apps.listings.models import Query
from apps.listings.selectors import ENDED, query_ended, query_get

# A request that waits keeps its thread (flai_site.threads has 256): some are always left for those
# that don't, and one party takes only a part.
SEATS_MAX = 192
PARTY_SEATS_MAX = 64


class QueryLost(DomainError):
    """The database fell before what it had said of a hold was on its disk (ADR 24)."""

    code = "query_lost"
    status = 503
    text = "The server lost this query before anybody answered it. Nothing was charged: ask again."


class Waiters:
    """Whoever waits in this process, by query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._seats: Counter[UUID] = Counter()
        self._listener = Listener(ENDED_CHANNEL, self._wake)

    @contextmanager
    def seated(self, party: Party, wait_s: int) -> Iterator[int]:
        """How long this request may wait: as it asked, or not at all where as many wait as may."""
        with self._lock:
            free = self._seats.total() < SEATS_MAX and self._seats[party.id] < PARTY_SEATS_MAX
            self._seats[party.id] += 1 if wait_s and free else 0
        try:
            yield wait_s if free else 0
        finally:
            with self._lock:
                self._seats[party.id] -= 1 if wait_s and free else 0
                if not self._seats[party.id]:
                    del self._seats[party.id]

    @contextmanager
    def registered(self, query_id: UUID) -> Iterator[threading.Event]:
        """An event that is set when the query ends; register first, then look, or make it."""
        event, name = threading.Event(), str(query_id)
        with self._lock:
            self._waiting[name].add(event)
        try:
            self._listener.listen()
            yield event
        finally:
            with self._lock:
                self._waiting[name].discard(event)
                if not self._waiting[name]:
                    del self._waiting[name]

    def close(self) -> None:
        """Stop listening; for whoever takes the database away."""
        self._listener.close()

    def _wake(self, query_id: str) -> None:
        with self._lock:
            for event in self._waiting.get(query_id, ()):
                event.set()


waiters = Waiters()


def ended_within(party: Party, query_id: UUID, wait_s: int) -> Query:
    """The buyer's query once it has ended or `wait_s` have passed. Raises NotFound.

    Holds no database connection meanwhile.
    """
    query = query_get(party, query_id)
    if not wait_s or query.state in ENDED:
        return query
    with waiters.registered(query_id) as ended:
        # It may have ended before we were listening.
        if not query_ended(query_id):
            _wait(ended, wait_s)
    return query_get(party, query_id)


def made_and_ended_within(party: Party, make: Callable[[UUID], UUID], wait_s: int) -> Query:
    """The same of a query that `make` makes under the id that it is handed, or made earlier, when
    it returns that one's: who listens before need not look whether it has ended since. Raises
    QueryLost."""
    new_id = uuid4()
    if not wait_s:
        return query_get(party, make(new_id))
    with waiters.registered(new_id) as ended:
        query_id = make(new_id)
        if query_id == new_id:
            _wait(ended, wait_s)
            try:
                return query_get(party, new_id)
            except NotFound:
                raise QueryLost(retry_after_s=1) from None
    return ended_within(party, query_id, wait_s)


def _wait(ended: threading.Event, wait_s: int) -> None:
    connection.close()
    ended.wait(wait_s)
