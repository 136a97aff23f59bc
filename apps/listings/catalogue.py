"""Finding listings: by words, by facets that say how many there are of each, in an order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.db import connection
from django.db.models import Count, F, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from apps.core.search import matching
from apps.listings.models import Listing
from apps.protocol.rfm_spec import DOMAINS, LICENCES, MODEL_CLASSES, STANDARDS
from apps.subdaos.models import Dao

USE_DAYS = 30
METRIC_NONE = -1_000_000  # sorts a version without a leading metric behind all others
CENT = 10_000

Chosen = Mapping[str, Iterable[str]]
NOTHING: Chosen = MappingProxyType({})


def _equal(field: str, values: Iterable[str]) -> dict[str, Q]:
    return {value: Q(**{field: value}) for value in values}


def _bands(field: str, edges: Mapping[str, tuple[int | None, int | None]]) -> dict[str, Q]:
    """[low, high) each."""
    bands = {}
    for name, (low, high) in edges.items():
        bands[name] = Q(**{f"{field}__isnull": False})
        if low is not None:
            bands[name] &= Q(**{f"{field}__gte": low})
        if high is not None:
            bands[name] &= Q(**{f"{field}__lt": high})
    return bands


# {facet: {value: which listings}}. Price: USDC a row. Metric: the leading one of the model's class.
FACETS: dict[str, dict[str, Q]] = {
    "domain": _equal("dao__domain", DOMAINS),
    "model_class": _equal("dao__model_class", MODEL_CLASSES),
    "standard": _equal("dao__standard", STANDARDS),
    "price": _bands(
        "dao__row_price_micro",
        {
            "under-0.10": (None, 10 * CENT),
            "0.10-0.50": (10 * CENT, 50 * CENT),
            "0.50-2": (50 * CENT, 200 * CENT),
            "from-2": (200 * CENT, None),
        },
    ),
    "metric": _bands(
        "version__lead_milli",
        {
            "from-0.95": (950, None),
            "0.90-0.95": (900, 950),
            "0.80-0.90": (800, 900),
            "under-0.80": (None, 800),
        },
    ),
    "licence": _equal("dao__licence", LICENCES),
}
# What each order goes by; unique in the end.
SORTS: dict[str, tuple[str, ...]] = {
    "newest": ("-created_at", "-id"),
    "oldest": ("created_at", "id"),
    "use": ("-answers_recent", "-id"),
    "metric": ("-metric", "-id"),
    "cheapest": ("price", "id"),
    "dearest": ("-price", "-id"),
}
NEWEST, BEST = "newest", "best"


@dataclass(frozen=True)
class Choice:
    """One value of a facet: how many listings it would leave, given the other facets' choices."""

    value: str
    count: int
    chosen: bool


def search(
    rows: QuerySet[Listing], *, words: str = "", chosen: Chosen = NOTHING, sort: str = ""
) -> QuerySet[Listing]:
    """The listings in which all words occur and of which each facet has one of its chosen values.

    In the order of `sort`; without one the best match first, or the newest where no words are
    asked for. Unknown facets, values and orders are ignored.
    """
    rows = _narrowed(rows, words, chosen).annotate(
        price=F("dao__row_price_micro"),
        metric=Coalesce(F("version__lead_milli"), Value(METRIC_NONE)),
    )
    if words and sort not in SORTS:
        return rows
    return rows.order_by(*SORTS.get(sort, SORTS[NEWEST]))


def facets(*, words: str = "", chosen: Chosen = NOTHING) -> tuple[int, dict[str, list[Choice]]]:
    """(how many listings are found, {facet: its choices with their counts}), by one statement."""
    narrowed = {name: _of_facet(name, chosen.get(name, ())) for name in FACETS}
    counts: dict[str, Any] = {"found": Count("pk", filter=_all(narrowed.values()) or None)}
    for name, values in FACETS.items():
        others = _all(q for other, q in narrowed.items() if other != name)
        for value, q in values.items():
            counts[f"{name}:{value}"] = Count("pk", filter=others & q)
    found = _narrowed(Listing.objects.all(), words, NOTHING).order_by().aggregate(**counts)
    return found["found"], {
        name: [
            Choice(value, found[f"{name}:{value}"], value in set(chosen.get(name, ())))
            for value in values
        ]
        for name, values in FACETS.items()
    }


def count_use(*, now: datetime) -> int:
    """Bring `answers_recent` up to date: the answers of the last USE_DAYS days. Returns how many
    listings it changed for.

    By one statement, from time to time: a counter that every settlement wrote to would have all of
    a listing's buyers wait for one another.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE listings_listing AS listing SET answers_recent = counted.answers FROM ("
            "SELECT l.id, count(q.id) AS answers FROM listings_listing AS l "
            "LEFT JOIN listings_query AS q ON q.listing_id = l.id AND q.state = 'settled' "
            "AND q.ended_at > %s GROUP BY l.id) AS counted "
            "WHERE counted.id = listing.id AND counted.answers <> listing.answers_recent",
            [now - timedelta(days=USE_DAYS)],
        )
        return int(cursor.rowcount)


def _narrowed(rows: QuerySet[Listing], words: str, chosen: Chosen) -> QuerySet[Listing]:
    wanted = _all(_of_facet(name, values) for name, values in chosen.items())
    rows = rows.filter(wanted)
    return matching(rows.filter(dao__kind=Dao.Kind.SUB), words, of=Dao) if words else rows


def _of_facet(name: str, values: Iterable[str]) -> Q:
    """Any of the chosen values; everything where none is chosen."""
    known, wanted = FACETS.get(name, {}), Q()
    for value in values:
        if value in known:
            wanted |= known[value]
    return wanted


def _all(parts: Iterable[Q]) -> Q:
    wanted = Q()
    for part in parts:
        wanted &= part
    return wanted
