"""What a SubDAO's reserve releases: its course on the token's page, converting points, sponsors."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import DomainError
from apps.explorer.fields import AmountField
from apps.explorer.page import act, explain, for_party, party_of, show
from apps.explorer.pictures import released, said
from apps.protocol import emission as rules
from apps.subdaos import converting, selectors
from apps.subdaos.emission import sponsor_take
from apps.subdaos.models import Dao
from apps.wallets.consenting import consent_of_form

EPOCHS_SHOWN, EPOCHS_AHEAD = 40, 24


class PointsForm(forms.Form):
    points = AmountField(label="Points to give up")


class ConfirmForm(forms.Form):
    """A conversion after its preview: the points and the tokens that were shown."""

    once = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)
    points_micro = forms.IntegerField(min_value=1, max_value=2**63 - 1)
    tokens_min_micro = forms.IntegerField(min_value=1, max_value=2**63 - 1)


def course(dao: Dao, now: datetime) -> dict[str, Any]:
    """For the token's page: what was released, and what is to come if nobody votes otherwise."""
    schedule = rules.schedule_of(dao.params["emission"])
    reserve = selectors.pot_micro(dao, "reserve")
    epoch = selectors.current_epoch(dao)
    length = timedelta(seconds=int(dao.params["epoch_s"]))
    ends = max(epoch.ends_at if epoch else now, now)
    past = selectors.released_course(dao, EPOCHS_SHOWN) or [(dao.founded_at, 0)]
    so_far = past[-1][1]
    left = rules.course(reserve, schedule, EPOCHS_AHEAD)
    ahead = [(ends + n * length, so_far + reserve - micro) for n, micro in enumerate(left)]
    assert dao.asset is not None
    whole = so_far + reserve
    return {
        "schedule": schedule,
        "released": released(past, ahead, now=now, whole_micro=whole, asset=dao.asset.code),
        "released_micro": so_far,
        "reserve_micro": reserve,
        "next_micro": reserve - left[0],
        "next_at": ends if epoch else None,
    }


def convert(request: HttpRequest, code: str) -> HttpResponse:
    """What points are worth now; with an amount, a preview of the conversion; POST does it."""
    dao, party = _dao(code), party_of(request)
    if request.method == "POST":
        return _convert(request, dao)
    context: dict[str, Any] = {
        "dao": dao,
        "asset": dao.asset,
        "party": party,
        "pot_micro": selectors.pot_micro(dao, "conversion"),
        "schedule": rules.schedule_of(dao.params["emission"]),
        "form": PointsForm(auto_id="convert_%s"),
    }
    if party is not None:
        sponsor = selectors.sponsor_of(dao, party)
        context |= {
            "points_micro": selectors.points_now(dao, party),
            "limit_micro": converting.limit_micro(dao, party),
            "sponsor": sponsor,
            "sponsor_due_micro": selectors.sponsor_due_micro(sponsor) if sponsor else 0,
        }
    if party is not None and "points" in request.GET:
        form = PointsForm(request.GET, auto_id="convert_%s")
        context["form"] = form
        if form.is_valid():
            try:
                seen = converting.preview(dao, party, form.cleaned_data["points"])
                confirm = ConfirmForm(auto_id="confirm_%s")
                context |= {"seen": seen, "confirm": confirm}
            except DomainError as error:
                context["problem"] = explain(error)
    return show(request, "convert.html", "tokens", **context)


def _convert(request: HttpRequest, dao: Dao) -> HttpResponse:
    assert dao.asset is not None
    code, party = dao.asset.code, party_of(request)
    back = reverse("explorer:convert", args=[code])
    if party is None:
        return redirect(f"{reverse('explorer:sign-in')}?next={back}")
    form = ConfirmForm(request.POST)
    if not form.is_valid():  # without a preview there is nothing to confirm
        return redirect(back)
    data = form.cleaned_data

    def done(made: Any) -> str:
        points = said(made.points_micro, "points")
        return f"You gave up {points} for {said(made.tokens_micro, code)}."

    return act(
        request,
        back,
        done,
        lambda: converting.convert(
            party=party,
            dao=dao,
            points_micro=data["points_micro"],
            tokens_min_micro=data["tokens_min_micro"],
            idempotency=data["once"],
            consent=consent_of_form(request),
            now=clock.now(),
        ),
    )


@require_POST
@for_party
def sponsor(request: HttpRequest, code: str) -> HttpResponse:
    """The session's party takes its part of what was released for sponsors."""
    dao, party = _dao(code), party_of(request)
    return act(
        request,
        reverse("explorer:convert", args=[code]),
        lambda transfer: f"You took {said(transfer.amount_micro, code)} as a sponsor.",
        lambda: sponsor_take(party=party, dao=dao, now=clock.now()),
    )


def _dao(code: str) -> Dao:
    dao = Dao.objects.select_related("party", "asset").filter(asset__code=code).first()
    if dao is None:
        raise Http404
    return dao
