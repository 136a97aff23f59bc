"""Who may do what to an RFM, and why not: one answer for service, API and page."""

from __future__ import annotations

from datetime import datetime

from apps.accounts.models import Party
from apps.core.permissions import Denied
from apps.rfms.models import Crowdfund, Rfm, Status


def can_submit(actor: Party | None, rfm: Rfm) -> Denied | None:
    """Its author, once."""
    if actor is None or rfm.submitter_id != actor.id:
        return Denied("not_submitter", "Only its author may send a draft to the vote.")
    if rfm.status is not Status.DRAFT:
        return Denied("already_submitted", "This request was sent to the vote already.")
    return None


def can_pledge(actor: Party | None, rfm: Rfm, now: datetime) -> Denied | None:
    """People and organisations, while the crowdfund is open."""
    if actor is None:
        return Denied("sign_in", "Sign in to fund this request.")
    if actor.kind not in (Party.Kind.PERSON, Party.Kind.ORGANISATION):
        return Denied("not_a_backer", "Only people and organisations fund requests.")
    return _funding_open(rfm, now)


def can_withdraw(actor: Party | None, rfm: Rfm, now: datetime) -> Denied | None:
    """A backer, until the crowdfund closes."""
    if actor is None:
        return Denied("sign_in", "Sign in to withdraw a pledge.")
    return _funding_open(rfm, now)


def _funding_open(rfm: Rfm, now: datetime) -> Denied | None:
    fund: Crowdfund | None = getattr(rfm, "crowdfund", None)
    if fund is None:
        return Denied("not_funding", "This request is not open for funding.")
    if fund.filled_at is not None:
        return Denied("target_reached", "The target is reached; the crowdfund is closed.")
    if not fund.is_open(now):
        return Denied("funding_closed", "The crowdfund is over.")
    return None


def award_waits_for(rfm: Rfm, counts: dict[str, int]) -> list[str]:
    """What a full crowdfund still lacks, in words: a SubDAO needs members who can train and
    judge, and nobody else could vote in it."""
    rules = rfm.spec["governance"]
    missing = []
    for role, key in (("custodian", "min_custodians"), ("validator", "min_validators")):
        lacking = rules[key] - counts.get(role, 0)
        if lacking > 0:
            missing.append(f"{lacking} more {role}{'s' if lacking > 1 else ''}")
    return missing
