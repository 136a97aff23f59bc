"""What must always be true of pools and vaults; run with those of the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from django.db.models import Sum

from apps.exchange.models import Pool, PoolEvent, Unstaking, Vault, VaultPosition
from apps.exchange.pools import leaf_body
from apps.protocol import pool as rules
from apps.wallets.models import Account, LogLeaf
from apps.wallets.selectors import supply_micro

Breaches = Iterator[str]


def validate_pools_are_on_the_ledger() -> Breaches:
    """Reserves are the pool's accounts, its shares the supply of their asset."""
    for pool in Pool.objects.select_related("base", "quote", "shares", "party"):
        told = (pool.base_micro, pool.quote_micro, pool.shares_micro)
        found = (
            _posted(pool.party_id, pool.base_id, "pool"),
            _posted(pool.party_id, pool.quote_id, "pool"),
            supply_micro(pool.shares),
        )
        if told != found:
            yield f"pool {pool}: reserves and shares are {told}, the ledger says {found}"


def validate_pools_keep_their_product() -> Breaches:
    """Each event follows from the one before by the rules of a pool, to the last unit; √k per share
    never falls; the leaf says the same."""
    for pool in Pool.objects.select_related("base", "quote", "party"):
        state, volume = rules.Pool(), 0
        leaves = dict(
            LogLeaf.objects.filter(type="exchange.pool_changed").values_list("ref_id", "data")
        )
        for event in pool.events.select_related("party").order_by("number"):
            event.pool = pool
            # What went in and out is known; how much of it is lawful, the rules say.
            try:
                change = again(state, event)
            except rules.PoolRule as broken:
                yield f"event {event.id} of pool {pool} was not allowed: {broken.code}"
                return
            got = (event.base_micro, event.quote_micro, event.shares_micro, int(event.area))
            if got != (change.base, change.quote, change.shares, change.pool.area):
                yield f"event {event.id} of pool {pool} is not what the rules give"
            volume += abs(event.quote_micro) if event.kind == PoolEvent.Kind.SWAP else 0
            if event.volume_micro != volume:
                yield f"event {event.id} of pool {pool} has a wrong sum of what was traded"
            if change.pool.k * state.shares**2 < state.k * change.pool.shares**2:
                yield f"event {event.id} of pool {pool} lowers its product per share"
            data = leaves.get(str(event.id))
            said = json.loads(bytes(data))["body"] if data else {}
            if not leaf_body(event).items() <= {k: str(v) for k, v in said.items()}.items():
                yield f"event {event.id} of pool {pool} and its leaf differ"
            state = change.pool
        if pool.state != state:
            yield f"pool {pool} is {pool.state}, its events say {state}"


def again(state: rules.Pool, event: PoolEvent) -> rules.Change:
    """The same thing done once more, by the rules. Raises PoolRule."""
    if event.kind == PoolEvent.Kind.SWAP:
        side = rules.BASE if event.base_micro > 0 else rules.QUOTE
        paid = max(event.base_micro, event.quote_micro)
        return rules.swap(state, side, paid, at_ms=event.at_ms)
    if event.kind == PoolEvent.Kind.ADD:
        return rules.add(state, event.base_micro, event.quote_micro, at_ms=event.at_ms)
    gone = -event.shares_micro
    return rules.remove(state, gone, held=gone, at_ms=event.at_ms)


def validate_vaults_are_on_the_ledger() -> Breaches:
    """Pot, principals, shares and what is on its way out are the accounts' balances; no vault owes
    more than it has."""
    for vault in Vault.objects.select_related("asset", "shares", "party"):
        sums = vault.positions.aggregate(p=Sum("principal_micro"), s=Sum("shares_micro"))
        told = (vault.state.pot, vault.shares_micro, vault.principal_micro, vault.shares_micro)
        found = (
            _posted(vault.party_id, vault.asset_id, "vault"),
            supply_micro(vault.shares),
            sums["p"] or 0,
            sums["s"] or 0,
        )
        if told != found:
            yield f"vault {vault}: {told} are told, ledger and positions say {found}"
    for position in VaultPosition.objects.select_related("vault"):
        staked = _posted(position.party_id, position.vault.asset_id, "staked")
        shares = _posted(position.party_id, position.vault.shares_id, "vault")
        # What was staked before there was a vault joins it when it is touched first.
        if position.shares_micro != shares or position.principal_micro > staked:
            yield f"position {position}: the ledger has {staked} staked and {shares} shares"
    waiting = Unstaking.objects.filter(released_at=None).values("party", "vault__asset")
    sums = {
        (row["party"], row["vault__asset"]): row["sum"]
        for row in waiting.annotate(sum=Sum("amount_micro"))
    }
    accounts = Account.objects.filter(purpose="unstaking").exclude(posted_micro=0)
    held = {(a.owner_id, a.asset_id): a.posted_micro for a in accounts}
    if held != {key: sum_ for key, sum_ in sums.items() if sum_}:
        yield "what is on its way out of the vaults is not what the accounts hold"


def _posted(owner_id: object, asset_id: object, purpose: str) -> int:
    found = Account.objects.filter(owner=owner_id, asset=asset_id, purpose=purpose)
    return found.aggregate(sum=Sum("posted_micro"))["sum"] or 0


EXCHANGE_INVARIANTS: list[Callable[[], Breaches]] = [
    validate_pools_are_on_the_ledger,
    validate_pools_keep_their_product,
    validate_vaults_are_on_the_ledger,
]
