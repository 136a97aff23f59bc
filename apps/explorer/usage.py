"""What a party paid for answers in a month: by day, model and key; printed, it is the statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from apps.core import clock
from apps.core.months import month_of
from apps.explorer.page import act, party_of, show
from apps.listings.invoicing import invoice_of, number_of
from apps.listings.models import Listing
from apps.listings.spending import usage
from apps.wallets.low_balance import BILLING_MAX, settings_of, settings_set

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
IN_BROWSER = "in the browser"


@dataclass
class Line:
    """What one day, model or key came to."""

    name: str
    inferences: int = 0
    rows: int = 0
    price_micro: int = 0
    slug: str = ""


class BillingForm(forms.Form):
    billing = forms.CharField(
        label="Invoices are for",
        required=False,
        max_length=BILLING_MAX,
        help_text="Name, address, tax number. Only you see it; it is not in the log.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )


@login_required
def invoice(request: HttpRequest, month: datetime) -> HttpResponse:
    """The invoice of a month that is over, made to be printed; POST says for whom it is."""
    party, now = party_of(request), clock.now()
    start, end = month_of(month)
    if party is None or end > now:
        raise Http404
    found = settings_of(party)
    form = BillingForm(request.POST or None, initial={"billing": found.billing})
    if request.method == "POST" and form.is_valid():
        billing = form.cleaned_data["billing"]
        return act(
            request,
            reverse("explorer:invoice", args=[start]),
            "Your invoices give these details now.",
            lambda: settings_set(party=party, low_micro=found.low_micro, billing=billing, now=now),
        )
    made = invoice_of(party, start=start, end=end, now=now)
    last_day = end - timedelta(days=1)
    return show(request, "invoice.html", "wallet", invoice=made, last_day=last_day, form=form)


@login_required
def page(request: HttpRequest) -> HttpResponse:
    """`?month=2026-11`, UTC; this month without it."""
    party, now = party_of(request), clock.now()
    if party is None:
        raise Http404
    start, end = month_of(_asked(request.GET.get("month"), now))
    rows = usage(party, since=start, until=end)
    slugs = {row["listing"] for row in rows}
    names = dict(Listing.objects.filter(slug__in=slugs).values_list("slug", "dao__name"))
    by_model = _by(rows, lambda row: row["listing"])
    for line in by_model:
        line.slug, line.name = line.name, names.get(line.name, line.name)
    by_key = _by(rows, lambda row: f"{row['key']}…" if row["key"] else IN_BROWSER)
    total = _by(rows, lambda row: "total")
    days = sorted(_by(rows, lambda row: row["day"]), key=lambda line: line.name)
    return show(
        request,
        "usage.html",
        "wallet",
        party=party,
        start=start,
        over=end <= now,
        last_day=end - timedelta(days=1),
        total=total[0] if total else Line("total"),
        days=days,
        most_micro=max((line.price_micro for line in days), default=0),
        by_model=by_model,
        by_key=by_key,
        earlier=f"{start - timedelta(days=1):%Y-%m}",
        later=f"{end:%Y-%m}" if end <= now else "",
        csv=f"?since={start:%Y-%m-%dT%H:%M:%SZ}&until={end:%Y-%m-%dT%H:%M:%SZ}",
        number=number_of(party, start),
    )


def _asked(text: str | None, now: datetime) -> datetime:
    """The month's first moment. Raises Http404 for text that is no month."""
    if not text:
        return now
    found = _MONTH.fullmatch(text)
    if found is None:
        raise Http404
    return datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)


def _by(rows: Iterable[dict[str, Any]], name: Callable[[dict[str, Any]], str]) -> list[Line]:
    """The rows' sums under each name, dearest first."""
    lines: dict[str, Line] = {}
    for row in rows:
        line = lines.setdefault(name(row), Line(name(row)))
        line.inferences += row["inferences"]
        line.rows += row["rows"]
        line.price_micro += int(row["price_micro"])
    return sorted(lines.values(), key=lambda line: (-line.price_micro, line.name))
