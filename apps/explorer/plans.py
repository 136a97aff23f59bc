"""Plans: those on offer side by side, what a change would do, and one's own with their quotas."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import DomainError, NotFound
from apps.explorer.access import standing_of
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.listings import plans as service
from apps.listings.models import Subscription
from apps.listings.pricing import price_micro
from apps.listings.services import listing_get
from apps.protocol.plans import DAYS_MAX, NAME_MAX, Renewal
from apps.protocol.tariff import ROWS_MAX
from apps.training.access import demand_of
from apps.wallets.consenting import consent_of_form
from apps.wallets.keys import SESSION
from apps.wallets.selectors import spendable_micro


class ChangeForm(forms.Form):
    """What a preview has put there; it is done exactly so, or not at all."""

    plan = forms.CharField(max_length=NAME_MAX, required=False)
    at_ms = forms.IntegerField(min_value=1, max_value=2**53)
    rows = forms.IntegerField(min_value=0, max_value=2**53)
    due_micro = forms.IntegerField(min_value=0, max_value=2**63 - 1)
    refund_micro = forms.IntegerField(min_value=0, max_value=2**63 - 1)


class RenewalForm(forms.Form):
    """What the page has shown of the next period; without rows: none."""

    rows = forms.IntegerField(min_value=1, max_value=ROWS_MAX, required=False)
    days = forms.IntegerField(min_value=1, max_value=DAYS_MAX, required=False)
    max_micro = forms.IntegerField(min_value=1, max_value=2**63 - 1, required=False)


def line(row: Subscription, now: datetime) -> dict[str, Any]:
    """A plan as pages show it: its quota, and how much of it is left."""
    over = row.ended_at is not None or row.ends_at <= now
    left = 0 if over else service.left_rows(row, now=now)
    why = service.UNRENEWED.get(row.unrenewed, service.UNRENEWED_ELSE) if row.unrenewed else ""
    return {"row": row, "left": left, "asked": row.rows - left, "over": over, "why": why}


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
    offered = service.plans_json(listing)
    to_spend_micro = spendable_micro(party, service.CURRENCY, now=now)
    return show(
        request,
        "plan.html",
        "models",
        status=422 if problem else 200,
        party=party,
        listing=listing,
        access=standing_of(listing.dao, party, plan=running),
        node_access=demand_of(listing.version.round),
        own=line(running, now) if running else None,
        used=service.used_of(running) if running else None,
        plans=offered,
        next=next((plan for plan in offered if running and plan["name"] == running.plan), None),
        price_micro=price_micro(listing),
        chosen=chosen,
        seen=seen,
        short_micro=max(seen.change.due_micro - to_spend_micro, 0) if seen else 0,
        ends_at=clock.from_unix_ms(seen.change.term.ends_ms) if seen and seen.change.term else None,
        problem=problem,
    )


@require_POST
@for_party
def renewal(request: HttpRequest, slug: str) -> HttpResponse:
    """Have the plan renew itself as the page showed, or no more."""
    try:
        listing = listing_get(slug)
    except NotFound:
        raise Http404 from None
    back, form = reverse("explorer:plan", args=[slug]), RenewalForm(request.POST)
    if not form.is_valid():
        return redirect(back)
    said = form.cleaned_data
    return act(
        request,
        back,
        lambda row: "It renews itself." if row.renewal else "It ends, and does not renew itself.",
        lambda: service.renewal_set(
            listing=listing,
            buyer=party_of(request),
            agreed=Renewal(**said) if all(said.values()) else None,
            consent=SESSION,
            now=clock.now(),
        ),
    )
