"""Which waiting queries a worker takes next, and how many workers may take at a time.

A query is never made to wait for company: whoever is free takes what is there. While all lanes are
busy others gather, and the next free lane takes them together.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

BUNDLE_MAX = 64
BUNDLE_ROWS_MAX = 1000  # as the circuit takes
LARGE_ROWS = 100
LANES = 2
PATIENCE = timedelta(seconds=5)


@dataclass(frozen=True)
class Waiting:
    """A query as the order of service sees it."""

    query_id: Hashable
    buyer_id: Hashable
    rows: int
    since: datetime


def pick(waiting: Sequence[Waiting], *, now: datetime) -> list[Waiting]:
    """The next bundle: at most BUNDLE_MAX queries of BUNDLE_ROWS_MAX rows in all.

    Who has waited for PATIENCE comes first, oldest first. Then turn by turn among buyers, the
    small before the large of each buyer and of each turn. A query of more than LARGE_ROWS rows is
    taken alone, so that no small one waits for it inside a bundle.
    """
    patient = [q for q in waiting if now - q.since >= PATIENCE]
    order = sorted(patient, key=lambda q: q.since)
    rest = [q for q in waiting if now - q.since < PATIENCE]
    turns: dict[Hashable, int] = defaultdict(int)
    ranked = []
    for query in sorted(rest, key=lambda q: (q.rows, q.since)):
        ranked.append((turns[query.buyer_id], query.rows, query.since, query))
        turns[query.buyer_id] += 1
    order += [query for *_, query in sorted(ranked, key=lambda entry: entry[:3])]
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


@dataclass
class _Lane:
    running: int = 0
    asked: bool = False


@dataclass
class Lanes:
    """At most LANES threads of this process serve one key; whoever finds them busy leaves word."""

    limit: int = LANES
    _lanes: dict[Hashable, _Lane] = field(default_factory=lambda: defaultdict(_Lane))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, key: Hashable, step: Callable[[], int]) -> int:
        """Call `step` until it does nothing and nobody has asked meanwhile. Returns what it did.

        Nothing that was there when somebody asked is left behind: a lane looks again before it
        goes.
        """
        with self._lock:
            lane = self._lanes[key]
            if lane.running >= self.limit:
                lane.asked = True
                return 0
            lane.running += 1
        done = 0
        try:
            while True:
                with self._lock:
                    lane.asked = False
                count = step()
                done += count
                with self._lock:
                    if not count and not lane.asked:
                        lane.running -= 1
                        return done
        except BaseException:
            with self._lock:
                lane.running -= 1
            raise
