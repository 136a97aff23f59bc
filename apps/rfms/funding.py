"""The crowdfund: pledges, withdrawals, the award in one transaction, refunds.

All or nothing. Every writer locks the crowdfund's row first, so that the cap, the deadline and the
award see one order of events.
"""

from __future__ import annotations

import logging
import uuid
from datetime import datetime

from django.db import OperationalError
from django.db.models import Q

from apps.accounts.models import Party
from apps.core.errors import Conflict
from apps.core.events import emit
from apps.core.ids import effect_of
from apps.core.live import changed
from apps.core.permissions import ensure
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.exchange.vaults import stake_lock
from apps.participants import selectors as participants
from apps.participants.services import call_bind, call_close
from apps.protocol import consent as signing
from apps.protocol.founding import accepted_pledge, sdt_allocation, shares_of
from apps.protocol.rfm_spec import subdao_params
from apps.rfms import events, selectors
from apps.rfms.models import Crowdfund, Pledge, Rfm
from apps.rfms.permissions import award_waits_for, can_pledge, can_withdraw, stakers_until
from apps.subdaos.models import Dao
from apps.subdaos.services import found
from apps.wallets import keys, ledger, log
from apps.wallets.ledger import Leg
from apps.wallets.selectors import asset_by_code
from apps.wallets.services import account

logger = logging.getLogger(__name__)

AWARD = "flai.award"
CLOSE = "flai.close_crowdfund"
REFUND_BATCH = 100


class NothingPledged(Conflict):
    code = "nothing_pledged"
    text = "You have no pledge here to withdraw."


class NotReady(Conflict):
    code = "not_ready"
    text = "The SubDAO cannot be founded yet: {waits_for}."


def pledge(
    *,
    party: Party,
    slug: str,
    amount_micro: int,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime,
) -> Pledge:
    """Pay USDC into escrow; what goes over the target is not taken.

    idempotency: the same one again, from the same party, returns the pledge that exists.
    consent: by what the request acts; a bound wallet key must have signed what is asked.
    Raises Forbidden (can_pledge), InsufficientBalance, Conflict (it was another pledge's), what
    `keys.grant` raises.
    """
    pledge_id = effect_of(party.id, "rfms.pledge", idempotency)
    with durable():
        rfm, fund = _locked(selectors.rfm_by_slug(slug).id)
        made = Pledge.objects.filter(id=pledge_id).first()
        if made is not None:
            same = (made.crowdfund_id, made.party_id, made.asked_micro)
            if same != (fund.id if fund else None, party.id, amount_micro):
                raise Conflict("pledge_conflict", "This pledge was made with other content.")
            return made
        ensure(can_pledge(party, rfm, now))
        asked = signing.pledge_payload(rfm=str(rfm.id), amount_micro=amount_micro)
        said = keys.grant(party, signing.PLEDGE, asked, consent, now=now)
        if stakers_until(rfm, now):
            stake_lock(party, asset_by_code("FLAI"), account(party, "USDC"), fund.escrow)
            ensure(can_pledge(party, rfm, now))
        accepted = accepted_pledge(
            amount_micro, raised_micro=fund.raised_micro, target_micro=fund.target_micro
        )
        ledger.post(
            [
                Leg(
                    id=pledge_id,
                    debit_account=account(party, "USDC"),
                    credit_account=fund.escrow,
                    amount_micro=accepted,
                    kind=signing.PLEDGE,
                    ref=("rfms.rfm", rfm.id),
                    said=said | {"asked_micro": str(amount_micro)},
                )
            ],
            now=now,
        )
        made = Pledge.objects.create(
            id=pledge_id,
            crowdfund=fund,
            party=party,
            asked_micro=amount_micro,
            amount_micro=accepted,
            pledged_at=now,
            created_at=now,
        )
        fund.raised_micro += accepted
        if fund.raised_micro == fund.target_micro:
            fund.filled_at = now
            emit(events.CrowdfundFilled(rfm_id=str(rfm.id)), now=now)
            wake(AWARD, rfm.id)
        fund.save(update_fields=["raised_micro", "filled_at"])
        changed(f"rfm:{rfm.id}")
        _leaf("rfms.pledged", rfm, party, made.id, accepted, now)
    return made


def pledge_withdraw(*, party: Party, slug: str, now: datetime) -> int:
    """Take back everything one has pledged, until the crowdfund closes. Returns micro-units.

    Raises Forbidden (can_withdraw), NothingPledged.
    """
    with durable():
        rfm, fund = _locked(selectors.rfm_by_slug(slug).id)
        ensure(can_withdraw(party, rfm, now))
        mine = list(selectors.standing(fund).filter(party=party).order_by("id"))
        if not mine:
            raise NothingPledged()
        returned = _return(rfm, fund, mine, "withdrawn_at", now)
    return returned


def award(*, rfm_id: uuid.UUID | str, now: datetime) -> Dao:
    """Found the SubDAO of a full crowdfund in one transaction, once; awarding again returns it.

    SubDAO party, SDT minted and divided, escrow → treasury, one soul-bound point per verified
    application, the call handed over, log leaves and events: all of it or nothing.
    Raises NotReady naming what is missing.
    """
    with durable():
        rfm, fund = _locked(rfm_id)
        if rfm.awarded_at is not None:
            return rfm.subdao
        if fund is None or fund.filled_at is None or fund.failed_at is not None:
            raise NotReady(waits_for="the crowdfund is not full")
        missing = award_waits_for(rfm, participants.counts(rfm.call))
        if missing:
            raise NotReady(waits_for=" and ".join(missing) + " must apply")
        shares = shares_of(rfm.spec)
        pledged = selectors.pledged_by_party(fund)
        allocation = sdt_allocation(fund.sdt_supply_micro, pledged, shares)
        dao = found(
            slug=rfm.slug,
            name=rfm.title[:120],
            params=subdao_params(rfm.spec),
            rfm_id=rfm.id,
            allocation=allocation,
            shares=shares,
            pledged=pledged,
            submitter=rfm.submitter,
            parent=selectors.parent_of(rfm),
            escrow=fund.escrow,
            escrow_micro=fund.raised_micro,
            members=[row.party for row in participants.verified(rfm.call)],
            now=now,
        )
        call_bind(call=rfm.call, dao=dao)
        fund.awarded_at = rfm.awarded_at = now
        fund.save(update_fields=["awarded_at"])
        rfm.subdao = dao
        rfm.save(update_fields=["awarded_at", "subdao"])
        changed(f"rfm:{rfm.id}", f"party:{rfm.submitter_id}")
        log.append(
            "rfms.awarded",
            {
                "id": str(rfm.id),
                "dao": dao.party.pid,
                "raised_micro": str(fund.raised_micro),
                "supply_micro": str(allocation.total),
            },
            now=now,
        )
        emit(events.RfmAwarded(rfm_id=str(rfm.id), dao_id=str(dao.id)), now=now)
    return dao


def award_if_ready(*, rfm_id: uuid.UUID | str, now: datetime) -> Dao | None:
    """Award, or None while something is missing."""
    try:
        return award(rfm_id=rfm_id, now=now)
    except NotReady as waiting:
        logger.info("rfm %s: %s", rfm_id, waiting.text)
        return None


def close_due(*, rfm_id: uuid.UUID | str, now: datetime) -> bool:
    """At the deadline: award if everything is there, else fail and refund one batch.

    An award that breaks is no reason to keep the backers' money: the fund fails all the same. Only
    a database that is away or in a deadlock says nothing about the award; that raises, and the
    sweep comes again.

    Returns whether nothing is left to do. Safe to call at any time and any number of times.
    """
    with durable():
        rfm, fund = _locked(rfm_id)
        if fund is None or fund.awarded_at or fund.refunded_at:
            return True
        if fund.failed_at is None and now < fund.deadline_at:
            return False
    if fund.failed_at is None and _awarded(rfm_id, now):
        return True
    with durable():
        rfm, fund = _locked(rfm_id)
        if fund.awarded_at or fund.refunded_at:
            return True
        if fund.failed_at is None:
            fund.failed_at = rfm.failed_at = now
            fund.save(update_fields=["failed_at"])
            rfm.save(update_fields=["failed_at"])
            changed(f"rfm:{rfm.id}", f"party:{rfm.submitter_id}")
            call_close(call=rfm.call, now=now)
            log.append("rfms.failed", {"id": str(rfm.id)}, now=now)
            emit(events.RfmFailed(rfm_id=str(rfm.id)), now=now)
        batch = list(selectors.standing(fund).order_by("id")[:REFUND_BATCH])
        if batch:
            _return(rfm, fund, batch, "refunded_at", now)
        done = not selectors.standing(fund).exists()
        if done:
            fund.refunded_at = now
            fund.save(update_fields=["refunded_at"])
        else:
            wake(CLOSE, rfm.id)
    return done


def sweep_due(now: datetime, *, limit: int = 50) -> int:
    """The net below the wake-ups: full crowdfunds to award, deadlines passed, refunds to go on.

    Returns how many it got through.
    """
    due = (
        Crowdfund.objects.filter(awarded_at=None, refunded_at=None)
        .filter(Q(filled_at__isnull=False) | Q(deadline_at__lte=now) | Q(failed_at__isnull=False))
        .order_by("deadline_at")
    )

    def step(fund_id: uuid.UUID) -> bool:
        rfm_id = Crowdfund.objects.values_list("rfm_id", flat=True).get(pk=fund_id)
        if not _awarded(rfm_id, now):
            close_due(rfm_id=rfm_id, now=now)
        return True

    return each(due, step, now=now, limit=limit, log=logger, what="sweep of crowdfund")


def _awarded(rfm_id: uuid.UUID | str, now: datetime) -> bool:
    """Award if ready, in its own transaction; whether the SubDAO exists now."""
    try:
        return award_if_ready(rfm_id=rfm_id, now=now) is not None
    except OperationalError:
        raise
    except Exception:
        logger.exception("the award of rfm %s failed", rfm_id)
        return False


def _return(rfm: Rfm, fund: Crowdfund, pledges: list[Pledge], field: str, now: datetime) -> int:
    """Escrow → each backer's main account, exactly what was taken. The fund's row is locked."""
    kind = "rfms.withdraw" if field == "withdrawn_at" else "rfms.refund"
    legs = [
        Leg(
            id=uuid.uuid5(row.id, "returned"),
            debit_account=fund.escrow,
            credit_account=account(row.party, "USDC"),
            amount_micro=row.amount_micro,
            kind=kind,
            ref=("rfms.rfm", rfm.id),
        )
        for row in pledges
    ]
    ledger.post(legs, now=now)
    total = sum(row.amount_micro for row in pledges)
    for row in pledges:
        setattr(row, field, now)
    Pledge.objects.bulk_update(pledges, [field])
    fund.raised_micro -= total
    # A refund after a full crowdfund lacked participants: it is not full any more.
    fund.filled_at = None
    fund.save(update_fields=["raised_micro", "filled_at"])
    changed(f"rfm:{rfm.id}")
    for row in pledges:
        _leaf("rfms.returned", rfm, row.party, row.id, row.amount_micro, now)
    return total


def _leaf(
    type: str, rfm: Rfm, party: Party, pledge_id: uuid.UUID, amount_micro: int, now: datetime
) -> None:
    log.append(
        type,
        {
            "id": str(pledge_id),
            "rfm": str(rfm.id),
            "party": party.pid,
            "amount_micro": str(amount_micro),
        },
        now=now,
    )


def _locked(rfm_id: uuid.UUID | str) -> tuple[Rfm, Crowdfund | None]:
    """The crowdfund's row, then the RFM's, under lock; an RFM without crowdfund has None."""
    fund = (
        Crowdfund.objects.select_for_update(of=("self",))
        .select_related("escrow", "escrow__owner", "escrow__asset")
        .filter(rfm_id=rfm_id)
        .first()
    )
    rows = Rfm.objects.select_related("submitter", "call", "subdao", "subdao__party")
    rfm = rows.get(id=rfm_id)
    if fund is not None:
        rfm.crowdfund = fund
    return rfm, fund
