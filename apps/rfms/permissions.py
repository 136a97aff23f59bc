"""Who may do what to an RFM, and why not: one answer for service, API and page."""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.permissions import Denied
from apps.exchange.selectors import lacks_micro
from apps.protocol import unlocks
from apps.rfms.models import Crowdfund, Rfm, Status
from apps.subdaos.models import Dao
from apps.subdaos.selectors import superdao
from apps.wallets.selectors import asset_by_code

MICRO = 1_000_000


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
    return _funding_open(rfm, now) or _stakers_first(actor, rfm, now)


def stakers_until(rfm: Rfm, now: datetime) -> datetime | None:
    """When everybody may pledge; None once they may."""
    fund: Crowdfund | None = getattr(rfm, "crowdfund", None)
    if fund is None:
        return None
    rules = unlocks.sponsoring_of(superdao().params["sponsoring"])
    if not unlocks.first(rules, opened_ms=unix_ms(fund.opened_at), at_ms=unix_ms(now)):
        return None
    return fund.opened_at + timedelta(seconds=rules.first_s)


def _stakers_first(actor: Party, rfm: Rfm, now: datetime) -> Denied | None:
    until = stakers_until(rfm, now)
    if until is None:
        return None
    rules = unlocks.sponsoring_of(superdao().params["sponsoring"])
    lacking = lacks_micro(actor, asset_by_code("FLAI"), rules)
    if not lacking:
        return None
    return Denied(
        "stakers_first",
        f"Until {until:%Y-%m-%d %H:%M} UTC only those may fund this request who have staked "
        f"{rules.stake_bps / 100:g} % of all FLAI; you lack {_tokens(lacking)} FLAI. "
        "Nothing was charged.",
    )


def can_fork(actor: Party, parent: Dao, now: datetime) -> Denied | None:
    """Who has staked enough of the parent's token."""
    assert parent.asset is not None
    rules = unlocks.unlocks_of(parent.params["unlocks"])
    lacking = lacks_micro(actor, parent.asset, rules)
    if not lacking:
        return None
    code = parent.asset.code
    return Denied(
        "stake_needed",
        f"Who proposes a fork of {parent.name} has staked {rules.stake_bps / 100:g} % of {code}; "
        f"you lack {_tokens(lacking)} {code}.",
    )


def _tokens(micro: int) -> str:
    return f"{micro // MICRO:,}.{micro % MICRO:06d}".rstrip("0").rstrip(".")


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
