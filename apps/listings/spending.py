"""What keys may spend, and what was spent: by day, listing and key."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, Sum
from django.db.models.functions import TruncDate

from apps.accounts.models import ApiKey, Party
from apps.core.errors import PaymentRequired
from apps.core.months import month_of
from apps.listings.models import Query

COLUMNS = ("day", "listing", "key", "inferences", "rows", "price_micro")


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


def usage(party: Party, *, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """What was paid in [since, until), by UTC day, listing and key; the sum is what was charged."""
    paid = Query.objects.filter(
        buyer=party, state=Query.State.SETTLED, ended_at__gte=since, ended_at__lt=until
    )
    rows = (
        paid.annotate(day=TruncDate("ended_at", tzinfo=UTC))
        .values("day", "listing__slug", "api_key__prefix")
        .annotate(inferences=Count("id"), row_count=Sum("rows"), sum_micro=Sum("price_micro"))
        .order_by("day", "listing__slug", "api_key__prefix")
    )
    return [
        {
            "day": row["day"].isoformat(),
            "listing": row["listing__slug"],
            "key": row["api_key__prefix"],
            "inferences": row["inferences"],
            "rows": row["row_count"],
            "price_micro": str(row["sum_micro"]),
        }
        for row in rows
    ]


def usage_csv(rows: list[dict[str, Any]]) -> str:
    """The same as CSV; an inference that was bought in the browser has no key."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
