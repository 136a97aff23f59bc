"""How well listings have served: what paid queries themselves have measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from apps.listings.models import Query
from apps.listings.running import CANCELLED

WINDOW = timedelta(days=30)
QUERIES_MAX = 500  # the newest of a listing that are looked at


@dataclass(frozen=True)
class Served:
    """Of the newest queries of the last 30 days, at most QUERIES_MAX.

    ended: those that were answered or given back, but for what buyers cancelled; answered_bps: the
    answered among them; p50_ms and p95_ms: from the request to the paid answer.
    """

    ended: int = 0
    answered_bps: int | None = None
    p50_ms: int | None = None
    p95_ms: int | None = None


def served(listing_ids: Iterable[Any], *, now: datetime) -> dict[Any, Served]:
    """{listing id: how it served}, for a handful of listings, by one statement."""
    recent = [
        Query.objects.filter(listing=id_, ended_at__gt=now - WINDOW)
        .exclude(state=Query.State.RELEASED, reason=CANCELLED)
        .order_by("-ended_at")
        .values_list("listing_id", "state", "created_at", "ended_at")[:QUERIES_MAX]
        for id_ in listing_ids
    ]
    if not recent:
        return {}
    ended: dict[Any, int] = {}
    waits: dict[Any, list[timedelta]] = {}
    for id_, state, created_at, ended_at in recent[0].union(*recent[1:], all=True):
        ended[id_] = ended.get(id_, 0) + 1
        if state == Query.State.SETTLED:
            waits.setdefault(id_, []).append(ended_at - created_at)
    return {id_: _of(count, sorted(waits.get(id_, []))) for id_, count in ended.items()}


def _of(ended: int, waits: list[timedelta]) -> Served:
    return Served(
        ended,
        len(waits) * 10_000 // ended,
        _at(waits, 50),
        _at(waits, 95),
    )


def _at(waits: list[timedelta], percent: int) -> int | None:
    """The nearest-rank percentile in milliseconds; None of nothing."""
    if not waits:
        return None
    rank = max(-(-len(waits) * percent // 100), 1)
    return round(waits[rank - 1] / timedelta(milliseconds=1))
