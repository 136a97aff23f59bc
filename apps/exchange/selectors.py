"""Reads of pools and vaults: quotes, courses of prices, positions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.db.models import QuerySet, Sum

from apps.accounts.models import Party
from apps.core.clock import from_unix_ms, unix_ms
from apps.exchange.errors import PoolNotFound, refused
from apps.exchange.models import Pool, PoolEvent, Unstaking, Vault, VaultPosition
from apps.protocol import pool as rules
from apps.protocol import vault as vault_rules
from apps.protocol.pool import BASE, PoolRule
from apps.wallets.models import Account, Asset

SLIPPAGE_BPS = 50


@dataclass(frozen=True)
class Quote:
    """What a swap would give right now."""

    side: str
    amount_in_micro: int
    amount_out_micro: int
    out_min_micro: int
    fee_micro: int
    impact_ppm: int
    slippage_bps: int
    asset_in: str
    asset_out: str
    price_micro: int
    price_after_micro: int


@dataclass(frozen=True)
class Bucket:
    """A stretch of a pool's history: the price at its end, its mean, what was traded (USDC)."""

    start: datetime
    end: datetime
    price_micro: int
    mean_micro: int
    volume_micro: int


@dataclass(frozen=True)
class Staked:
    """One party in one vault, as it stands now."""

    principal_micro: int
    worth_micro: int
    shares_micro: int
    locked_until: datetime | None
    unstaking_micro: int


def pool_list() -> QuerySet[Pool]:
    return Pool.objects.select_related("base", "quote", "shares", "party").order_by("base__code")


def pool_by_base(code: str) -> Pool:
    """Raises PoolNotFound."""
    pool = pool_list().filter(base__code=code).first()
    if pool is None:
        raise PoolNotFound()
    return pool


def quote(pool: Pool, *, side: str, amount_micro: int, slippage_bps: int = SLIPPAGE_BPS) -> Quote:
    """Raises the rules of a pool."""
    state = pool.state
    try:
        change = rules.swap(state, side, amount_micro, at_ms=state.at_ms)
    except PoolRule as broken:
        raise refused(broken) from None
    out = -(change.quote if side == BASE else change.base)
    names = (pool.base.code, pool.quote.code)
    return Quote(
        side=side,
        amount_in_micro=amount_micro,
        amount_out_micro=out,
        out_min_micro=rules.least(out, slippage_bps),
        fee_micro=rules.fee(amount_micro),
        impact_ppm=rules.impact_ppm(amount_micro, state.base if side == BASE else state.quote),
        slippage_bps=slippage_bps,
        asset_in=names[0] if side == BASE else names[1],
        asset_out=names[1] if side == BASE else names[0],
        price_micro=rules.price_micro(state),
        price_after_micro=rules.price_micro(change.pool),
    )


def pool_events(pool: Pool) -> QuerySet[PoolEvent]:
    """Newest first."""
    return pool.events.select_related("party").order_by("-number")


def price_mean_micro(pool: Pool, start: datetime, end: datetime) -> int | None:
    """The time-weighted mean price over [start, end): USDC micro-units a token; None where the pool
    was not there for all of it."""
    began, ended = unix_ms(start), unix_ms(end)
    first, last = _state_at(pool, began), _state_at(pool, ended)
    if first is None or last is None or ended <= began:
        return None
    areas = rules.area_at(first, began), rules.area_at(last, ended)
    return rules.mean_price_micro(*areas, ended - began)


def _state_at(pool: Pool, at_ms: int) -> rules.Pool | None:
    """The pool as the last event up to then left it; None before the first."""
    if pool.at_ms <= at_ms:
        return pool.state if pool.shares_micro else None
    event = pool.events.filter(at_ms__lte=at_ms).order_by("-at_ms", "-number").first()
    return event.after if event else None


def history(pool: Pool, *, start: datetime, end: datetime, buckets: int = 48) -> list[Bucket]:
    """The pool's course from `start` (or its beginning, if that is later) to `end`, in equal
    stretches; empty for a pool without liquidity."""
    first = pool.events.order_by("at_ms").values_list("at_ms", flat=True).first()
    if first is None:
        return []
    begin, close = max(unix_ms(start), first), unix_ms(end)
    count = max(min(buckets, close - begin), 1)
    edges = [begin + (close - begin) * i // count for i in range(count + 1)]
    state = _state_at(pool, begin)
    assert state is not None
    events = list(pool.events.filter(at_ms__gt=begin, at_ms__lte=close).order_by("number"))
    rows, place = [], 0
    for left, right in pairwise(edges):
        area, volume = rules.area_at(state, left), 0
        while place < len(events) and events[place].at_ms <= right:
            event = events[place]
            volume += abs(event.quote_micro) if event.kind == PoolEvent.Kind.SWAP else 0
            state, place = event.after, place + 1
        mean = (
            rules.mean_price_micro(area, rules.area_at(state, right), right - left)
            if right > left
            else rules.price_micro(state)
        )
        rows.append(
            Bucket(from_unix_ms(left), from_unix_ms(right), rules.price_micro(state), mean, volume)
        )
    return rows


def volume_micro(pool: Pool, *, since: datetime) -> int:
    """USDC traded since then."""
    swaps = pool.events.filter(kind=PoolEvent.Kind.SWAP, at_ms__gte=unix_ms(since))
    return sum(abs(micro) for micro in swaps.values_list("quote_micro", flat=True))


def liquidity_of(pool: Pool, party: Party) -> dict[str, int]:
    """A party's shares of a pool and what they stand for now."""
    held = Account.objects.filter(owner=party, asset=pool.shares, purpose="main").first()
    shares = held.posted_micro if held else 0
    if not shares or not pool.shares_micro:
        return {"shares_micro": 0, "base_micro": 0, "quote_micro": 0}
    return {
        "shares_micro": shares,
        "base_micro": shares * pool.base_micro // pool.shares_micro,
        "quote_micro": shares * pool.quote_micro // pool.shares_micro,
    }


def holders(asset: Asset, limit: int = 20) -> list[dict[str, Any]]:
    """Who has how much, heaviest first: one row an owner, all of their accounts together."""
    rows = (
        Account.objects.filter(asset=asset)
        .exclude(purpose="issuance")
        .values("owner")
        .annotate(micro=Sum("posted_micro"))
        .filter(micro__gt=0)
        .order_by("-micro", "owner")[:limit]
    )
    parties = Party.objects.in_bulk([row["owner"] for row in rows])
    return [{"party": parties[row["owner"]], "micro": row["micro"]} for row in rows]


def holders_count(asset: Asset) -> int:
    rows = Account.objects.filter(asset=asset, posted_micro__gt=0)
    return rows.exclude(purpose="issuance").values("owner").distinct().count()


def vault_of(asset: Asset) -> Vault | None:
    """None before anybody has staked."""
    return Vault.objects.select_related("asset", "shares", "party").filter(asset=asset).first()


def staked_micro(asset: Asset) -> int:
    """All that is staked of an asset, by whomever."""
    found = Account.objects.filter(asset=asset, purpose="staked")
    return found.aggregate(sum=Sum("posted_micro"))["sum"] or 0


def staked_of(party: Party, asset: Asset) -> Staked:
    """A party's stake with its earnings. What was staked before there was a vault counts too."""
    accounts = {
        a.purpose: a.posted_micro
        for a in Account.objects.filter(
            owner=party, asset=asset, purpose__in=("staked", "unstaking")
        )
    }
    staked = accounts.get("staked", 0)
    position = (
        VaultPosition.objects.filter(vault__asset=asset, party=party)
        .select_related("vault")
        .first()
    )
    if position is None:
        return Staked(staked, staked, 0, None, accounts.get("unstaking", 0))
    gain = vault_rules.worth(position.vault.state, position.state) - position.principal_micro
    return Staked(
        principal_micro=staked,
        worth_micro=staked + gain,
        shares_micro=position.shares_micro,
        locked_until=from_unix_ms(position.locked_until_ms) if position.locked_until_ms else None,
        unstaking_micro=accounts.get("unstaking", 0),
    )


def unstakings_of(party: Party, asset: Asset) -> QuerySet[Unstaking]:
    """What is on its way out, soonest first."""
    return Unstaking.objects.filter(
        party=party, vault__asset=asset, released_at=None, amount_micro__gt=0
    ).order_by("ready_at")


def slashable_micro(party: Party, asset: Asset) -> int:
    """What a vote could take: staked with earnings, and on its way out."""
    staked = staked_of(party, asset)
    return staked.worth_micro + staked.unstaking_micro
