"""What this is in one screen, live figures, and what needs you."""

from __future__ import annotations

from typing import Any

from django.db.models import BigIntegerField, F, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from apps.core import clock
from apps.explorer.listings import cards, listing_rows
from apps.explorer.page import party_of, show
from apps.governance.models import Proposal
from apps.listings.models import Query
from apps.rfms.models import Rfm
from apps.subdaos.models import Epoch
from apps.wallets.log import head_latest


def home(request: HttpRequest) -> HttpResponse:
    head = head_latest()
    listings = list(listing_rows()[:3])
    kept = Cast(KeyTextTransform("treasury_micro", "settlement"), BigIntegerField())
    paid = Epoch.objects.filter(closed_at__isnull=False, settlement__isnull=False).aggregate(
        sum=Sum(F("revenue_micro") - kept)
    )["sum"]
    return show(
        request,
        "home.html",
        "home",
        needs=_needs(request),
        figures={
            "models": listing_rows().filter(status="open").count(),
            "queries": Query.objects.filter(state="settled").count(),
            "paid_micro": paid or 0,
            "log_size": head.size if head else 0,
        },
        models=cards(listings),
        rfms=Rfm.objects.exclude(submitted_at=None)
        .select_related("submitter", "crowdfund")
        .order_by("-created_at")[:3],
    )


def _needs(request: HttpRequest) -> list[dict[str, Any]]:
    """Open votes in which this party has weight and has not voted, by when they end."""
    party, now = party_of(request), clock.now()
    if party is None:
        return []
    rows = (
        Proposal.objects.filter(
            voting_starts_at__lte=now,
            voting_ends_at__gt=now,
            canceled_at=None,
            weights__party=party,
        )
        .exclude(votes__voter=party)
        .select_related("dao")
        .order_by("voting_ends_at")[:5]
    )
    return [
        {
            "title": row.title,
            "url": reverse("explorer:proposal", args=[row.id]),
            "why": f"{row.dao.name} needs your vote",
            "at": row.voting_ends_at,
            "action": "Read and vote",
        }
        for row in rows
    ]
