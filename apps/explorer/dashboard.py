"""What there is for who is signed in: what needs them, what changed since they were last here, what
they earned. One query for each question, whatever the number of things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Exists, FloatField, Max, OuterRef, Q, QuerySet, Sum, Value
from django.db.models.functions import Extract, Floor, JSONObject
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from apps.accounts.models import Party
from apps.accounts.services import visit
from apps.core import clock
from apps.explorer.page import party_of, show
from apps.explorer.pictures import Timeline, said, summed, sums, timeline
from apps.governance.models import Proposal
from apps.listings.claims import claimable_now
from apps.listings.models import Query, Subscription
from apps.listings.plans import Withdrawn
from apps.rfms.models import Pledge, Rfm
from apps.training.models import UNSENT, Member, Phase, Submission
from apps.wallets.models import Account, PaymentSettings, Transfer

SHOWN = 8
NEAR = timedelta(days=3)
RECENT = timedelta(days=30)
STEPS_MAX = 200
# Transfers that are income; what merely comes back (refunds, reversals) or was bought is none.
EARNED = ("listings.payout",)
Money = dict[tuple[str, str], int]
# The columns that are read of wide rows, of which many are joined.
ROUND = (
    "number",
    "phase",
    "training",
    "opened_at",
    "due_at",
    "expires_at",
    "closed_at",
    "dao__name",
)
STEPS = ("created_at", "submitted_at", "approved_at", "rejected_at", "awarded_at", "failed_at")
FUND = ("target_micro", "raised_micro", "deadline_at", "filled_at", "failed_at")


@dataclass(frozen=True)
class Item:
    """One line: what it is, where it leads, why it stands here, and when it ends or was."""

    title: str
    url: str
    why: str
    at: datetime | None = None
    action: str = ""
    state: str = ""


@login_required
def dashboard(request: HttpRequest) -> HttpResponse:
    """The first page of who is signed in; `/` shows it too."""
    now, party = clock.now(), party_of(request)
    # A page that reads itself anew is no visit.
    since = visit(request.user, now=now, count="X-Live" not in request.headers)
    if party is None:
        return show(request, "nobody.html", "home")
    money, low_micro, plans = _money(party, since)
    requests, queries = _requests(party, now, since), _queries(party)
    rounds = _rounds(party, since)
    earned = _earned(party, now, since)
    needs = [
        *_votes(party, now),
        *_rounds_waiting(rounds),
        *_claims(party),
        *_requests_waiting(requests, party, now),
        *_balance_low(queries, money, low_micro),
    ]
    changed = [
        *_requests_changed(requests, since),
        *_proposals_concluded(party, now, since),
        *_rounds_closed(rounds),
        *_predictions_ended(queries, since),
        *_plans_ended(plans),
        *_paid(earned),
    ]
    changed.sort(key=lambda item: item.at or now, reverse=True)
    return show(
        request,
        "dashboard.html",
        "home",
        party=party,
        since=since,
        first=request.user.visited_before_at is None,
        needs=needs,
        changed=changed[:SHOWN],
        to_spend_micro=money.get(("USDC", "main"), 0),
        staked_micro=money.get(("FLAI", "staked"), 0),
        owned=len({code for (code, _), micro in money.items() if micro and code[:4] == "SDT-"}),
        earned=earned,
        earnings=_picture(earned, now),
        faucet=settings.FAUCET,
        new=not money and not requests and not queries,
    )


def _money(party: Party, since: datetime) -> tuple[Money, int | None, list[dict[str, str]]]:
    """{(asset, purpose): available micro-units}, below how much USDC to warn, and the plans that
    ended otherwise than their buyer had asked."""
    low = PaymentSettings.objects.filter(party=OuterRef("owner")).values("low_micro")
    ended = Subscription.objects.filter(buyer=OuterRef("owner"), ended_at__gt=since)
    said = JSONObject(name="listing__dao__name", why="unrenewed", at="ended_at")
    plans = ended.exclude(unrenewed="").order_by("-ended_at").values(said=said)[:SHOWN]
    rows = list(
        Account.objects.filter(owner=party)
        .select_related("asset")
        .annotate(low=low[:1], plans=ArraySubquery(plans))
    )
    money = {(row.asset.code, row.purpose): row.available_micro for row in rows}
    return money, rows[0].low if rows else None, rows[0].plans if rows else []


# ---------- what needs them ----------


def _votes(party: Party, now: datetime) -> Iterator[Item]:
    """Open votes in which the party has weight and has not voted, by when they end."""
    rows = (
        Proposal.objects.filter(
            voting_starts_at__lte=now,
            voting_ends_at__gt=now,
            canceled_at=None,
            weights__party=party,
        )
        .exclude(votes__voter=party)
        .select_related("dao")
        .only("title", "voting_ends_at", "dao__name")
    )
    for row in rows.order_by("voting_ends_at")[:SHOWN]:
        why = f"{row.dao.name} asks for your vote"
        yield Item(row.title, _to("proposal", row.id), why, row.voting_ends_at, "Read and vote")


def _rounds(party: Party, since: datetime) -> list[Any]:
    """The party's places in rounds that are open or closed since then."""

    def sent(stage: str) -> Exists:
        shares = Submission.objects.filter(round=OuterRef("round"), party=party, stage=stage)
        return Exists(shares.exclude(state__in=UNSENT))

    rows = Member.objects.filter(Q(round__closed_at=None) | Q(round__closed_at__gt=since))
    return list(
        rows.filter(party=party, left_phase="")
        .select_related("round__dao")
        .only("party", "role", *(f"round__{name}" for name in ROUND))
        .annotate(sent_sums=sent("moments"), sent_update=sent("round"))
        .order_by("-round__opened_at")[:SHOWN]
    )


def _rounds_waiting(members: list[Any]) -> Iterator[Item]:
    """Rounds that wait for this site's agent."""
    for member in members:
        held = member.round
        sums = held.phase == Phase.MOMENTS and member.role == "custodian" and not member.sent_sums
        update = held.phase == Phase.UPDATES and not member.sent_update
        if sums or update:
            own = "rows" if held.shares_rows else "update"
            what = "sums" if sums else own if member.role == "custodian" else "holdout"
            yield Item(
                f"Round {held.number} of {held.dao.name}",
                _to("round", held.id),
                f"It waits for your agent to send the {what}",
                held.due_at or held.expires_at,
                "See the round",
            )


def _claims(party: Party) -> Iterator[Item]:
    """Closed epochs that owe the party something it has not taken yet."""
    found, more = claimable_now(party)
    waiting: dict[Any, list[Any]] = {}
    for row in found:
        waiting.setdefault(row.epoch.dao_id, []).append(row)
    for rows in waiting.values():
        first, numbers = rows[0].epoch, {row.epoch.number for row in rows}
        owed = sums((row.asset, row.amount_micro) for row in rows) + " or more" * more
        if len(numbers) == 1:
            title, url = f"Epoch {first.number} of {first.dao.name}", _to("epoch", first.pk)
            why = f"It owes you {owed}"
        else:
            title, url = f"{len(numbers)} epochs of {first.dao.name}", _wallet("claim")
            why = f"They owe you {owed}"
        yield Item(title, url, why, None, "Claim")


def _requests(party: Party, now: datetime, since: datetime) -> list[Any]:
    """Own and backed requests: drafts, those that close soon, and those that something befell."""
    standing = Pledge.objects.filter(crowdfund__rfm=OuterRef("pk"), party=party)
    backed = standing.filter(withdrawn_at=None)
    events = Q()
    for moment in STEPS[2:]:
        events |= Q(**{f"{moment}__gt": since})
    soon = Q(
        crowdfund__deadline_at__gt=now,
        crowdfund__deadline_at__lt=now + NEAR,
        crowdfund__filled_at=None,
        crowdfund__failed_at=None,
    )
    return list(
        Rfm.objects.annotate(backed=Exists(backed))
        .filter(Q(submitter=party) | Q(backed=True))
        .filter(Q(submitted_at=None) | soon | events)
        .select_related("crowdfund")
        .only("title", "slug", *STEPS, *(f"crowdfund__{name}" for name in FUND))
        .order_by("-created_at")[: 2 * SHOWN]
    )


def _requests_waiting(rows: list[Any], party: Party, now: datetime) -> Iterator[Item]:
    for row in rows:
        fund = getattr(row, "crowdfund", None)
        if row.submitted_at is None:
            yield Item(
                row.title, _to("rfm", row.slug), "Your draft, seen by you only", None, "Finish"
            )
        elif fund and fund.is_open(now) and fund.deadline_at < now + NEAR:
            missing = said(fund.target_micro - fund.raised_micro)
            own = "backed" if row.backed else "wrote"
            why = f"You {own} it; {missing} is missing"
            yield Item(row.title, _to("rfm", row.slug), why, fund.deadline_at, "See the funding")


def _queries(party: Party) -> list[Any]:
    rows = Query.objects.filter(buyer=party).select_related("listing__dao")
    shown = ("state", "ended_at", "listing__row_price_micro", "listing__dao__name")
    return list(rows.only(*shown).order_by("-created_at")[: 5 * SHOWN])


def _balance_low(queries: list[Any], money: Money, low_micro: int | None) -> Iterator[Item]:
    """Less than the party's own threshold, or than one more row of the model asked last costs."""
    left = money.get(("USDC", "main"), 0)
    if low_micro is not None and left < low_micro:
        why = f"You want to be warned below {said(low_micro)}"
    elif queries and left < (price := queries[0].listing.row_price_micro):
        why = f"One row of {queries[0].listing.dao.name} costs {said(price)}"
    else:
        return
    title = f"You have {said(left)} to spend"
    yield Item(title, reverse("explorer:wallet"), why, None, "Add money")


# ---------- what changed ----------


def _requests_changed(rows: list[Any], since: datetime) -> Iterator[Item]:
    said = {
        "awarded_at": "Funded: its SubDAO was founded",
        "failed_at": "Its target was missed; every pledge went back",
        "approved_at": "Approved: it is open for funding",
        "rejected_at": "Not approved",
    }
    for row in rows:
        for moment, why in said.items():
            at = getattr(row, moment)
            if at is not None and at > since:
                yield Item(row.title, _to("rfm", row.slug), why, at, state=row.status.value)
                break


def _proposals_concluded(party: Party, now: datetime, since: datetime) -> Iterator[Item]:
    rows: QuerySet[Any] = Proposal.objects.filter(votes__voter=party, concluded_at__gt=since)
    for row in rows.order_by("-concluded_at")[:SHOWN]:
        why, state = "A vote that you took part in has ended", row.state(now).value
        yield Item(row.title, _to("proposal", row.id), why, row.concluded_at, state=state)


def _rounds_closed(members: list[Any]) -> Iterator[Item]:
    for member in members:
        held = member.round
        if held.closed_at is not None:
            title = f"Round {held.number} of {held.dao.name}"
            why = "A round that you took part in is over"
            yield Item(title, _to("round", held.id), why, held.closed_at, state=held.phase)


def _predictions_ended(queries: list[Any], since: datetime) -> Iterator[Item]:
    """The latest of each model; the rest are in the wallet."""
    seen = set()
    for row in queries:
        if row.ended_at is None or row.ended_at <= since or row.listing_id in seen:
            continue
        seen.add(row.listing_id)
        why = "Answered and paid" if row.state == Query.State.SETTLED else "Nothing was charged"
        title = f"Your prediction by {row.listing.dao.name}"
        yield Item(title, _to("query", row.id), why, row.ended_at, state=row.state)


def _plans_ended(plans: list[dict[str, str]]) -> Iterator[Item]:
    for plan in plans:
        back = plan["why"] == Withdrawn.code
        why = "Its model was taken off sale; what was left was paid back" if back else "Not renewed"
        title, at = f"Your plan at {plan['name']}", datetime.fromisoformat(plan["at"])
        yield Item(title, reverse("explorer:plans"), why, at, state="ended")


def _paid(earned: Earned) -> Iterator[Item]:
    if earned.fresh_micro:
        title = f"You were paid {said(earned.fresh_micro)}"
        yield Item(
            title, _wallet("history"), "Your part of what models earned", earned.points[-1][0]
        )


# ---------- what they earned ----------


@dataclass(frozen=True)
class Earned:
    """What was earned until each time, in the last thirty days, and since the last visit."""

    points: list[tuple[datetime, int]]
    recent_micro: int
    fresh_micro: int

    @property
    def all_micro(self) -> int:
        return self.points[-1][1] if self.points else 0


def _earned(party: Party, now: datetime, since: datetime) -> Earned:
    """The income, in some hundred steps at most, however many payments."""
    width_s = max((now - party.created_at).total_seconds() / STEPS_MAX, 0.001)
    slot = Floor(Extract("created_at", "epoch") / Value(width_s, FloatField()))
    rows = (
        Transfer.objects.filter(credit__owner=party, kind__in=EARNED, phase="single")
        .filter(credit__asset__code="USDC")
        .order_by()
        .annotate(slot=slot)
        .values_list("slot")
        .annotate(
            at=Max("created_at"),
            sum=Sum("amount_micro"),
            recent=Sum("amount_micro", filter=Q(created_at__gt=now - RECENT)),
            fresh=Sum("amount_micro", filter=Q(created_at__gt=since)),
        )
    )
    found = sorted(row[1:] for row in rows)
    return Earned(
        summed((at, micro) for at, micro, _, _ in found),
        sum(recent or 0 for _, _, recent, _ in found),
        sum(fresh or 0 for *_, fresh in found),
    )


def _picture(earned: Earned, now: datetime) -> Timeline | None:
    if not earned.points:
        return None
    first = earned.points[0][0]
    return timeline(earned.points, start=first - (now - first) / 10, end=now)


def _to(page: str, key: Any) -> str:
    return reverse(f"explorer:{page}", args=[key])


def _wallet(section: str) -> str:
    return f"{reverse('explorer:wallet')}#{section}"
