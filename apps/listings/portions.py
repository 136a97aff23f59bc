"""Of a model's rows of the nodes' epoch one buyer gets a part, which its SubDAO votes.

The nodes enforce the total, the site the part: they don't know who asks, and who opens a second
account has a second part. The rule is `apps.protocol.portion`; `listings_hold` counts what is asked
(migrations/hold.sql), and what is released is given back here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest

from apps.accounts.models import Party
from apps.core.clock import from_unix_ms, unix_ms
from apps.core.errors import DomainError
from apps.listings.models import Listing, Query, Subscription, Taken
from apps.listings.plans import running_of
from apps.listings.pricing import rows_per_buyer
from apps.protocol.portion import epoch_span_ms


class PortionUsedUp(DomainError):
    code = "buyer_rows_used_up"
    status = 429
    text = (
        "You asked {rows} row(s), and have {rows_left} left of the {rows_max} of this model that "
        "one buyer may ask until {resets_at}. Nothing was charged."
    )


@dataclass(frozen=True)
class Portion:
    """What one buyer may ask of a model until `ends_at`, and has asked: rows."""

    most: int
    taken: int
    ends_at: datetime

    @property
    def left(self) -> int:
        return max(0, self.most - self.taken)

    def refusal(self, rows: int, *, now: datetime) -> PortionUsedUp:
        """Of so many rows, more than are left."""
        left_ms = unix_ms(self.ends_at) - unix_ms(now)
        return PortionUsedUp(
            rows=rows,
            rows_left=self.left,
            rows_max=self.most,
            resets_at=self.ends_at.isoformat(),
            retry_after_s=max(1, -(-left_ms // 1000)),
        )


def span(now: datetime) -> tuple[datetime, datetime]:
    """The nodes' epoch, as their `policy.json` and settings.ROWS_EPOCH_DAYS say it."""
    start, end = epoch_span_ms(unix_ms(now), settings.ROWS_EPOCH_DAYS)
    return from_unix_ms(start), from_unix_ms(end)


def taken_of(buyer: Party, listing: Listing, *, now: datetime) -> QuerySet[Taken]:
    """What the buyer has asked of this listing's model in this epoch: one row, or none."""
    since = span(now)[0]
    return Taken.objects.filter(buyer=buyer, version=listing.version_id, since__gte=since)


def portion(
    listing: Listing, taken_rows: int, *, plan: Subscription | None = None, now: datetime
) -> Portion:
    """The part of a buyer that has asked so many rows; `plan`: that pays for the next ones."""
    return Portion(rows_per_buyer(listing, plan), taken_rows, span(now)[1])


def portion_of(
    buyer: Party, listing: Listing, *, plan: Subscription | None = None, now: datetime
) -> Portion:
    """The buyer's part of this listing's model now."""
    rows = taken_of(buyer, listing, now=now).values_list("rows", flat=True).first()
    return portion(listing, rows or 0, plan=plan, now=now)


def portions_json(buyer: Party, *, now: datetime) -> list[dict[str, Any]]:
    """Each model that the buyer has asked in this epoch, with what is left of it."""
    since, ends_at = span(now)
    taken = Taken.objects.filter(buyer=buyer, since__gte=since, rows__gt=0)
    asked = dict(taken.values_list("version_id", "rows"))
    listings: Iterable[Listing] = Listing.objects.filter(version__in=asked).select_related(
        "dao", "version__round"
    )
    plans = {plan.listing_id: plan for plan in running_of(buyer, now=now)}
    return [
        {
            "listing": listing.slug,
            "rows": asked[listing.version_id],
            "rows_max": rows_per_buyer(listing, plans.get(listing.pk)),
            "resets_at": ends_at.isoformat(),
        }
        for listing in sorted(listings, key=lambda one: one.slug)
    ]


def give_back(query: Query) -> None:
    """Inner writer: the rows of a released query count no more, if they are of this epoch."""
    asked = Taken.objects.filter(buyer=query.buyer_id, version=query.version_id)
    left: Any = Greatest(F("rows") - query.rows, 0)  # what was asked before rows were counted
    asked.filter(since__lte=query.created_at).update(rows=left)
