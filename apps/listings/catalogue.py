"""Finding listings: by words, by facets that say how many there are of each, in an order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from types import MappingProxyType

from django.db import connection
from django.db.models import Q, QuerySet

from apps.core.search import matching
from apps.listings.models import METRIC_NONE, TO_ALL, Listing
from apps.protocol.credentials import is_kind
from apps.protocol.rfm_spec import DOMAINS, LICENCES, MODEL_CLASSES, STANDARDS
from apps.subdaos.models import Dao

USE_DAYS = 30
CENT = 10_000

Chosen = Mapping[str, Iterable[str]]
NOTHING: Chosen = MappingProxyType({})
Band = tuple[int | None, int | None]  # [low, high)
# {facet: its values}, each of which is what the listing's column of that name says.
_EQUAL: dict[str, Iterable[str]] = {
    "domain": DOMAINS,
    "model_class": MODEL_CLASSES,
    "standard": STANDARDS,
    "licence": LICENCES,
    "access": (TO_ALL,),
}
# {facet: (column, its values)}. Price: USDC a row. Metric: the leading one of the model's class.
_BANDS: dict[str, tuple[str, dict[str, Band]]] = {
    "price": (
        "row_price_micro",
        {
            "under-0.10": (None, 10 * CENT),
            "0.10-0.50": (10 * CENT, 50 * CENT),
            "0.50-2": (50 * CENT, 200 * CENT),
            "from-2": (200 * CENT, None),
        },
    ),
    "metric": (
        "lead_milli",
        {
            "from-0.95": (950, None),
            "0.90-0.95": (900, 950),
            "0.80-0.90": (800, 900),
            "under-0.80": (METRIC_NONE + 1, 800),
        },
    ),
}
# {facet: its values}, in the order in which they are shown. Of `access` there are more, which
# SubDAOs vote: `known`.
FACETS: dict[str, tuple[str, ...]] = {
    name: tuple(_EQUAL[name] if name in _EQUAL else _BANDS[name][1])
    for name in ("domain", "model_class", "standard", "price", "metric", "licence", "access")
}
ACCESS = "access"
ACCESS_SHOWN = 20  # kinds of credentials that are counted: those that most listings ask for


def _value(name: str) -> str:
    """SQL for a listing's value in a facet."""
    if name in _EQUAL:
        return name
    column, bands = _BANDS[name]
    whens = []
    for value, band in bands.items():
        ends = [f"{column} {sign} {end}" for sign, end in zip((">=", "<"), band) if end is not None]
        whens.append(f"WHEN {' AND '.join(ends)} THEN '{value}'")
    return f"CASE {' '.join(whens)} END"


_COLUMNS = ", ".join(f"{_value(name)} AS {name}" for name in FACETS)
_BIT = {name: 1 << place for place, name in enumerate(reversed(FACETS))}
_NONE = (1 << len(FACETS)) - 1
# Rows are counted by kind, kinds by facet. GROUPING has a bit for each facet that a count is not
# by, the first facet's the highest.
_COUNTS = f"""
SELECT missed, GROUPING({", ".join(FACETS)}), COALESCE({", ".join(FACETS)}), sum(listed)::bigint
FROM (
    SELECT *, {{missed}} AS missed FROM (
        SELECT {_COLUMNS}, count(*) AS listed FROM listings_listing {{where}}
        GROUP BY {", ".join(str(place + 1) for place in range(len(FACETS)))}
    ) AS kinds
) AS kinds
WHERE missed IN (0, {", ".join(map(str, _BIT.values()))})
GROUP BY GROUPING SETS ((missed), {", ".join(f"(missed, {name})" for name in FACETS)})
"""
# What each order goes by; unique in the end.
SORTS: dict[str, tuple[str, ...]] = {
    "newest": ("-created_at", "-id"),
    "oldest": ("created_at", "id"),
    "use": ("-answers_recent", "-id"),
    "metric": ("-lead_milli", "-id"),
    "cheapest": ("row_price_micro", "id"),
    "dearest": ("-row_price_micro", "-id"),
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
    for name, values in _known(chosen).items():
        rows = rows.filter(_any_of(name, values))
    if words:
        rows = _with(words, rows)
    if words and sort not in SORTS:
        return rows
    return rows.order_by(*SORTS.get(sort, SORTS[NEWEST]))


def facets(*, words: str = "", chosen: Chosen = NOTHING) -> tuple[int, dict[str, list[Choice]]]:
    """(how many listings are found, {facet: its choices with their counts}), by one statement.

    A listing counts for a value when it has all that was chosen, or lacks it in the value's own
    facet alone. So each is counted under its value in each facet and the facet that it misses.
    """
    wanted = _known(chosen)
    values: list[object] = list(wanted.values())
    where = ""
    if words:
        ids = _with(words, Listing.objects.all()).order_by().values("pk")
        sql, rest = ids.query.sql_with_params()
        where, values = f"WHERE id IN ({sql})", [*values, *rest]
    statement = _COUNTS.format(
        missed=" + ".join(f"CASE WHEN {n} = ANY(%s) THEN 0 ELSE {_BIT[n]} END" for n in wanted)
        or "0",
        where=where,
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    found = 0
    counts = {name: dict.fromkeys((*FACETS[name], *wanted.get(name, ())), 0) for name in FACETS}
    for missed, left, value, count in rows:
        if left == _NONE and not missed:
            found = count
        for name, bit in _BIT.items():
            shown = value in counts[name] or name == ACCESS
            if left == _NONE - bit and missed in (0, bit) and shown:
                counts[name][value] = counts[name].get(value, 0) + count
    choices = {
        name: [Choice(value, n, value in wanted.get(name, ())) for value, n in of.items()]
        for name, of in counts.items()
    }
    choices[ACCESS] = _most_asked(choices[ACCESS])
    return found, choices


def known(name: str, value: str) -> bool:
    """Whether there is such a value of this facet, or may be one."""
    return value in FACETS[name] or (name == ACCESS and is_kind(value))


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


def _known(chosen: Chosen) -> dict[str, list[str]]:
    """Of each facet what is chosen and exists; facets of which nothing is are left out."""
    found = {name: [v for v in chosen.get(name, ()) if known(name, v)] for name in FACETS}
    return {name: values for name, values in found.items() if values}


def _most_asked(choices: list[Choice]) -> list[Choice]:
    """Open to all, then what is chosen and the kinds that most ask for, by name."""
    first, *kinds = choices
    kinds.sort(key=lambda one: (not one.chosen, -one.count, one.value))
    return [first, *sorted(kinds[:ACCESS_SHOWN], key=lambda one: one.value)]


def _with(words: str, rows: QuerySet[Listing]) -> QuerySet[Listing]:
    return matching(rows.filter(dao__kind=Dao.Kind.SUB), words, of=Dao)


def _any_of(name: str, values: Iterable[str]) -> Q:
    if name in _EQUAL:
        return Q(**{f"{name}__in": values})
    column, bands = _BANDS[name]
    return reduce(or_, (_within(column, bands[value]) for value in values))


def _within(column: str, band: Band) -> Q:
    ends = zip(("gte", "lt"), band, strict=True)
    return Q(**{f"{column}__{sign}": end for sign, end in ends if end is not None})
