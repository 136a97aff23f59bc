"""What keys may spend, and what was spent: by day, listing and key."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from apps.accounts.models import ApiKey, Party
from apps.core.errors import PaymentRequired
from apps.core.months import month_of
from apps.listings.models import Query

COLUMNS = ("day", "listing", "key", "inferences", "rows", "plan_rows", "price_micro")
# Names are looked up for the models of the page alone.
_BY_MODEL = """
SELECT l.slug, d.name, found.inferences, found.row_count, found.sum_micro FROM (
    SELECT listing_id, count(*) AS inferences, sum(rows) AS row_count,
        coalesce(sum(price_micro) FILTER (WHERE subscription_id IS NULL), 0)::bigint AS sum_micro
    FROM listings_query
    WHERE buyer_id = %(buyer)s AND state = 'settled'
        AND ended_at >= %(since)s AND ended_at < %(until)s
    GROUP BY listing_id ORDER BY sum_micro DESC, listing_id
    OFFSET %(start)s LIMIT %(count)s
) AS found
JOIN listings_listing l ON l.id = found.listing_id JOIN subdaos_dao d ON d.id = l.dao_id
ORDER BY found.sum_micro DESC, l.id
"""


class SpendLimitReached(PaymentRequired):
    code = "spend_limit_reached"
    text = "This key may spend {left_micro} more micro-units this month. Nothing was charged."


def spent_micro(key: ApiKey, *, now: datetime) -> int:
    """What the key has paid this month or holds for answers to come; releases give it back."""
    start, _ = month_of(now)
    spent = Query.objects.filter(api_key=key, created_at__gte=start).exclude(
        state=Query.State.RELEASED
    )
    return int(spent.aggregate(sum=Sum("price_micro"))["sum"] or 0)


def spent_up(
    price_micro: int, *, limit_micro: int, left_micro: int, now: datetime
) -> SpendLimitReached:
    """What is said of a price beyond what a key has left."""
    return SpendLimitReached(
        left_micro=str(max(left_micro, 0)),
        limit_micro=str(limit_micro),
        short_micro=str(price_micro - left_micro),
        resets_at=month_of(now)[1].isoformat(),
    )


def spending_json(key: ApiKey | None, *, now: datetime) -> dict[str, Any] | None:
    """A key's limit and what is used of it; None where there is no limit."""
    if key is None or key.spend_limit_micro is None:
        return None
    return {
        "limit_micro": str(key.spend_limit_micro),
        "spent_micro": str(spent_micro(key, now=now)),
        "resets_at": month_of(now)[1].isoformat(),
    }


@dataclass
class Line:
    """What one day, model or key came to."""

    name: str
    inferences: int = 0
    rows: int = 0
    price_micro: int = 0
    slug: str = ""


def usage(party: Party, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """What was paid in [since, until), by UTC day, listing and key; the sum is what the balance was
    charged. `plan_rows` of the rows were paid ahead, by a plan."""
    return [
        {
            "day": row["day"].isoformat(),
            "listing": row["listing__slug"],
            "key": row["api_key__prefix"],
            "inferences": row["inferences"],
            "rows": row["row_count"],
            "plan_rows": row["plan_count"],
            "price_micro": str(row["sum_micro"]),
        }
        for row in _sums(party, since, until, "day", "listing__slug", "api_key__prefix")
    ]


def usage_by_day_and_key(
    party: Party, *, since: datetime, until: datetime
) -> tuple[list[Line], list[Line]]:
    """The same by day, in their order, and by how the key begins (""; in a browser), dearest
    first: each makes the whole sum."""
    days: dict[str, Line] = {}
    keys: dict[str, Line] = {}
    for row in _sums(party, since, until, "day", "api_key__prefix"):
        for lines, name in ((days, row["day"].isoformat()), (keys, row["api_key__prefix"] or "")):
            line = lines.setdefault(name, Line(name))
            line.inferences += row["inferences"]
            line.rows += row["row_count"]
            line.price_micro += int(row["sum_micro"])
    by_key = sorted(keys.values(), key=lambda line: (-line.price_micro, line.name))
    return list(days.values()), by_key


def usage_by_model(
    party: Party, *, since: datetime, until: datetime, start: int, end: int
) -> list[Line]:
    """The same by model, dearest first: the lines from the start-th to before the end-th."""
    values = {"buyer": party.id, "since": since, "until": until}
    with connection.cursor() as cursor:
        cursor.execute(_BY_MODEL, values | {"start": start, "count": end - start})
        rows = cursor.fetchall()
    return [Line(name, *sums, slug=slug) for slug, name, *sums in rows]


def usage_by_listing(
    party: Party, *, since: datetime, until: datetime
) -> QuerySet[Query, dict[str, Any]]:
    """The same by listing: {"listing__slug", "row_count", "plan_count", "sum_micro", …} of each."""
    return _sums(party, since, until, "listing__slug")


def _sums(
    party: Party, since: datetime, until: datetime, *names: str
) -> QuerySet[Query, dict[str, Any]]:
    paid = Query.objects.filter(
        buyer=party, state=Query.State.SETTLED, ended_at__gte=since, ended_at__lt=until
    )
    return (
        paid.annotate(day=TruncDate("ended_at", tzinfo=UTC))
        .values(*names)
        .annotate(
            inferences=Count("id"),
            row_count=Sum("rows"),
            plan_count=Sum("rows", filter=Q(subscription__isnull=False), default=0),
            sum_micro=Sum("price_micro", filter=Q(subscription=None), default=0),
        )
        .order_by(*names)
    )


def usage_csv(rows: list[dict[str, Any]]) -> str:
    """The same as CSV; an inference that was bought in the browser has no key."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
