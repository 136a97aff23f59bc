"""What this is in one screen, with live figures."""

from __future__ import annotations

from django.db.models import BigIntegerField, F, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse

from apps.explorer.dashboard import dashboard
from apps.explorer.listings import cards, listing_rows
from apps.explorer.page import show
from apps.listings.models import Listing, Query
from apps.rfms.models import Rfm
from apps.subdaos.models import Epoch
from apps.wallets.log import head_latest


def home(request: HttpRequest) -> HttpResponse:
    """What this is, for strangers; who is signed in knows, and sees the dashboard."""
    if request.user.is_authenticated:
        return dashboard(request)
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
        figures={
            "models": Listing.objects.filter(status="open").count(),
            "queries": Query.objects.filter(state="settled").count(),
            "paid_micro": paid or 0,
            "log_size": head.size if head else 0,
        },
        models=cards(listings),
        rfms=Rfm.objects.exclude(submitted_at=None)
        .select_related("submitter", "crowdfund")
        .order_by("-created_at", "-id")[:3],
    )
