"""What a party paid for answers in a month: by day, model and key; printed, it is the statement."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from apps.core import clock
from apps.core.months import month_of
from apps.explorer.page import act, for_party, numbered, party_of, show
from apps.listings.invoicing import invoice_of, number_of
from apps.listings.spending import Line, usage_by_day_and_key, usage_by_model
from apps.wallets.low_balance import BILLING_MAX, settings_of, settings_set

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
IN_BROWSER = "in the browser"
PAGE_SIZE = 50


class BillingForm(forms.Form):
    billing = forms.CharField(
        label="Invoices are for",
        required=False,
        max_length=BILLING_MAX,
        help_text="Name, address, tax number. Only you see it; it is not in the log.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )


@for_party
def invoice(request: HttpRequest, month: datetime) -> HttpResponse:
    """The invoice of a month that is over, made to be printed; POST says for whom it is."""
    party, now = party_of(request), clock.now()
    start, end = month_of(month)
    if end > now:
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


@for_party
def page(request: HttpRequest) -> HttpResponse:
    """`?month=2026-11`, UTC; this month without it."""
    party, now = party_of(request), clock.now()
    start, end = month_of(_asked(request.GET.get("month"), now))
    days, by_key = usage_by_day_and_key(party, since=start, until=end)
    for line in by_key:
        line.name = f"{line.name}…" if line.name else IN_BROWSER
    by_model = numbered(
        request,
        lambda first, past: usage_by_model(party, since=start, until=end, start=first, end=past),
        PAGE_SIZE,
    )
    return show(
        request,
        "usage.html",
        "wallet",
        party=party,
        start=start,
        over=end <= now,
        last_day=end - timedelta(days=1),
        total=Line(
            "total",
            sum(line.inferences for line in days),
            sum(line.rows for line in days),
            sum(line.price_micro for line in days),
        ),
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
