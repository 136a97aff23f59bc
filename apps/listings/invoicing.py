"""The invoice of a month that is over: what a buyer paid to which SubDAO, for what.

Made anew from what can't change any more, so the same month gives the same invoice; only the
billing details are those of now. Its sum is what the ledger took from the buyer for predictions.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.listings.models import Listing
from apps.listings.pricing import CURRENCY
from apps.listings.spending import usage
from apps.wallets.low_balance import settings_of


@dataclass(frozen=True)
class Line:
    """What one SubDAO was paid for."""

    seller: str
    seller_pid: str
    listing: str
    what: str
    inferences: int
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
    sums: dict[str, list[int]] = {}
    for row in usage(party, since=start, until=end):
        counts = (row["inferences"], row["rows"], int(row["price_micro"]))
        sums[row["listing"]] = [a + b for a, b in zip(sums.get(row["listing"], (0, 0, 0)), counts)]
    sellers = Listing.objects.select_related("dao__party").in_bulk(list(sums), field_name="slug")
    lines = [
        Line(
            sellers[slug].dao.name,
            sellers[slug].dao.party.pid,
            slug,
            "Predictions",
            *counts,
        )
        for slug, counts in sorted(sums.items())
    ]
    billing = settings_of(party).billing
    return Invoice(number_of(party, start), start, end, party, billing, lines)


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
    writer.writerows({"number": invoice.number, **asdict(line)} for line in invoice.lines)
    return out.getvalue()
