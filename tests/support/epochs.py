"""Epochs that are over and frozen, without the model, the queries and the nodes behind them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.clock import unix_ms
from apps.core.transactions import durable
from apps.listings.models import Closing, Entitlement
from apps.protocol import revenue
from apps.protocol.entitlements import Entitlement as Owed
from apps.subdaos.models import Dao, Epoch
from apps.wallets.models import Account, Transfer
from apps.wallets.services import account, asset_create, mint

SUPPLY_MICRO = 10**15
POLICY = {
    "sbgt_bps": 6000,
    "sdt_bps": 2800,
    "treasury_bps": 1200,
    "custodians_bps": 8000,
    "validators_bps": 1000,
    "operators_bps": 1000,
    "stake_boost_bps": 15000,
}


def subdao(now: datetime, *, cap_micro: int = SUPPLY_MICRO) -> Dao:
    """A SubDAO with a token of which nothing is issued yet."""
    slug = f"model-{uuid.uuid4().hex[:8]}"
    with durable():
        party = party_create(kind=Party.Kind.DAO, name=slug, now=now)
        asset = asset_create(code=f"SDT-{slug}", name=slug, cap_micro=cap_micro, now=now)
        return Dao.objects.create(
            party=party, slug=slug, name=slug, kind=Dao.Kind.SUB, asset=asset,
            params={"epoch_s": 60}, rfm_ref=uuid.uuid4(), founded_at=now,
        )  # fmt: skip


def frozen(
    dao: Dao,
    *,
    starts_at: datetime,
    ends_at: datetime,
    revenue_micro: int,
    owed_micro: Mapping[tuple[str, str], int] | None = None,
    boost_bps: int = POLICY["stake_boost_bps"],
) -> Epoch:
    """An epoch as its end leaves it; `owed_micro` are parts for work, by (role, pid)."""
    work = dict(owed_micro or {})
    policy = POLICY | {"stake_boost_bps": boost_bps}
    last = Epoch.objects.filter(dao=dao).count()
    epoch = Epoch.objects.create(
        dao=dao, number=last + 1, starts_at=starts_at, ends_at=ends_at, closed_at=ends_at,
        revenue_micro=revenue_micro,
    )  # fmt: skip
    by_role: dict[str, int] = {}
    for (role, pid), micro in work.items():
        by_role[role] = by_role.get(role, 0) + micro
        Entitlement.objects.create(
            epoch=epoch, party=Party.objects.get(pid=pid), pid=pid, role=role, asset="USDC",
            amount_micro=micro,
        )  # fmt: skip
    with durable():
        if revenue_micro:
            source = account(dao.party, "USDC", "revenue")
            mint("USDC", source, revenue_micro, None, ends_at + timedelta(seconds=1))
    Closing.objects.create(
        epoch=epoch,
        plan={
            "served": [],
            "jobs": {},
            "policy": policy,
            "owed_micro": {role: str(micro) for role, micro in by_role.items()},
        },
        sdt_micro=revenue_micro * policy["sdt_bps"] // 10_000,
        entitled_micro=sum(work.values()),
    )
    return epoch


def holdings(dao: Dao, epoch: Epoch, *, boost_bps: int = POLICY["stake_boost_bps"]) -> Any:
    """T_i by pid from all transfers of the token, by the pure rule, account by account."""
    weights: dict[str, int] = {}
    kinds = (Party.Kind.PERSON, Party.Kind.ORGANISATION)
    rows = Account.objects.filter(asset=dao.asset, purpose__in=["main", "staked"])
    for row in rows.filter(owner__kind__in=kinds).select_related("owner"):
        moves = Transfer.objects.filter(phase__in=["single", "post"])
        changes = [
            (unix_ms(t.created_at), sign * t.amount_micro)
            for sign, side in ((1, "credit"), (-1, "debit"))
            for t in moves.filter(**{side: row})
        ]
        area = revenue.time_weighted(
            0, changes, start=unix_ms(epoch.starts_at), end=unix_ms(epoch.ends_at)
        )
        held, staked = (area, 0) if row.purpose == "main" else (0, area)
        weight = revenue.holding_weight(held, staked, stake_boost_bps=boost_bps)
        if weight:
            weights[row.owner.pid] = weights.get(row.owner.pid, 0) + weight
    return weights


def divided(epoch: Epoch) -> list[Owed]:
    """What the table says that the epoch owes, in the order of the tree."""
    rows = Entitlement.objects.filter(epoch=epoch, amount_micro__gt=0)
    return sorted(Owed(row.asset, row.role, row.pid, row.amount_micro) for row in rows)
