"""Reads of pools and vaults: quotes, courses of prices, positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from apps.accounts.models import Party
from apps.core.clock import from_unix_ms, unix_ms
from apps.exchange.errors import PoolNotFound, refused
from apps.exchange.models import Pool, PoolEvent, Unstaking, Vault, VaultPosition
from apps.protocol import pool as rules
from apps.protocol import unlocks
from apps.protocol import vault as vault_rules
from apps.protocol.pool import BASE, PoolRule
from apps.wallets.models import Account, Asset
from apps.wallets.selectors import supply_micro

SLIPPAGE_BPS = 50
UNSTAKINGS_SHOWN = 50
DAY = timedelta(days=1)
_LAST_EVENTS = """
SELECT p.id, g.at_ms, e.base_after_micro, e.quote_after_micro, e.area, e.volume_micro, e.at_ms
FROM unnest(%(pools)s::uuid[]) AS p(id)
CROSS JOIN unnest(%(edges)s::bigint[]) WITH ORDINALITY AS g(at_ms, place)
LEFT JOIN LATERAL (
    SELECT * FROM exchange_poolevent x WHERE x.pool_id = p.id AND x.at_ms <= g.at_ms
    ORDER BY x.at_ms DESC, x.number DESC LIMIT 1
) e ON true
ORDER BY g.place
"""
_HOLDERS = """
SELECT owner_id, sum(posted_micro) AS micro, count(*) OVER () FROM wallets_account
WHERE asset_id = %(asset)s AND purpose <> 'issuance'
GROUP BY owner_id HAVING sum(posted_micro) > 0 ORDER BY micro DESC, owner_id LIMIT %(most)s
"""


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


@dataclass(frozen=True)
class Moment:
    """A pool at an instant: what it was then, and what had been traded up to it."""

    at_ms: int
    state: rules.Pool
    volume_micro: int

    @property
    def area(self) -> int:
        return rules.area_at(self.state, self.at_ms)


def moments(pool: Pool, instants: Sequence[datetime]) -> list[Moment | None]:
    """The pool at each instant, None before its beginning; one query, however long its history."""
    return _moments([pool], instants)[pool.id]


def _moments(
    pools: Sequence[Pool], instants: Sequence[datetime]
) -> dict[UUID, list[Moment | None]]:
    edges = [unix_ms(at) for at in instants]
    with connection.cursor() as cursor:
        cursor.execute(_LAST_EVENTS, {"edges": edges, "pools": [pool.id for pool in pools]})
        rows = cursor.fetchall()
    found: dict[UUID, list[Moment | None]] = {pool.id: [] for pool in pools}
    for pool_id, at_ms, base, quote, area, volume, event_ms in rows:
        known = base is not None
        state = rules.Pool(base, quote, 0, int(area), event_ms) if known else None
        found[pool_id].append(Moment(at_ms, state, int(volume)) if state else None)
    return found


def add_last_day(pools: Sequence[Pool], now: datetime) -> None:
    """Sets `mean_24h_micro` and `volume_24h_micro` (USDC) of each, by one query for all."""
    found = _moments(pools, [now - DAY, now])
    for pool in pools:
        then, last = found[pool.id]
        pool.mean_24h_micro = mean_between(then, last)
        pool.volume_24h_micro = int(pool.volume_micro) - (then.volume_micro if then else 0)


def price_mean_micro(pool: Pool, start: datetime, end: datetime) -> int | None:
    """The time-weighted mean price over [start, end): USDC micro-units a token; None where the pool
    was not there for all of it."""
    return mean_between(*moments(pool, [start, end]))


def mean_between(first: Moment | None, last: Moment | None) -> int | None:
    if first is None or last is None or last.at_ms <= first.at_ms:
        return None
    return rules.mean_price_micro(first.area, last.area, last.at_ms - first.at_ms)


def edges(pool: Pool, *, start: datetime, end: datetime, buckets: int) -> list[datetime]:
    """From `start` (or the pool's beginning, if that is later) to `end`, in equal stretches."""
    begin, close = max(unix_ms(start), unix_ms(pool.created_at)), unix_ms(end)
    count = max(min(buckets, close - begin), 1)
    return [from_unix_ms(begin + (close - begin) * i // count) for i in range(count + 1)]


def history(pool: Pool, *, start: datetime, end: datetime, buckets: int = 48) -> list[Bucket]:
    """The pool's course; empty for a pool without liquidity."""
    instants = edges(pool, start=start, end=end, buckets=buckets)
    return between(moments(pool, instants))


def between(found: Sequence[Moment | None]) -> list[Bucket]:
    rows = []
    for first, last in pairwise(found):
        if first is None or last is None:
            continue
        price = rules.price_micro(last.state)
        mean = mean_between(first, last)
        rows.append(
            Bucket(
                start=from_unix_ms(first.at_ms),
                end=from_unix_ms(last.at_ms),
                price_micro=price,
                mean_micro=price if mean is None else mean,
                volume_micro=last.volume_micro - first.volume_micro,
            )
        )
    return rows


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


def holders(asset: Asset, *, most: int) -> tuple[int, list[tuple[Party, int]]]:
    """(how many parties have some, the heaviest with how much): all accounts of each together."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS, {"asset": asset.id, "most": most})
        found = cursor.fetchall()
    parties = Party.objects.in_bulk([owner for owner, _, _ in found])
    return found[0][2] if found else 0, [(parties[owner], int(micro)) for owner, micro, _ in found]


@dataclass(frozen=True)
class Spread:
    """What of an asset is issued, and what of that is staked."""

    supply_micro: int
    staked_micro: int


def spread(asset: Asset) -> Spread:
    """By one query."""
    found = Account.objects.filter(asset=asset, purpose__in=("issuance", "staked")).aggregate(
        supply=Sum("posted_micro", filter=Q(purpose="issuance")),
        staked=Sum("posted_micro", filter=Q(purpose="staked")),
    )
    return Spread(-(found["supply"] or 0), found["staked"] or 0)


def vault_of(asset: Asset) -> Vault | None:
    """None before anybody has staked."""
    return Vault.objects.select_related("asset", "shares", "party").filter(asset=asset).first()


def vault_list() -> QuerySet[Vault]:
    """Each with `staked_micro`, all that is staked of its asset."""
    staked = Account.objects.filter(asset=OuterRef("asset"), purpose="staked").order_by()
    sums = staked.values("asset").annotate(sum=Sum("posted_micro")).values("sum")
    joined = Vault.objects.select_related("asset", "shares", "party")
    return joined.annotate(staked_micro=Coalesce(Subquery(sums), 0))


def staked_micro(asset: Asset) -> int:
    """All that is staked of an asset, by whomever."""
    found = Account.objects.filter(asset=asset, purpose="staked")
    return found.aggregate(sum=Sum("posted_micro"))["sum"] or 0


def lacks_micro(party: Party, asset: Asset, rules: unlocks.Unlocks | unlocks.Sponsoring) -> int:
    """How much more `party` must stake until its stake unlocks what these rules say; 0: nothing."""
    needed = unlocks.needed_micro(rules, supply_micro=supply_micro(asset))
    return max(needed - staked_of(party, asset).principal_micro, 0)


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
    """What is on its way out, soonest first; there may be many, so show UNSTAKINGS_SHOWN of them or
    a page."""
    return Unstaking.objects.filter(
        party=party, vault__asset=asset, released_at=None, amount_micro__gt=0
    ).order_by("ready_at", "id")


def slashable_micro(party: Party, asset: Asset) -> int:
    """What a vote could take: staked with earnings, and on its way out."""
    staked = staked_of(party, asset)
    return staked.worth_micro + staked.unstaking_micro
