"""Which waiting queries a worker takes next, and how many workers may take at a time.

While nothing is under way a query does not wait for company. While a bundle is, others gather, and
are taken together when it has ended; or by another lane if it takes long.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

BUNDLE_MAX = 64
BUNDLE_ROWS_MAX = 1000  # as the circuit takes
LARGE_ROWS = 100
HUGE_ROWS = 1000  # as in migrations/hold.sql
LANES = 2
GATHER_S = 0.1  # longer than nodes nearby take for a bundle of small queries
PATIENCE = timedelta(seconds=5)
SERVED_MAX = 10_000  # buyers that are remembered


@dataclass(frozen=True)
class Waiting:
    """A query as the order of service sees it."""

    query_id: Hashable
    buyer_id: Hashable
    rows: int
    since: datetime


def pick(
    waiting: Sequence[Waiting], *, now: datetime, served: Mapping[Hashable, int] | None = None
) -> list[Waiting]:
    """The next bundle: at most BUNDLE_MAX queries of BUNDLE_ROWS_MAX rows in all.

    Who has waited for PATIENCE comes first, turn by turn among buyers, each buyer's oldest first;
    of the buyers in a turn those who were `served` longest ago (the least number; none: never).
    Then the others, turn by turn too, the small before the large of each buyer and of each turn. A
    query of more than LARGE_ROWS rows is taken alone, so that no small one waits for it inside a
    bundle.
    """
    patient = sorted((q for q in waiting if now - q.since >= PATIENCE), key=lambda q: q.since)
    last = served or {}
    order = _in_turns(patient, lambda q: (last.get(q.buyer_id, 0), q.since))
    rest = [q for q in waiting if now - q.since < PATIENCE]
    rest.sort(key=lambda q: (q.rows, q.since))
    order += _in_turns(rest, lambda q: (q.rows, q.since))
    if order and order[0].rows > LARGE_ROWS:
        return order[:1]
    chosen: list[Waiting] = []
    rows = 0
    for query in order:
        fits = query.rows <= LARGE_ROWS and rows + query.rows <= BUNDLE_ROWS_MAX
        if fits and len(chosen) < BUNDLE_MAX:
            chosen.append(query)
            rows += query.rows
    return chosen


def _in_turns(queries: Sequence[Waiting], place: Callable[[Waiting], Any]) -> list[Waiting]:
    """Each buyer's first of these, then each one's second, …; within a turn by their place."""
    turns: dict[Hashable, int] = defaultdict(int)
    ranked = []
    for query in queries:
        ranked.append((turns[query.buyer_id], place(query), query))
        turns[query.buyer_id] += 1
    return [query for *_, query in sorted(ranked, key=lambda entry: entry[:2])]


class Turns:
    """Whom this process has served, in which order: a large query is a bundle of its own, so turns
    go on from one bundle to the next. Of a model one query of more than HUGE_ROWS rows is computed
    at a time, so that a lane is left to the others."""

    def __init__(self) -> None:
        self._served: dict[Hashable, int] = {}
        self._huge: dict[Hashable, Hashable] = {}  # the one under way, by model
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def pick(
        self, waiting: Sequence[Waiting], *, now: datetime, model: Hashable = None
    ) -> list[Waiting]:
        """As `pick`, of queries of this model; who is chosen was served then. `done` says when."""
        with self._lock:
            if model in self._huge:  # whose lane looks again before it goes
                waiting = [q for q in waiting if q.rows <= HUGE_ROWS]
            chosen = pick(waiting, now=now, served=self._served)
            self._served |= {q.buyer_id: next(self._numbers) for q in chosen}
            if len(self._served) > SERVED_MAX:
                self._served.clear()
            if chosen and chosen[0].rows > HUGE_ROWS:
                self._huge[model] = chosen[0].query_id
        return chosen

    def patience_s(self, model: Hashable) -> float:
        """How long a query may wait for what is under way of this model: not for a large one."""
        with self._lock:
            return 0.0 if model in self._huge else GATHER_S

    def done(self, model: Hashable, query_ids: Sequence[Hashable]) -> None:
        """These have been computed, or not."""
        with self._lock:
            if self._huge.get(model) in query_ids:
                del self._huge[model]


@dataclass
class _Lane:
    running: int = 0
    asked: bool = False
    waited_for: bool = False


@dataclass
class Lanes:
    """At most LANES threads of this process serve one key; whoever finds them busy leaves word.

    One of those who come while others serve waits for them to see it, `patience_s` at most, and
    opens another lane then. Each bundle costs nodes, worker and database as much as some ten of its
    queries, so that two small ones cost more than they save where all share a machine.
    """

    limit: int = LANES
    _lanes: dict[Hashable, _Lane] = field(default_factory=lambda: defaultdict(_Lane))
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def idle(self, key: Hashable) -> bool:
        with self._changed:
            return not self._lanes[key].running

    def serve(self, key: Hashable, step: Callable[[], int], *, patience_s: float = 0.0) -> int:
        """Call `step` until it does nothing and nobody has asked meanwhile. Returns what it did.

        Nothing that was there when somebody asked is left behind: a lane looks again before it
        goes.
        """
        with self._changed:
            lane = self._lanes[key]
            if lane.running and patience_s and self._seen(lane, patience_s):
                return 0
            if lane.running >= self.limit:
                lane.asked = True
                return 0
            lane.running += 1
        done = 0
        try:
            while True:
                with self._changed:
                    lane.asked = False
                    self._changed.notify_all()
                count = step()
                done += count
                with self._changed:
                    if not count and not lane.asked:
                        lane.running -= 1
                        return done
        except BaseException:
            with self._changed:
                lane.running -= 1
            raise

    def _seen(self, lane: _Lane, patience_s: float) -> bool:
        """Leave word; one waits for all until a lane has seen it. Whether nothing is left to do."""
        lane.asked = True
        if lane.waited_for:
            return True
        lane.waited_for = True
        seen = self._changed.wait_for(lambda: not lane.asked, patience_s)
        lane.waited_for = False
        return seen
