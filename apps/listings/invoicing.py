"""The invoice of a month that is over: what a buyer paid to which SubDAO, for what.

Made anew from what can't change any more, so the same month gives the same invoice; only the
billing details are those of now. Its sum is what the ledger took from the buyer for predictions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from apps.accounts.models import Party
from apps.core.cells import cell_text
from apps.core.errors import NotFound
from apps.listings.models import Listing, Subscription
from apps.listings.plans import LEAF_TYPE
from apps.listings.pricing import CURRENCY
from apps.listings.spending import usage_by_listing
from apps.wallets.low_balance import settings_of
from apps.wallets.models import Account, Transfer


@dataclass(frozen=True)
class Line:
    """What one SubDAO was paid for."""

    seller: str
    seller_pid: str
    listing: str
    what: str
    rows: int
    amount_micro: int


@dataclass(frozen=True)
class Invoice:
    """`start` and `end` bound the month, in UTC."""

    number: str
    start: datetime
    end: datetime
    party: Party
    billing: str
    lines: list[Line]

    @property
    def total_micro(self) -> int:
        return sum(line.amount_micro for line in self.lines)


def number_of(party: Party, start: datetime) -> str:
    return f"{party.pid[:8]}-{start:%Y%m}".upper()


def invoice_of(party: Party, *, start: datetime, end: datetime, now: datetime) -> Invoice:
    """Raises NotFound for a month that is not over: its sum is not known yet."""
    if end > now:
        raise NotFound("month_not_over", "This month is not over; its usage so far is your usage.")
    found = [*_plans(party, start, end), *_predictions(party, start, end)]
    slugs = {slug for slug, *_ in found}
    named = Listing.objects.filter(slug__in=slugs).values_list(
        "slug", "dao__name", "dao__party__pid"
    )
    sellers = {slug: seller for slug, *seller in named}
    lines = [Line(*sellers[slug], slug, *rest) for slug, *rest in sorted(found)]
    billing = settings_of(party).billing
    return Invoice(number_of(party, start), start, end, party, billing, lines)


def _predictions(party: Party, start: datetime, end: datetime) -> Iterator[Any]:
    """(listing, what, rows, micro-units): what was paid one by one, and ahead."""
    for row in usage_by_listing(party, since=start, until=end):
        slug, ahead = row["listing__slug"], row["plan_count"]
        if row["row_count"] > ahead:
            yield slug, "Predictions", row["row_count"] - ahead, int(row["sum_micro"])
        if ahead:
            yield slug, "Predictions, of a plan", ahead, 0


def _plans(party: Party, start: datetime, end: datetime) -> Iterator[Any]:
    """The same of what was paid ahead and paid back for plans, by day."""
    # By the account, for the ledger is indexed by it and not by its owner.
    main = Account.objects.filter(owner=party, asset__code=CURRENCY, purpose="main").first()
    rows = Transfer.objects.filter(
        Q(kind=LEAF_TYPE, debit=main) | Q(kind=f"{LEAF_TYPE}_refund", credit=main),
        created_at__gte=start,
        created_at__lt=end,
    )
    moved = list(rows.order_by("created_at"))
    plans = Subscription.objects.select_related("listing").in_bulk([row.ref_id for row in moved])
    for row in moved:
        back = row.kind != LEAF_TYPE
        what = f"Plan, paid {'back' if back else 'ahead'} on {row.created_at:%Y-%m-%d}"
        slug = plans[UUID(row.ref_id)].listing.slug
        yield slug, what, 0, -row.amount_micro if back else row.amount_micro


def invoice_json(invoice: Invoice) -> dict[str, Any]:
    return {
        "number": invoice.number,
        "since": invoice.start.isoformat(),
        "until": invoice.end.isoformat(),
        "buyer": {"name": invoice.party.name, "pid": invoice.party.pid},
        "billing": invoice.billing,
        "currency": CURRENCY,
        "lines": [
            asdict(line) | {"amount_micro": str(line.amount_micro)} for line in invoice.lines
        ],
        "total_micro": str(invoice.total_micro),
    }


def invoice_csv(invoice: Invoice) -> str:
    """A line each, with the invoice's number; amounts in micro-units of USDC."""
    out = io.StringIO()
    names = ["number", *Line.__dataclass_fields__]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for line in invoice.lines:
        seller = cell_text(line.seller)
        writer.writerow({"number": invoice.number, **asdict(line), "seller": seller})
    return out.getvalue()
