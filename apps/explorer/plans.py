"""Plans: those on offer side by side, what a change would do, and one's own with their quotas."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from apps.core import clock
from apps.core.errors import DomainError, NotFound
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.listings import plans as service
from apps.listings.models import Subscription
from apps.listings.pricing import price_micro
from apps.listings.services import listing_get
from apps.protocol.plans import NAME_MAX
from apps.wallets.consenting import consent_of_form
from apps.wallets.selectors import spendable_micro


class ChangeForm(forms.Form):
    """What a preview has put there; it is done exactly so, or not at all."""

    plan = forms.CharField(max_length=NAME_MAX, required=False)
    at_ms = forms.IntegerField(min_value=1, max_value=2**53)
    rows = forms.IntegerField(min_value=0, max_value=2**53)
    due_micro = forms.IntegerField(min_value=0, max_value=2**63 - 1)
    refund_micro = forms.IntegerField(min_value=0, max_value=2**63 - 1)


def line(row: Subscription, now: datetime) -> dict[str, Any]:
    """A plan as pages show it: its quota, and how much of it is left."""
    over = row.ended_at is not None or row.ends_at <= now
    left = 0 if over else service.left_rows(row, now=now)
    return {"row": row, "left": left, "asked": row.rows - left, "over": over}


@for_party
def plans(request: HttpRequest) -> HttpResponse:
    """One's own, newest first."""
    party, now = party_of(request), clock.now()
    rows = paged(request, service.subscriptions_of(party))
    lines = [line(row, now) for row in rows]
    return show(request, "plans.html", "wallet", party=party, rows=rows, lines=lines)


@for_party
def plan(request: HttpRequest, slug: str) -> HttpResponse:
    """`?plan=basic` previews having it, `?cancel` having none; POST does what a preview said."""
    party, now = party_of(request), clock.now()
    try:
        listing = listing_get(slug)
    except NotFound:
        raise Http404 from None
    back = reverse("explorer:plan", args=[slug])
    if request.method == "POST":
        form = ChangeForm(request.POST)
        if not form.is_valid():
            return redirect(back)
        return act(
            request,
            back,
            lambda row: (
                "You have no plan here any more."
                if row.ended_at
                else f"You have the plan “{row.plan}”."
            ),
            lambda: service.plan_set(
                listing=listing,
                buyer=party,
                consent=consent_of_form(request),
                now=now,
                **form.cleaned_data,
            ),
        )
    running = service.running(party, listing, now=now)
    chosen, cancels = request.GET.get("plan", ""), "cancel" in request.GET
    seen, problem = None, ""
    if chosen or cancels:
        try:
            seen = service.preview(
                listing=listing, buyer=party, plan="" if cancels else chosen, now=now
            )
        except DomainError as error:
            problem = explain(error)
    to_spend_micro = spendable_micro(party, service.CURRENCY, now=now)
    return show(
        request,
        "plan.html",
        "models",
        status=422 if problem else 200,
        party=party,
        listing=listing,
        own=line(running, now) if running else None,
        used=service.used_of(running) if running else None,
        plans=service.plans_json(listing),
        price_micro=price_micro(listing),
        chosen=chosen,
        seen=seen,
        short_micro=max(seen.change.due_micro - to_spend_micro, 0) if seen else 0,
        ends_at=clock.from_unix_ms(seen.change.term.ends_ms) if seen and seen.change.term else None,
        problem=problem,
    )
