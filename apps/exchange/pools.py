"""Services of pools: open, add and remove liquidity, swap.

Lock the pool's row → what a retry gets → the rules of `apps.protocol.pool` → *after this point it
must succeed* → transfers, state, event and leaf. All writers of a pool lock its row first, so its
leaves stand in the log in the order of its changes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from apps.accounts.models import Party
from apps.accounts.selectors import system_party
from apps.accounts.services import party_create
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.ids import effect_of
from apps.core.live import changed
from apps.core.transactions import durable, require_transaction
from apps.exchange.errors import NotTradable, PoolExists, PoolNotFound, refused
from apps.exchange.models import Pool, PoolEvent
from apps.protocol import consent as signing
from apps.protocol import pool as rules
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.pool import BASE, Change, PoolRule
from apps.wallets import keys, ledger, log
from apps.wallets.errors import TransferConflict
from apps.wallets.ledger import Leg
from apps.wallets.models import Account, Asset
from apps.wallets.selectors import asset_by_code
from apps.wallets.services import account, asset_create, granted

QUOTE_ASSET = "USDC"
SDT_PREFIX = "SDT-"
REF = "exchange.pool"
STATE_FIELDS = [
    "base_micro",
    "quote_micro",
    "shares_micro",
    "area",
    "at_ms",
    "volume_micro",
    "events_count",
]
Kind = PoolEvent.Kind
Accounts = dict[tuple[uuid.UUID, uuid.UUID], Account]


def pool_open(
    *,
    party: Party,
    base: str,
    base_micro: int,
    quote_micro: int,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> PoolEvent:
    """A pool of `base` against USDC, by its first liquidity, which sets its price. One a token.

    Raises: NotTradable, NotFound, PoolExists, the rules of a pool, InsufficientBalance.
    """
    now = now or clock_now()
    if base != "FLAI" and not base.startswith(SDT_PREFIX):
        raise NotTradable()
    id_ = effect_of(party.id, signing.ADD, idempotency)
    asked = signing.add_payload(
        base=base, base_max_micro=base_micro, quote_max_micro=quote_micro, shares_min_micro=0
    )
    with durable():
        said = granted(id_, party, signing.ADD, asked, consent, now)
        # Whoever opens another pool of this token meanwhile waits here.
        asset = Asset.objects.select_for_update(no_key=True).get(id=asset_by_code(base).id)
        pool = Pool.objects.filter(base=asset).first()
        if pool is not None and not PoolEvent.objects.filter(id=id_, pool=pool).exists():
            raise PoolExists(base=base)
        if pool is None:
            pool = _create(asset, now)
        return _change(
            party, _locked(base, party), id_, Kind.ADD, asked, said, now,
            lambda state, at_ms: rules.add(state, base_micro, quote_micro, at_ms=at_ms),
            lambda event: (event.base_micro, event.quote_micro) == (base_micro, quote_micro),
        )  # fmt: skip


def liquidity_add(
    *,
    party: Party,
    base: str,
    base_max_micro: int,
    quote_max_micro: int,
    shares_min_micro: int = 0,
    deadline: datetime | None = None,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> PoolEvent:
    """Put in both assets in the pool's proportion, at most as much of each as given.

    idempotency: the same one again returns the event that exists, or raises TransferConflict when
    it was another one's.

    Raises: PoolNotFound, the rules of a pool, InsufficientBalance.
    """
    now = now or clock_now()
    id_ = effect_of(party.id, signing.ADD, idempotency)
    asked = signing.add_payload(
        base=base,
        base_max_micro=base_max_micro,
        quote_max_micro=quote_max_micro,
        shares_min_micro=shares_min_micro,
    )
    with durable():
        said = granted(id_, party, signing.ADD, asked, consent, now)
        return _change(
            party, _locked(base, party), id_, Kind.ADD, asked, said, now,
            lambda state, at_ms: rules.add(
                state, base_max_micro, quote_max_micro, shares_min=shares_min_micro,
                at_ms=at_ms, deadline_ms=_ms(deadline),
            ),
            lambda e: e.base_micro <= base_max_micro and e.quote_micro <= quote_max_micro,
        )  # fmt: skip


def liquidity_remove(
    *,
    party: Party,
    base: str,
    shares_micro: int,
    base_min_micro: int = 0,
    quote_min_micro: int = 0,
    deadline: datetime | None = None,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> PoolEvent:
    """Take out the part of both reserves that `shares_micro` stand for.

    Raises: as `liquidity_add`.
    """
    now = now or clock_now()
    id_ = effect_of(party.id, signing.REMOVE, idempotency)
    asked = signing.remove_payload(
        base=base,
        shares_micro=shares_micro,
        base_min_micro=base_min_micro,
        quote_min_micro=quote_min_micro,
    )
    with durable():
        said = granted(id_, party, signing.REMOVE, asked, consent, now)
        locked = _locked(base, party)
        # Read again: it is what the lock protects.
        held = Account.objects.filter(owner=party, asset=locked[0].shares, purpose="main").first()
        return _change(
            party, locked, id_, Kind.REMOVE, asked, said, now,
            lambda state, at_ms: rules.remove(
                state, shares_micro, held=held.available_micro if held else 0,
                base_min=base_min_micro, quote_min=quote_min_micro,
                at_ms=at_ms, deadline_ms=_ms(deadline),
            ),
            lambda e: e.shares_micro == -shares_micro,
        )  # fmt: skip


def swap(
    *,
    party: Party,
    base: str,
    side: str,
    amount_micro: int,
    out_min_micro: int = 0,
    deadline: datetime | None = None,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> PoolEvent:
    """Give `amount_micro` of `side` ("base" or "quote") for as much of the other as there is.

    Nothing happens when less than `out_min_micro` would come out, or after `deadline`.
    consent (of all of these): by what the request acts; a bound wallet key has signed what is
    asked, limits included, and the leaf has both.

    Raises: PoolNotFound, the rules of a pool, InsufficientBalance.
    """
    now = now or clock_now()
    id_ = effect_of(party.id, signing.SWAP, idempotency)
    asked = signing.swap_payload(
        base=base, side=side, amount_micro=amount_micro, out_min_micro=out_min_micro
    )
    with durable():
        said = granted(id_, party, signing.SWAP, asked, consent, now)
        return _change(
            party, _locked(base, party), id_, Kind.SWAP, asked, said, now,
            lambda state, at_ms: rules.swap(
                state, side, amount_micro, out_min=out_min_micro,
                at_ms=at_ms, deadline_ms=_ms(deadline),
            ),
            lambda e: (e.base_micro if side == BASE else e.quote_micro) == amount_micro,
        )  # fmt: skip


def _create(base: Asset, now: datetime) -> Pool:
    """Inner writer: the pool's party and shares. Leaf "exchange.pool_opened"."""
    require_transaction("exchange.pool_open")
    quote = asset_by_code(QUOTE_ASSET)
    name = f"{base.code}/{quote.code}"
    party = party_create(kind=Party.Kind.SYSTEM, name=f"Pool {name}", now=now)
    shares = asset_create(
        code=f"LP-{base.code.removeprefix(SDT_PREFIX)}",
        name=f"Liquidity of {name}",
        cap_micro=AMOUNT_MAX,
        now=now,
    )
    pool = Pool.objects.create(base=base, quote=quote, shares=shares, party=party, created_at=now)
    body = {
        "id": str(pool.id),
        "pool": party.pid,
        "base": base.code,
        "quote": quote.code,
        "shares": shares.code,
    }
    log.append("exchange.pool_opened", body, now=now)
    return pool


def _locked(base: str, party: Party) -> tuple[Pool, Accounts]:
    """The pool, locked, and the accounts that its changes move. What never changes, and the
    accounts, are read before: the lock is held for as few statements as can be.

    Raises PoolNotFound.
    """
    require_transaction("exchange.pool")
    joined = Pool.objects.select_related("base", "quote", "shares", "party")
    pool = joined.filter(base__code=base).first()
    if pool is None:
        raise PoolNotFound()
    accounts = _accounts(party, pool)
    states = Pool.objects.select_for_update(no_key=True).filter(id=pool.id)
    for name, value in states.values(*STATE_FIELDS).get().items():
        setattr(pool, name, value)
    return pool, accounts


def _accounts(party: Party, pool: Pool) -> Accounts:
    """{(owner, asset): account}, by one query once they are there."""
    sides = ((party, "main"), (pool.party, "pool"))
    assets = {asset.id: asset for asset in (pool.base, pool.quote, pool.shares)}
    rows = Account.objects.filter(
        owner__in=(party, pool.party), asset__in=assets, purpose__in=("main", "pool")
    )
    found = {(row.owner_id, row.purpose, row.asset_id): row for row in rows}
    accounts = {}
    for owner, purpose in sides:
        for asset in assets.values():
            row = found.get((owner.id, purpose, asset.id)) or account(owner, asset, purpose)
            row.owner, row.asset = owner, asset
            accounts[owner.id, asset.id] = row
    return accounts


def _change(
    party: Party,
    locked: tuple[Pool, Accounts],
    id_: uuid.UUID,
    kind: Kind,
    asked: Mapping[str, str],
    said: Mapping[str, Any] | None,
    now: datetime,
    rule: Callable[[rules.Pool, int], Change],
    same: Callable[[PoolEvent], bool],
) -> PoolEvent:
    """Do what `rule` allows on a locked pool, once: the same id again gets the same answer."""
    pool, accounts = locked
    done = PoolEvent.objects.filter(id=id_).select_related("party").first()
    if done is not None:
        if done.pool_id != pool.id or done.kind != kind or not same(done):
            raise TransferConflict(id=str(id_))
        done.pool = pool
        return done
    # The time of a pool never runs backwards, whichever process's clock says what.
    at_ms = max(unix_ms(now), pool.at_ms)
    try:
        change = rule(pool.state, at_ms)
    except PoolRule as broken:
        raise refused(broken) from None
    ledger.post(_legs(party, pool, accounts, id_, kind, change), now=now)
    # After this point it must succeed.
    after = change.pool
    event = PoolEvent(
        id=id_,
        pool=pool,
        number=pool.events_count + 1,
        kind=kind,
        party=party,
        base_micro=change.base,
        quote_micro=change.quote,
        shares_micro=change.shares,
        base_after_micro=after.base,
        quote_after_micro=after.quote,
        area=after.area,
        volume_micro=pool.volume_micro + (abs(change.quote) if kind == Kind.SWAP else 0),
        at_ms=at_ms,
    )
    event.save(force_insert=True)
    pool.base_micro, pool.quote_micro, pool.shares_micro = after.base, after.quote, after.shares
    pool.area, pool.at_ms, pool.events_count = after.area, after.at_ms, event.number
    pool.volume_micro = event.volume_micro
    pool.save(update_fields=STATE_FIELDS)
    body = leaf_body(event) | {"asked": dict(asked), **(said or {})}
    log.append("exchange.pool_changed", body, now=now)
    changed(f"pool:{pool.base.code}")
    return event


def leaf_body(event: PoolEvent) -> dict[str, str]:
    """What the log says of a change: enough to compute it again from the change before."""
    return {
        "id": str(event.id),
        "pool": event.pool.party.pid,
        "kind": str(event.kind),
        "party": event.party.pid,
        "base_micro": str(event.base_micro),
        "quote_micro": str(event.quote_micro),
        "shares_micro": str(event.shares_micro),
        "base_after_micro": str(event.base_after_micro),
        "quote_after_micro": str(event.quote_after_micro),
        "area": str(event.area),
        "at_ms": str(event.at_ms),
    }


def _legs(
    party: Party, pool: Pool, accounts: Accounts, id_: uuid.UUID, kind: Kind, change: Change
) -> list[Leg]:
    """What comes in first, then what goes out; of the first shares a part stays with the pool."""
    moves = []
    for asset, micro in ((pool.base, change.base), (pool.quote, change.quote)):
        mine, theirs = accounts[party.id, asset.id], accounts[pool.party_id, asset.id]
        moves.append((mine, theirs, micro) if micro > 0 else (theirs, mine, -micro))
    moves.sort(key=lambda move: move[0].owner_id != party.id)
    if change.shares:
        issuance = account(system_party("protocol"), pool.shares, "issuance")
        mine = accounts[party.id, pool.shares_id]
        parts = [(mine, change.shares)]
        if change.shares > 0 and not pool.shares_micro:
            kept = accounts[pool.party_id, pool.shares_id]
            parts.append((kept, rules.MINIMUM_LIQUIDITY))
        for target, micro in parts:
            moves.append((issuance, target, micro) if micro > 0 else (target, issuance, -micro))
    return [
        Leg(
            id=uuid.uuid5(id_, f"leg:{place}") if place else id_,
            debit_account=debit,
            credit_account=credit,
            amount_micro=micro,
            kind=f"exchange.{kind}",
            ref=(REF, id_),
        )
        for place, (debit, credit, micro) in enumerate(moves)
    ]


def _ms(deadline: datetime | None) -> int | None:
    return None if deadline is None else unix_ms(deadline)
