"""Parallel swaps and stakes on real connections: nothing is made or lost, k never falls."""

from __future__ import annotations

import uuid

import pytest

from apps.exchange import pools, selectors, vaults
from apps.exchange.models import Pool, PoolEvent, Vault
from apps.wallets.selectors import asset_by_code
from tests.exchange.helpers import MICRO, at, has, holder, replayed
from tests.wallets.test_concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)


def pool_of(ann):
    pools.pool_open(
        party=ann, base="FLAI", base_micro=400 * MICRO, quote_micro=100 * MICRO, now=at(1)
    )


@pytest.fixture(autouse=True)
def _joined(monkeypatch):
    """`together` opens the transaction itself."""
    from django.db import transaction

    monkeypatch.setattr(pools, "durable", transaction.atomic)
    monkeypatch.setattr(vaults, "durable", transaction.atomic)


def test_parallel_swaps_conserve_and_k_never_falls():
    ann = holder("ann", FLAI=1_000, USDC=1_000)
    people = [holder(f"p{i}", FLAI=50, USDC=50) for i in range(4)]
    pool_of(ann)

    def trade(who, side):
        for k in range(5):
            pools.swap(party=who, base="FLAI", side=side, amount_micro=(k + 1) * MICRO, now=at(2))

    jobs = [lambda w=w, s=s: trade(w, s) for w in people for s in ("base", "quote")]
    assert together(*jobs) == {"ok": 8}
    k = 0
    for event in PoolEvent.objects.order_by("number"):
        assert event.after.k >= k
        k = event.after.k
    pool = Pool.objects.get()
    everybody = [*people, ann]
    for asset, whole in (("FLAI", 1_200), ("USDC", 1_200)):
        held = sum(has(who, asset) for who in everybody)
        assert held + has(pool.party, asset, "pool") == whole * MICRO
    assert pool.events_count == 41
    assert replayed().findings.errors == []


def test_one_of_two_who_open_the_same_pool_is_told():
    ann, ben = holder("ann", FLAI=500, USDC=500), holder("ben", FLAI=500, USDC=500)
    assert together(lambda: pool_of(ann), lambda: pool_of(ben)) == {"ok": 1, "pool_exists": 1}


def test_the_same_swap_at_once_happens_once():
    ann, key = holder("ann", FLAI=1_000, USDC=1_000), uuid.uuid4()
    pool_of(ann)

    def swap():
        pools.swap(
            party=ann, base="FLAI", side="base", amount_micro=MICRO, idempotency=key, now=at(2)
        )

    assert together(*[swap] * 6) == {"ok": 6}
    assert Pool.objects.get().events_count == 2


def test_parallel_stakes_make_one_vault_and_every_share_is_accounted_for():
    people = [holder(f"p{i}", FLAI=50) for i in range(6)]

    def live(who):
        vaults.stake(party=who, asset="FLAI", amount_micro=30 * MICRO, now=at(1))
        vaults.reward(party=who, asset="FLAI", amount_micro=MICRO, now=at(2))
        vaults.unstake(party=who, asset="FLAI", amount_micro=10 * MICRO, now=at(3))

    assert together(*[lambda w=w: live(w) for w in people]) == {"ok": 6}
    vault = Vault.objects.get()
    assert vault.assets_micro == 6 * 21 * MICRO
    worths = [selectors.staked_of(w, asset_by_code("FLAI")).worth_micro for w in people]
    assert 0 <= vault.assets_micro - sum(worths) <= 6
    assert replayed().findings.errors == []
