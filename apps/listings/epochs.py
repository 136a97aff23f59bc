"""Revenue epochs of a SubDAO: paid into by queries, divided by equations 10 and 11 at their end.

The first epoch begins when the listing opens, a later one with the first payment after the one
before was ended. Payments (`listings_settle`) and the end both lock the epoch's row, so a payment
belongs to exactly one epoch. What follows the end is `closing`.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, Sum

from apps.accounts.models import Party
from apps.compute.models import Receipt
from apps.core.clock import going_on
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.listings import closing
from apps.listings.closing import CURRENCY
from apps.listings.models import Closing, Entitlement, Query
from apps.protocol.entitlements import entitlements
from apps.protocol.money import BPS, mul_div_floor
from apps.protocol.revenue import Served, policy_of, split
from apps.subdaos.models import Dao, Epoch
from apps.subdaos.services import dao_lock, epoch_close, epoch_open
from apps.training.models import ModelVersion, Score, ScoringWork

logger = logging.getLogger(__name__)


def epoch_begin(*, dao: Dao, now: datetime) -> Epoch:
    """The running epoch, opened if there is none; its end wakes the settlement. Inner writer."""
    known = Epoch.objects.filter(dao=dao, closed_at=None).first()
    if known is not None:
        return known
    epoch = epoch_open(dao=dao, now=now)
    wake("flai.settle_epoch", epoch.id, eta=epoch.ends_at)
    return epoch


def epoch_end(*, epoch_id: Any, now: datetime) -> bool:
    """Freeze an epoch that is over: its revenue, and all parts but the holders', stand from now on.

    The next payment opens the next epoch; dividing this one goes on by itself (`closing`). False
    when it is not over yet or was ended before.
    """
    with durable():
        # The DAO first: whoever changes its parameters comes wholly before this epoch or after it.
        found = Epoch.objects.select_related("dao").filter(pk=epoch_id).first()
        dao = dao_lock(found.dao) if found else None
        epoch = Epoch.objects.select_for_update(of=("self",)).filter(pk=epoch_id).first()
        if dao is None or epoch is None or epoch.closed_at is not None or epoch.ends_at > now:
            return False
        _freeze(epoch, dao, now)
    return True


def epoch_settle(*, epoch_id: Any, now: datetime) -> bool:
    """End an epoch that is over, divide and pay it; False when there was nothing left to do."""
    ended = epoch_end(epoch_id=epoch_id, now=now)
    return closing.carry_on(epoch_id, now=now) or ended


def epochs_settle(*, now: datetime, limit: int = 20) -> int:
    """Settle epochs that are over, and go on with those that somebody left. Returns how many."""
    left = Closing.objects.exclude(step=Closing.Step.DONE).values("epoch")
    over = Q(closed_at=None, ends_at__lte=now) | Q(pk__in=left)
    due, clock = Epoch.objects.filter(over).order_by("ends_at"), going_on(now)
    return each(
        due,
        lambda epoch_id: epoch_settle(epoch_id=epoch_id, now=clock()),
        now=now,
        limit=limit,
        log=logger,
        what="settlement of epoch",
    )


def _freeze(epoch: Epoch, dao: Dao, now: datetime) -> None:
    """Close it to payments and write who is paid for work, by the pure rule."""
    policy = policy_of(dao.params)
    parties: dict[str, Party] = {dao.party.pid: dao.party}
    served = _served(epoch, parties)
    jobs = _jobs(epoch, dao, parties)
    result = split(served, jobs=jobs, holdings={}, policy=policy)
    owed = entitlements(result, asset=CURRENCY, own=dao.party.pid)
    sdt_micro = mul_div_floor(result.revenue_micro, policy.sdt_bps, BPS)
    # After this point it must succeed.
    epoch_close(epoch=epoch, dao=dao, revenue_micro=result.revenue_micro, now=now)
    Entitlement.objects.bulk_create(
        Entitlement(
            epoch=epoch,
            party=parties[one.pid],
            pid=one.pid,
            role=one.role,
            asset=one.asset,
            amount_micro=one.amount_micro,
        )
        for one in owed
    )
    owed_micro: dict[str, int] = {}
    for one in owed:
        owed_micro[one.role] = owed_micro.get(one.role, 0) + one.amount_micro
    plan = {
        "owed_micro": {role: str(micro) for role, micro in owed_micro.items()},
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
        "policy": vars(policy),
    }
    Closing.objects.create(
        epoch=epoch,
        # Where there is nothing to divide among holders, nobody's holding is looked at.
        step=Closing.Step.QUIET if sdt_micro else Closing.Step.PROVE,
        plan=plan,
        sdt_micro=sdt_micro,
        entitled_micro=sum(one.amount_micro for one in owed),
    )
    wake("flai.settle_epoch", epoch.id)


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
