"""Revenue epochs of a SubDAO: paid into by queries, divided by equations 10 and 11 at their end.

The first epoch begins when the listing opens, a later one with the first payment after the one
before was closed. Payments and settlement both lock the epoch's row, so a payment belongs to
exactly one epoch.
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Sum

from apps.accounts.models import Party
from apps.compute.models import Receipt
from apps.core.clock import unix_ms
from apps.core.events import emit
from apps.core.sweeping import each
from apps.core.transactions import durable, require_transaction
from apps.core.wake import wake
from apps.listings.events import EpochSettled
from apps.listings.models import Listing, Query
from apps.protocol.revenue import (
    Policy,
    Served,
    Settlement,
    holding_weight,
    split,
    time_weighted,
)
from apps.subdaos.models import Dao, Epoch
from apps.subdaos.services import epoch_close, epoch_open
from apps.training.models import ModelVersion, Score, ScoringWork
from apps.wallets import ledger, log
from apps.wallets.selectors import Course, courses
from apps.wallets.services import account, accounts

logger = logging.getLogger(__name__)
CURRENCY = "USDC"


def epoch_begin(*, dao: Dao, now: datetime) -> Epoch:
    """The running epoch, opened if there is none; its end wakes the settlement. Inner writer."""
    known = Epoch.objects.filter(dao=dao, closed_at=None).first()
    if known is not None:
        return known
    epoch = epoch_open(dao=dao, now=now)
    wake("flai.settle_epoch", epoch.id, eta=epoch.ends_at)
    return epoch


class EpochOver(Exception):
    """The open epoch is over: it is settled before anything more is paid."""

    def __init__(self, epoch_id: uuid.UUID) -> None:
        super().__init__(str(epoch_id))
        self.epoch_id = epoch_id


def epoch_for_payment(listing: Listing, *, now: datetime) -> Epoch:
    """The open epoch, locked, that a payment of `now` belongs to. Inner writer.

    There never are two open ones, and a settlement locks the accounts of all payees: it has a
    transaction of its own, so that the payment's accounts are still locked once and in order.

    Raises EpochOver; the caller rolls back, has the epoch settled and comes again.
    """
    require_transaction("listings.epoch_for_payment")
    while True:
        epoch = epoch_begin(dao=listing.dao, now=now)
        held = Epoch.objects.select_for_update().get(pk=epoch.pk)
        if held.closed_at is None and held.ends_at <= now:
            raise EpochOver(held.id)
        if held.closed_at is None:
            return held


def epoch_settle(*, epoch_id: Any, now: datetime) -> bool:
    """Divide an epoch that is over; False when it is not over yet or was settled before."""
    with durable():
        epoch = Epoch.objects.select_for_update().filter(pk=epoch_id).first()
        if epoch is None or epoch.closed_at is not None or epoch.ends_at > now:
            return False
        _settle(epoch, now)
    return True


def epochs_settle(*, now: datetime, limit: int = 20) -> int:
    """Settle epochs that are over, each for itself. Returns how many."""
    due = Epoch.objects.filter(closed_at=None, ends_at__lte=now).order_by("ends_at")
    return each(
        due,
        lambda epoch_id: epoch_settle(epoch_id=epoch_id, now=now),
        now=now,
        limit=limit,
        log=logger,
        what="settlement of epoch",
    )


def holdings(dao: Dao, epoch: Epoch) -> dict[uuid.UUID, int]:
    """T_i by party: SDT held + staked · boost, time-weighted over the epoch (paper eq. 11, §6.3).

    The DAO's own treasury and reserve, escrow and pools do not count: only "main" and "staked" of
    people and organisations do.
    """
    boost = int(dao.params["stake_boost_bps"])
    weights: dict[uuid.UUID, int] = defaultdict(int)
    kinds = (Party.Kind.PERSON, Party.Kind.ORGANISATION)
    for course in courses(dao.asset, ("main", "staked"), kinds=kinds, start=epoch.starts_at):
        area = _area(course, epoch)
        held, staked = (area, 0) if course.purpose == "main" else (0, area)
        weight = holding_weight(held, staked, stake_boost_bps=boost)
        if weight:
            weights[course.owner_id] += weight
    return dict(weights)


def _area(course: Course, epoch: Epoch) -> int:
    """Micro-units · milliseconds over the epoch."""
    changes = [(unix_ms(at), micro) for at, micro in course.changes if at < epoch.ends_at]
    return time_weighted(
        course.opening_micro, changes, start=unix_ms(epoch.starts_at), end=unix_ms(epoch.ends_at)
    )


def _settle(epoch: Epoch, now: datetime) -> None:
    """Pay everybody, close the epoch, write the leaf from which anyone recomputes it."""
    dao = Dao.objects.select_related("party", "asset").get(pk=epoch.dao_id)
    policy = policy_of(dao.params)
    parties: dict[str, Party] = {dao.party.pid: dao.party}
    served = _served(epoch, parties)
    jobs = _jobs(epoch, dao, parties)
    held = holdings(dao, epoch)
    holders = {p.id: p for p in Party.objects.filter(id__in=held)}
    parties |= {p.pid: p for p in holders.values()}
    weights = {holders[party].pid: weight for party, weight in held.items()}
    result = split(served, jobs=jobs, holdings=weights, policy=policy)
    # After this point it must succeed.
    _pay(epoch, dao, result, parties, now)
    body = {
        # The payments refer to it, so that a verifier ties them to this leaf.
        "id": str(epoch.id),
        "dao": dao.party.pid,
        "epoch": epoch.number,
        "starts_at": unix_ms(epoch.starts_at),
        "ends_at": unix_ms(epoch.ends_at),
        "revenue_micro": str(result.revenue_micro),
        "served": [
            {
                "version": entry.version,
                "revenue_micro": str(entry.revenue_micro),
                "phi": dict(entry.phi),
                "work": dict(entry.work),
            }
            for entry in served
        ],
        "jobs": jobs,
        "holdings": {pid: str(weight) for pid, weight in weights.items()},
        "policy": vars(policy),
        # The part of nodes that nobody runs stands under the SubDAO's own pid.
        "paid_micro": {pid: str(amount) for pid, amount in sorted(result.by_payee().items())},
        "treasury_micro": str(result.treasury_micro),
    }
    log.append("listings.epoch_settled", body, now=now)
    shown = {
        **body,
        "payments": [
            {
                "party": {"slug": parties[p.payee].slug, "name": parties[p.payee].name},
                "pid": p.payee,
                "role": p.role,
                "version": p.version,
                "amount_micro": str(p.amount_micro),
            }
            for p in result.payments
            if p.payee != dao.party.pid
        ],
    }
    epoch_close(epoch=epoch, revenue_micro=result.revenue_micro, settlement=shown, now=now)
    wake("flai.sequence_log")
    emit(EpochSettled(epoch_id=str(epoch.id), dao_id=str(dao.id)), now=now)


def policy_of(params: dict[str, Any]) -> Policy:
    """The SubDAO's shares as the protocol's Policy."""
    return Policy(
        **{k: int(params["split"][k]) for k in ("sbgt_bps", "sdt_bps", "treasury_bps")},
        **{
            k: int(params["sbgt_split"][k])
            for k in ("custodians_bps", "validators_bps", "operators_bps")
        },
        stake_boost_bps=int(params["stake_boost_bps"]),
    )


def _served(epoch: Epoch, parties: dict[str, Party]) -> list[Served]:
    """Revenue by version, with φ and scoring work of the round that made the version."""
    sums = (
        Query.objects.filter(epoch=epoch, state=Query.State.SETTLED)
        .values("version_id")
        .annotate(total=Sum("price_micro"))
    )
    earned = {row["version_id"]: row["total"] for row in sums}
    entries = []
    versions = list(ModelVersion.objects.filter(id__in=earned).order_by("number"))
    made_in = [version.round_id for version in versions]
    all_scores = list(Score.objects.filter(round__in=made_in).select_related("party"))
    all_work = list(ScoringWork.objects.filter(round__in=made_in).select_related("party"))
    parties.update({row.party.pid: row.party for row in [*all_scores, *all_work]})
    for version in versions:
        scores = [row for row in all_scores if row.round_id == version.round_id]
        work = [row for row in all_work if row.round_id == version.round_id]
        entries.append(
            Served(
                version=str(version.number),
                revenue_micro=int(earned[version.id]),
                phi={s.party.pid: s.phi_milli for s in scores},
                work={w.party.pid: w.units for w in work},
            )
        )
    return entries


def _jobs(epoch: Epoch, dao: Dao, parties: dict[str, Party]) -> dict[str, int]:
    """Jobs served by operator; a node that nobody had claimed worked for the SubDAO's treasury."""
    rows = (
        Receipt.objects.filter(job__query__epoch=epoch, job__query__state=Query.State.SETTLED)
        .values(party=F("operator_id"))
        .annotate(count=Count("id"))
    )
    counts = {row["party"]: row["count"] for row in rows}
    operators = Party.objects.in_bulk([party for party in counts if party])
    parties.update({p.pid: p for p in operators.values()})
    jobs = {operators[party].pid: count for party, count in counts.items() if party}
    unclaimed = counts.get(None, 0)
    return {**jobs, dao.party.pid: unclaimed} if unclaimed and jobs else jobs


def _pay(
    epoch: Epoch, dao: Dao, result: Settlement, parties: dict[str, Party], now: datetime
) -> None:
    """All transfers of a settlement as one group; what is the SubDAO's goes to its treasury."""
    if not result.revenue_micro:
        return
    source = account(dao.party, CURRENCY, "revenue")
    paid = {pid: amount for pid, amount in result.by_payee().items() if pid != dao.party.pid}
    treasury_micro = result.revenue_micro - sum(paid.values())
    payees = accounts([parties[pid] for pid in paid], CURRENCY)
    targets = [
        (f"payee:{pid}", payees[parties[pid].id], amount, "listings.payout")
        for pid, amount in sorted(paid.items())
    ]
    if treasury_micro:
        treasury = account(dao.party, CURRENCY, "treasury")
        targets.append(("treasury", treasury, treasury_micro, "listings.treasury"))
    ledger.post(
        [
            ledger.Leg(
                id=uuid.uuid5(epoch.id, name),
                debit_account=source,
                credit_account=target,
                amount_micro=amount,
                kind=kind,
                ref=("listings.epoch", epoch.id),
            )
            for name, target, amount, kind in targets
        ],
        now=now,
    )
