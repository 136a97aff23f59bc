"""Requests-for-Model: the registry, the guided form, one request with its crowdfund."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.db.models import Count, FloatField, Q, Sum, Value
from django.db.models.functions import Extract, Floor
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.core import clock
from apps.core.errors import DomainError
from apps.explorer.fields import AmountField
from apps.explorer.formatting import (
    ENGINE_COSTS,
    RESOLUTION_NAMES,
    SCORING_NAMES,
    bps,
    budget_words,
    duration,
    exact,
    nodes_words,
    percent,
    short,
)
from apps.explorer.formatting import amount as amount_parts
from apps.explorer.page import act, explain, for_party, paged, party_of, show
from apps.explorer.pictures import Timeline, dollars, summed, timeline
from apps.explorer.rfm_form import STANDARD_NAMES, RfmForm, initial_from
from apps.explorer.wallet import OnceForm
from apps.participants import selectors as participants
from apps.participants.models import Application
from apps.protocol.consent import PLEDGE
from apps.protocol.founding import accepted_pledge
from apps.protocol.money import mul_div_floor
from apps.protocol.rfm_spec import engine_named_by
from apps.protocol.tickets import RING
from apps.rfms import funding, selectors, services
from apps.rfms.models import Rfm, Status
from apps.rfms.permissions import can_fork, can_pledge, can_submit
from apps.wallets.consenting import consent_of_form

STEPS_MAX = 120
FILTERS = ("voting", "funding", "awarded", "failed", "rejected")


class PledgeForm(OnceForm):
    amount = AmountField(label="Your pledge", help_text="From your USDC balance into escrow.")


def rfms(request: HttpRequest) -> HttpResponse:
    """All submitted requests, newest first, and one's own drafts."""
    state = request.GET.get("status", "")
    chosen = state if state in FILTERS else ""
    page = paged(request, _visible(party_of(request), chosen), 24)
    return show(request, "rfms.html", "rfms", page=page, state=chosen, states=FILTERS)


@for_party
def rfm_new(request: HttpRequest) -> HttpResponse:
    """The guided form; saving makes a draft, which is its own preview."""
    return _write(request, _start(request), services.rfm_create, submitter=party_of(request))


@for_party
def rfm_edit(request: HttpRequest, slug: str) -> HttpResponse:
    """The same form, for one's own draft; what was sent to the vote is shown and stays."""
    draft = _get(request, slug)
    if can_submit(party_of(request), draft):
        return redirect("explorer:rfm", slug)
    return _write(request, draft, services.rfm_update, actor=party_of(request), slug=slug)


def _write(
    request: HttpRequest, start: Rfm | None, save: Callable[..., Rfm], **who: Any
) -> HttpResponse:
    form = RfmForm(
        request.POST or None,
        initial=initial_from(start.title, start.spec) | _fork(request) if start else {},
        base=start.spec if start else None,
    )
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            made = save(title=data["title"], spec=data["spec"], now=clock.now(), **who)
        except DomainError as error:
            form.add_error(None, explain(error))
        else:
            messages.success(
                request, "Saved as a draft. Read it as others will, then send it to the vote."
            )
            return redirect("explorer:rfm", made.slug)
    draft = start if start and start.submitted_at is None else None
    status = 422 if form.errors else 200
    return show(
        request,
        "rfm_form.html",
        "rfms",
        status=status,
        form=form,
        draft=draft,
        start=start,
        party=party_of(request),
    )


def _fork(request: HttpRequest) -> dict[str, str]:
    fork = request.GET.get("fork", "")
    return {"title": "", "parent": fork} if fork else {}


def _start(request: HttpRequest) -> Rfm | None:
    """`?from=<slug>` starts from another request, `?fork=<slug>` from that of a SubDAO."""
    if fork := request.GET.get("fork", ""):
        return Rfm.objects.filter(subdao__slug=fork).first()
    slug = request.GET.get("from", "")
    return Rfm.objects.filter(slug=slug).exclude(submitted_at=None).first() if slug else None


def rfm(request: HttpRequest, slug: str) -> HttpResponse:
    """One request: what it asks for, how the vote or the funding stands, who applied."""
    return _rfm_page(request, slug, PledgeForm())


def _rfm_page(
    request: HttpRequest, slug: str, form: PledgeForm, preview: Any = None, status: int = 200
) -> HttpResponse:
    found, party, now = _get(request, slug), party_of(request), clock.now()
    fund = getattr(found, "crowdfund", None)
    applied = participants.applications(found.call) if found.call else Application.objects.none()
    backers, mine = _standing(fund, party)
    draft = found.status is Status.DRAFT
    return show(
        request,
        "rfm.html",
        "rfms",
        status=status,
        rfm=found,
        party=party,
        spec=found.spec,
        state=found.status.value,
        fund=fund,
        fund_open=bool(fund and fund.is_open(now)),
        backers=backers,
        left_micro=fund.target_micro - fund.raised_micro if fund else 0,
        mine_micro=mine,
        form=form,
        preview=preview,
        parent=(parent := selectors.parent_of(found)),
        cant_fork=can_fork(party, parent, now) if parent and party and draft else None,
        cant_pledge=can_pledge(party, found, now) if fund and party else None,
        own=party is not None and party.id == found.submitter_id,
        applications=paged(request, applied),
        standard=STANDARD_NAMES.get(found.spec["standard"], found.spec["standard"]),
        gates=found.spec["gates"],
        rules=_rules(found.spec),
        timeline=_timeline(found, fund),
        raised=_raised(fund, now) if backers else None,
    )


@require_POST
@for_party
def rfm_submit(request: HttpRequest, slug: str) -> HttpResponse:
    party, found = party_of(request), _get(request, slug)
    return act(
        request,
        reverse("explorer:rfm", args=[slug]),
        "Sent to the vote. Its text can't change any more.",
        lambda: services.rfm_submit(actor=party, slug=found.slug, now=clock.now()),
    )


@require_POST
@for_party
def pledge(request: HttpRequest, slug: str) -> HttpResponse:
    """First a preview of what you get for what you give; confirming it pays, once."""
    party, found = party_of(request), _get(request, slug)
    form = PledgeForm(request.POST)
    fund = getattr(found, "crowdfund", None)
    if not form.is_valid() or fund is None:
        return _rfm_page(request, slug, form, status=422)
    data = form.cleaned_data
    if "confirm" not in request.POST:
        return _rfm_page(request, slug, form, preview=_preview(found, fund, data, party))
    return act(
        request,
        reverse("explorer:rfm", args=[slug]),
        _thanks,
        lambda: funding.pledge(
            party=party,
            slug=found.slug,
            amount_micro=data["amount"],
            idempotency=data["once"],
            consent=consent_of_form(request),
            now=clock.now(),
        ),
    )


def _thanks(made: Any) -> str:
    _, prefix, number, unit = amount_parts(made.amount_micro, "USDC")
    amount = f"{prefix}{number}{unit}"
    return f"You pledged {amount}. It is in escrow, and yours again if the target is missed."


@require_POST
@for_party
def withdraw(request: HttpRequest, slug: str) -> HttpResponse:
    party, found = party_of(request), _get(request, slug)
    return act(
        request,
        reverse("explorer:rfm", args=[slug]),
        "Your pledge is back in your wallet.",
        lambda: funding.pledge_withdraw(party=party, slug=found.slug, now=clock.now()),
    )


def _preview(found: Rfm, fund: Any, data: dict[str, Any], party: Any) -> dict[str, Any]:
    """What is taken of the offer, and the tokens it becomes if the target is met."""
    asked_micro, back = data["amount"], reverse("explorer:rfm", args=[found.slug])
    accepted_micro = accepted_pledge(
        asked_micro, raised_micro=fund.raised_micro, target_micro=fund.target_micro
    )
    accepted = exact(accepted_micro).replace(",", "")
    pool = mul_div_floor(fund.sdt_supply_micro, found.spec["terms"]["backers_sdt_bps"], 10_000)
    sdt_micro = mul_div_floor(pool, accepted_micro, fund.target_micro)
    warning = (
        f"Only this much is still missing; the rest of your {dollars(asked_micro)} stays with you."
        if asked_micro > accepted_micro
        else ""
    )
    return {
        "accepted_micro": accepted_micro,
        "accepted": accepted,
        "action": reverse("explorer:rfm-pledge", args=[found.slug]),
        "back": back,
        "submit": f"Pledge {dollars(accepted_micro)}",
        "warning": warning,
        "hidden": [("once", data["once"]), ("amount", accepted)],
        "sign": [("sign", PLEDGE), ("rfm", found.id)] if party.wallet_key else [],
        "rows": [
            ("You pay into escrow", dollars(accepted_micro)),
            ("You get if it is funded", f"{short(sdt_micro, decimals_min=0, decimals_max=4)} SDT"),
            ("That is", f"{percent(accepted_micro, fund.target_micro)} of what backers get"),
            ("If the target is missed", "all of it back"),
        ],
    }


def _get(request: HttpRequest, slug: str) -> Rfm:
    """A request that this visitor may see: drafts are their author's only."""
    joined = ("submitter", "crowdfund", "proposal", "call", "subdao")
    found = Rfm.objects.select_related(*joined).filter(slug=slug).first()
    party = party_of(request)
    if found is None:
        raise Http404
    if found.status == Status.DRAFT and (party is None or found.submitter_id != party.id):
        raise Http404
    return found


def _visible(party: Any, status: str) -> Any:
    """Submitted requests and the party's own drafts, newest first; of one status if given."""
    facts = {
        "": Q(),
        "voting": Q(submitted_at__isnull=False, approved_at=None, rejected_at=None, failed_at=None),
        "funding": Q(approved_at__isnull=False, awarded_at=None, failed_at=None),
        "awarded": Q(awarded_at__isnull=False),
        "failed": Q(failed_at__isnull=False),
        "rejected": Q(rejected_at__isnull=False),
    }[status]
    seen = Q(submitted_at__isnull=False)
    if party is not None:
        seen |= Q(submitter=party)
    rows = Rfm.objects.filter(facts & seen).select_related("submitter", "crowdfund")
    return rows.order_by("-created_at", "-id")


def _standing(fund: Any, party: Any) -> tuple[int, int]:
    """(how many parties' pledges stand, what this party's do), by one query."""
    if fund is None:
        return 0, 0
    mine = Sum("amount_micro", filter=Q(party=party))  # of nobody, for a stranger
    found = selectors.standing(fund).aggregate(count=Count("party", distinct=True), mine=mine)
    return found["count"], found["mine"] or 0


def _raised(fund: Any, now: datetime) -> Timeline:
    """What stood pledged over time, in some hundred steps at most, however many pledges."""
    end = min(fund.filled_at or fund.failed_at or now, now)
    width_s = max((end - fund.opened_at).total_seconds() / STEPS_MAX, 0.001)
    changes: dict[int, int] = defaultdict(int)
    for moment, sign in (("pledged_at", 1), ("withdrawn_at", -1)):
        slot = Floor(Extract(moment, "epoch") / Value(width_s, FloatField()))
        rows = fund.pledges.exclude(**{moment: None}).order_by().annotate(slot=slot)
        for place, micro in rows.values_list("slot").annotate(sum=Sum("amount_micro")):
            changes[int(place)] += sign * micro
    moves = [
        (datetime.fromtimestamp(place * width_s, UTC), changes[place]) for place in sorted(changes)
    ]
    return timeline(summed(moves), start=fund.opened_at, end=end, goal_micro=fund.target_micro)


def _rules(spec: dict[str, Any]) -> list[tuple[str, str]]:
    governance = spec["governance"]
    engine = engine_named_by(governance.get("engine", RING), governance["t"])
    return [
        ("Voting period", duration(governance["voting_period_s"])),
        ("Quorum", bps(governance["quorum_bps"])),
        ("Approval threshold", bps(governance["threshold_bps"])),
        ("Timelock", duration(governance["timelock_s"])),
        ("Epoch", duration(governance["epoch_s"])),
        ("Least custodians", str(governance["min_custodians"])),
        ("Least validators", str(governance["min_validators"])),
        ("Contributions are scored by", SCORING_NAMES[governance.get("scoring", "taylor")]),
        ("Buyers are answered by", RESOLUTION_NAMES[spec["terms"].get("resolution", "logit")]),
        ("Privacy budget", budget_words(governance.get("privacy", {}))),
        ("Nodes", nodes_words(engine, governance["n"])),
        ("Nodes compute on", ENGINE_COSTS[engine]),
    ]


def _timeline(found: Rfm, fund: Any) -> list[dict[str, Any]]:
    """What happened, then what is still to come."""
    steps: list[dict[str, Any]] = [
        {"what": "Written", "at": found.created_at, "state": "done"},
        {"what": "Sent to the vote", "at": found.submitted_at, "state": "done"},
        {"what": "Approved by the SuperDAO", "at": found.approved_at, "state": "done"},
        {"what": "Funded", "at": fund.filled_at if fund else None, "state": "done"},
        {"what": "SubDAO founded", "at": found.awarded_at, "state": "done"},
    ]
    if found.rejected_at:
        steps[2:] = [{"what": "Not approved", "at": found.rejected_at, "state": "bad"}]
    elif found.failed_at:
        steps[3:] = [{"what": "Target missed, refunded", "at": found.failed_at, "state": "bad"}]
    ahead = False
    for step in steps:
        if step["at"] is None:
            step["state"] = "next" if ahead else "now"
            ahead = True
    return steps
