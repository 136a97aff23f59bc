"""Reads of proposals: lists by state, one in full, and why a weight is what it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import (
    Case,
    CharField,
    DecimalField,
    DurationField,
    ExpressionWrapper,
    F,
    Q,
    QuerySet,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.governance import weights
from apps.governance.models import Proposal, SnapshotWeight, Vote
from apps.protocol.money import BPS
from apps.protocol.tally import State, execution_closes_at, execution_opens_at, quorum_reached
from apps.subdaos.models import Dao

VOTES_SHOWN = 100
_WIDE = DecimalField(max_digits=40, decimal_places=0)


@dataclass(frozen=True)
class Weight:
    """`weight` of `total`, and the reason in words. `total` is None before the snapshot."""

    weight: int
    total: int | None
    why: str


def last_carried(dao: Dao, kind: str, *, before: datetime) -> Proposal | None:
    """The last proposal of this kind that was executed there before that instant."""
    return (
        Proposal.objects.filter(dao=dao, kind=kind, executed_at__lt=before)
        .order_by("-executed_at")
        .first()
    )


def with_state(proposals: QuerySet[Proposal], now: datetime) -> QuerySet[Proposal]:
    """Annotates `state_now`: the twin of protocol.tally.proposal_state, for filters and sorting."""

    def wide(name: str) -> Cast:
        return Cast(Coalesce(F(name), Value(0)), _WIDE)

    def seconds(name: str) -> ExpressionWrapper:
        return ExpressionWrapper(
            F(name) * Value(timedelta(seconds=1), DurationField()), output_field=DurationField()
        )

    opens = ExpressionWrapper(
        F("voting_ends_at") + seconds("timelock_s"),
        output_field=Proposal._meta.get_field("voting_ends_at"),
    )
    annotated = proposals.annotate(
        a_opens=opens,
        a_present=(wide("for_weight") + wide("abstain_weight")) * BPS,
        a_needed=wide("total_weight") * F("quorum_bps"),
        a_share=wide("for_weight") * BPS,
        a_share_needed=(wide("for_weight") + wide("against_weight")) * F("threshold_bps"),
    ).annotate(
        a_closes=ExpressionWrapper(
            F("a_opens") + seconds("grace_s"),
            output_field=Proposal._meta.get_field("voting_ends_at"),
        )
    )
    carried = Q(
        total_weight__gt=0,
        a_present__gte=F("a_needed"),
        for_weight__gt=F("against_weight"),
        a_share__gte=F("a_share_needed"),
    )
    return annotated.annotate(
        state_now=Case(
            When(executed_at__isnull=False, then=Value(State.EXECUTED.value)),
            When(canceled_at__isnull=False, then=Value(State.CANCELED.value)),
            When(voting_starts_at__gt=now, then=Value(State.PENDING.value)),
            When(voting_ends_at__gt=now, then=Value(State.ACTIVE.value)),
            When(~carried, then=Value(State.DEFEATED.value)),
            When(a_opens__gt=now, then=Value(State.QUEUED.value)),
            When(a_closes__gt=now, then=Value(State.SUCCEEDED.value)),
            default=Value(State.EXPIRED.value),
            output_field=CharField(),
        )
    )


def proposal_list(
    *, now: datetime, dao: Dao | None = None, state: str | None = None, kind: str | None = None
) -> QuerySet[Proposal]:
    """Newest first."""
    rows = Proposal.objects.select_related("dao", "proposer")
    if dao is not None:
        rows = rows.filter(dao=dao)
    if kind:
        rows = rows.filter(kind=kind)
    if state:
        rows = with_state(rows, now).filter(_must_hold(state, now), state_now=state)
    return rows.order_by("-created_at", "-id")


def _must_hold(state: str, now: datetime) -> Q:
    """What a state asks of the plain columns: an index finds these, and few are left to compute."""
    match state:
        case State.EXECUTED:
            return Q(executed_at__isnull=False)
        case State.CANCELED:
            return Q(canceled_at__isnull=False)
    going = Q(executed_at=None, canceled_at=None)
    match state:
        case State.PENDING:
            return going & Q(voting_starts_at__gt=now)
        case State.ACTIVE:
            return going & Q(voting_ends_at__gt=now)
    return going & Q(voting_ends_at__lte=now)


def proposal_get(proposal_id: UUID | str) -> Proposal:
    """Raises NotFound."""
    try:
        return Proposal.objects.select_related("dao", "dao__party", "proposer").get(id=proposal_id)
    except (Proposal.DoesNotExist, ValidationError):  # ValidationError: not a UUID at all
        raise NotFound("proposal_not_found", "There is no such proposal.") from None


def proposals_of_ref(kind: str, ref: str) -> Proposal | None:
    """The system's own proposal about one thing, if there is one."""
    return Proposal.objects.filter(kind=kind, ref=ref).first()


def weight(proposal: Proposal, party: Party | None, now: datetime) -> Weight:
    """What `party`'s vote counts on this proposal, of what, and why."""
    name = weights.NAMES[proposal.house]
    total = proposal.total_weight
    if party is None:
        return Weight(0, total, f"Sign in to vote. Votes here are weighed in {name}.")
    if proposal.total_weight is None and now < proposal.voting_starts_at:
        current = weights.house_weight(proposal.dao, proposal.house, party, now)
        return Weight(
            current,
            None,
            f"Voting has not begun. Your weight is taken at its start, in {name}; "
            "this is what you hold now.",
        )
    if proposal.total_weight is None:
        counted = weights.house_weight(proposal.dao, proposal.house, party, proposal.snapshot_at)
    else:
        row = SnapshotWeight.objects.filter(proposal=proposal, party=party).first()
        counted = row.weight if row else 0
    if counted:
        return Weight(counted, total, f"Your {name} when voting began.")
    if weights.house_weight(proposal.dao, proposal.house, party, now) > 0:
        return Weight(
            0,
            total,
            f"You had no {name} when the snapshot was taken; what you received or staked after "
            "it counts for later proposals.",
        )
    return Weight(0, total, f"Votes here are weighed in {name}, and you hold none.")


def my_vote(proposal: Proposal, party: Party | None) -> Vote | None:
    return Vote.objects.filter(proposal=proposal, voter=party).first() if party else None


def vote_json(row: Vote) -> dict[str, Any]:
    return {
        "voter": {"slug": row.voter.slug, "name": row.voter.name},
        "support": row.support,
        "weight": str(row.weight),
        "at": row.at,
    }


def votes(proposal: Proposal) -> QuerySet[Vote]:
    return Vote.objects.filter(proposal=proposal).select_related("voter").order_by("at", "id")


def proposal_summary(proposal: Proposal, now: datetime) -> dict[str, Any]:
    """What a list shows."""
    facts = proposal.facts
    return {
        "id": str(proposal.id),
        "dao": proposal.dao.slug,
        "house": proposal.house,
        "kind": proposal.kind,
        "title": proposal.title,
        "proposer": proposal.proposer.slug if proposal.proposer else None,
        "state": proposal.state(now).value,
        "payload_hash": proposal.payload_hash,
        "created_at": proposal.created_at,
        "voting_starts_at": proposal.voting_starts_at,
        "voting_ends_at": proposal.voting_ends_at,
        "execution_opens_at": execution_opens_at(facts),
        "execution_closes_at": execution_closes_at(facts),
        "quorum_bps": proposal.quorum_bps,
        "threshold_bps": proposal.threshold_bps,
        "tally": {
            "for": str(proposal.for_weight),
            "against": str(proposal.against_weight),
            "abstain": str(proposal.abstain_weight),
            "total": None if proposal.total_weight is None else str(proposal.total_weight),
            "quorum_reached": quorum_reached(facts),
        },
        "executed_at": proposal.executed_at,
    }


def proposal_detail(
    proposal: Proposal, *, now: datetime, viewer: Party | None = None
) -> dict[str, Any]:
    """One proposal in full, as the API gives it, from the viewer's side."""
    mine = weight(proposal, viewer, now)
    vote = my_vote(proposal, viewer)
    return {
        **proposal_summary(proposal, now),
        "description": proposal.description,
        "payload": proposal.payload,
        "changes": proposal.changes,
        "snapshot_at": proposal.snapshot_at,
        "timelock_s": proposal.timelock_s,
        "extended_at": proposal.extended_at,
        "concluded_at": proposal.concluded_at,
        "canceled_at": proposal.canceled_at,
        "execution_error": proposal.execution_error or None,
        "my": {
            "weight": str(mine.weight),
            "why": mine.why,
            "vote": vote.support if vote else None,
        },
        "votes": [vote_json(row) for row in votes(proposal)[:VOTES_SHOWN]],
    }
