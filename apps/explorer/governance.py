"""Proposals: what they change, how the vote stands, your weight and why, your vote, the outcome."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import NotFound
from apps.explorer.formatting import percent
from apps.explorer.page import act, for_party, paged, party_of, show
from apps.explorer.pictures import exactly
from apps.governance import executing, selectors, services
from apps.governance.models import Proposal
from apps.protocol import tally
from apps.training.models import ModelVersion, Round
from apps.training.shown import shown_of
from apps.wallets.consenting import consent_of_form

STATES = ["active", "succeeded", "executed", "defeated"]
HOUSES = {
    "super": "Holders of staked FLAI decide, weighed by what they staked when voting began.",
    "sbgt": "Those who built the model decide technical matters. Their points are earned, "
    "and can't be bought or sold.",
    "sdt": "Those who own the model's tokens decide financial matters.",
}
State = tally.State
UNIT = re.compile(r" \((\S+) micro-units\)$")
GOING_ON = (State.PENDING, State.ACTIVE, State.SUCCEEDED, State.QUEUED)
KINDS = {
    "rfms.approve": "Open a request for funding",
    "rfms.fork": "Fork the model",
    "subdaos.set_sponsoring": "Change who may fund first",
    "participants.whitelist": "Let participants in",
    "participants.remove": "Remove participants",
    "training.accept_version": "Accept a model version",
    "training.open_round": "Open a training round",
    "subdaos.set_price": "Change the price",
    "subdaos.set_tiers": "Change what large buyers pay",
    "subdaos.set_plans": "Change the plans that are paid ahead",
    "listings.set_on_sale": "Retire the model, or sell it again",
    "listings.set_portion": "Change how much one buyer may ask",
    "listings.set_access": "Change who may ask the model",
    "subdaos.set_scoring": "Change how contributions are scored",
    "subdaos.set_engine": "Change how nodes compute",
    "subdaos.set_resolution": "Change how finely buyers are answered",
    "subdaos.set_privacy": "Change the privacy budget",
    "subdaos.set_training": "Change how rounds train",
    "subdaos.set_emission": "Change what the reserve releases",
    "subdaos.set_split": "Change how revenue is divided",
    "subdaos.set_unlocks": "Change what a stake unlocks",
    "subdaos.pay": "Pay from the treasury",
    "subdaos.revoke": "Take a member's points",
    "exchange.slash": "Slash a stake",
    "exchange.slash_flai": "Slash a stake of FLAI",
}


def proposals(request: HttpRequest) -> HttpResponse:
    """All proposals, newest first, by state."""
    state = request.GET.get("state", "")
    chosen = state if state in STATES else ""
    now = clock.now()
    rows = paged(request, selectors.proposal_list(now=now, state=chosen or None))
    return show(
        request,
        "proposals.html",
        "governance",
        proposals=rows,
        items=[_item(proposal, now) for proposal in rows],
        state=chosen,
        states=STATES,
    )


def proposal(request: HttpRequest, proposal_id: UUID) -> HttpResponse:
    """One proposal in full."""
    found = _get(proposal_id)
    now, party = clock.now(), party_of(request)
    mine = selectors.weight(found, party, now)
    my_vote = selectors.my_vote(found, party)
    total = mine.total if mine.total is not None else found.total_weight
    state = found.state(now)
    version = (
        ModelVersion.objects.filter(proposal=found).select_related("round").first()
        if found.kind == "training.accept_version"
        else None
    )
    return show(
        request,
        "proposal.html",
        "governance",
        proposal=found,
        party=party,
        kind=KINDS.get(found.kind, found.kind),
        house=HOUSES[found.house],
        mine=mine,
        my_vote=my_vote,
        my_share=percent(mine.weight, total) if total and mine.weight else None,
        may_vote=state is tally.State.ACTIVE and my_vote is None and mine.weight > 0,
        may_execute=party is not None and executing.can_execute(party, found, now) is None,
        votes=paged(request, selectors.votes(found)),
        version=version,
        cited=_cited(found),
        changes=changes_in_words(found.changes),
        evidence=version.evidence if version else None,
        opens_at=tally.execution_opens_at(found.facts),
        **_tally(found),
        state=state.value,
        live=f"proposal:{found.id}" if state in GOING_ON else "",
    )


@require_POST
@for_party
def vote(request: HttpRequest, proposal_id: UUID) -> HttpResponse:
    party, support = party_of(request), request.POST.get("support", "")
    said = {"for": "for", "against": "against", "abstain": "to abstain"}.get(support, support)
    return act(
        request,
        reverse("explorer:proposal", args=[proposal_id]),
        f"Your vote {said} is counted.",
        lambda: services.vote(
            actor=party,
            proposal_id=proposal_id,
            support=support,
            consent=consent_of_form(request),
            now=clock.now(),
        ),
    )


@login_required
@require_POST
def execute(request: HttpRequest, proposal_id: UUID) -> HttpResponse:
    party = party_of(request)
    return act(
        request,
        reverse("explorer:proposal", args=[proposal_id]),
        "Executed, exactly as voted.",
        lambda: executing.execute(proposal_id=proposal_id, actor=party, now=clock.now()),
    )


def _cited(proposal: Proposal) -> dict[str, Any] | None:
    """The round that a slashing cites, and what it showed of whoever is to be slashed."""
    if "round" not in proposal.payload or "party" not in proposal.payload:
        return None
    found = Round.objects.select_related("dao", "round_job").get(pk=proposal.payload["round"])
    return {"round": found, "showed": shown_of(found, proposal.payload["party"])}


def _get(proposal_id: UUID) -> Proposal:
    try:
        return selectors.proposal_get(proposal_id)
    except NotFound:
        raise Http404 from None


def changes_in_words(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Changes as recorded; micro-units as amounts, since people decide on them."""
    rows = []
    for change in changes:
        if unit := UNIT.search(change["label"]):
            sides = {side: _amount(change.get(side), unit[1]) for side in ("before", "after")}
            change = {"label": change["label"][: unit.start()], **sides}
        rows.append(change)
    return rows


def _amount(micro: object, asset: str) -> str:
    text = str(micro or "")
    return exactly(int(text), asset) if text.isdecimal() else text


def _item(proposal: Proposal, now: datetime) -> dict[str, Any]:
    return {
        "proposal": proposal,
        "state": proposal.state(now).value,
        "kind": KINDS.get(proposal.kind, proposal.kind),
        "cast": proposal.for_weight + proposal.against_weight + proposal.abstain_weight,
    }


def _tally(proposal: Proposal) -> dict[str, Any]:
    """The tally in the terms of the page: parts of all weight, and the quorum as a mark."""
    total = proposal.total_weight or 0
    present = proposal.for_weight + proposal.abstain_weight
    cast = proposal.for_weight + proposal.against_weight
    tone = {"sbgt": "sbgt", "sdt": "sdt"}.get(proposal.house, "")
    return {
        "total": total,
        "present": present,
        "quorum_weight": total * proposal.quorum_bps // 10_000,
        "quorum_reached": tally.quorum_reached(proposal.facts),
        "carried": tally.vote_carried(proposal.facts),
        "approval": percent(proposal.for_weight, cast) if cast else None,
        "asset": {"super": "FLAI", "sdt": "SDT"}.get(proposal.house, "points"),
        "lines": [
            ("For", proposal.for_weight, tone),
            ("Against", proposal.against_weight, "quiet"),
            ("Abstain", proposal.abstain_weight, "quiet"),
        ],
    }
