"""One epoch: what it earned, what that became, who is owed what, and claiming one's own part."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import DomainError, NotFound
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.explorer.pictures import epochs_flow, sums
from apps.listings import claims
from apps.listings.models import Closing
from apps.subdaos.models import Epoch
from apps.wallets.log import leaf_for
from apps.wallets.models import Transfer

LEAF = "listings.epoch_settled"
STEPS = {
    "quiet": "Waiting for the last transfers of the epoch to be written.",
    "weigh": "Weighing what each holder had, and for how long.",
    "divide": "Dividing what it earned among them.",
    "prove": "Hashing what is owed to whom.",
}


def epoch(request: HttpRequest, epoch_id: UUID) -> HttpResponse:
    """Totals, picture, your own part with its button, and everybody's, largest first."""
    found, party = _epoch(epoch_id), party_of(request)
    closing = Closing.objects.filter(epoch=found).defer("frontier").first()
    settled = found.settlement
    mine = list(claims.owed(found, party)) if settled and party else []
    waiting = [row for row in mine if row.claimed_at is None]
    rows = (
        paged(request, claims.entitled(found).order_by("-amount_micro", "pid")) if settled else None
    )
    return show(
        request,
        "epoch.html",
        "subdaos",
        epoch=found,
        settled=settled,
        step=STEPS.get(closing.step) if closing else None,
        flow=epochs_flow([settled]),
        owed_micro=sum(map(int, settled["owed_micro"].values())) if settled else 0,
        claimed_micro=claims.claimed_micro(found) if settled else 0,
        mine=mine,
        waiting=waiting,
        waiting_micro=sum(row.amount_micro for row in waiting),
        rows=rows,
        leaf=leaf_for(LEAF, found.id) if settled else None,
    )


@require_POST
@for_party
def claim(request: HttpRequest, epoch_id: UUID) -> HttpResponse:
    """Everything that one epoch owes to the session's party."""
    party = party_of(request)
    return act(
        request,
        reverse("explorer:epoch", args=[epoch_id]),
        _paid,
        lambda: claims.claim(epoch_id=epoch_id, party=party, now=clock.now()),
    )


@require_POST
@for_party
def claim_each(request: HttpRequest) -> HttpResponse:
    """What the wallet lists as waiting, by the epochs that it named."""
    party, back = party_of(request), reverse("explorer:wallet")
    try:
        ids = [UUID(text) for text in request.POST.get("epochs", "").split(",")]
    except ValueError:
        ids = []
    if not 0 < len(ids) <= claims.CLAIMED_AT_ONCE:
        messages.error(request, "Nothing was claimed: the page named no epochs. Load it again.")
        return redirect(back)

    def done(result: tuple[list[Transfer], list[DomainError]]) -> str:
        paid, refused = result
        left = f" {len(refused)} could not be paid: {explain(refused[0])}" if refused else ""
        return _paid(paid) + left

    return act(
        request,
        back,
        done,
        lambda: claims.claim_each(epoch_ids=ids, party=party, now=clock.now()),
    )


def _paid(transfers: list[Transfer]) -> str:
    return f"You were paid {sums((t.debit.asset.code, t.amount_micro) for t in transfers)}."


def _epoch(epoch_id: UUID) -> Epoch:
    try:
        return claims.epoch_get(epoch_id)
    except NotFound:
        raise Http404 from None
