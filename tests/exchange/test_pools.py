"""Pools on the ledger: what moves, what is refused, what a retry gets."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.core.errors import DomainError
from apps.exchange import pools, selectors, vaults
from apps.exchange.models import Pool, PoolEvent
from apps.protocol import consent
from apps.protocol import pool as rules
from apps.wallets import keys
from apps.wallets.models import LogLeaf, Transfer
from tests.exchange.helpers import MICRO, at, has, holder, replayed
from tests.support.consents import bind, signed
from workers.client.replay import replay

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    """Opens FLAI/USDC at $0.25: 4 000 FLAI and 1 000 USDC."""
    ann = holder("ann", FLAI=10_000, USDC=10_000)
    pools.pool_open(
        party=ann, base="FLAI", base_micro=4_000 * MICRO, quote_micro=1_000 * MICRO, now=at(1)
    )
    return ann


def test_opening_a_pool_sets_its_price_and_keeps_a_thousand_shares(ann):
    pool = selectors.pool_by_base("FLAI")
    assert pool.price_micro == 250_000
    assert (has(ann, "FLAI"), has(ann, "USDC")) == (6_000 * MICRO, 9_000 * MICRO)
    assert has(pool.party, "FLAI", "pool") == 4_000 * MICRO
    assert has(ann, "LP-FLAI") == 2_000 * MICRO - 1000
    assert has(pool.party, "LP-FLAI", "pool") == 1000
    with pytest.raises(DomainError, match="pool_exists"):
        pools.pool_open(party=ann, base="FLAI", base_micro=5, quote_micro=5, now=at(2))


def test_a_swap_pays_what_was_quoted_and_leaves_the_fee(ann):
    ben = holder("ben", USDC=10)
    quoted = selectors.quote(
        selectors.pool_by_base("FLAI"), side="quote", amount_micro=10 * MICRO, slippage_bps=50
    )
    assert (quoted.fee_micro, quoted.asset_out) == (30_000, "FLAI")
    event = pools.swap(
        party=ben,
        base="FLAI",
        side="quote",
        amount_micro=10 * MICRO,
        out_min_micro=quoted.out_min_micro,
        deadline=at(9),
        now=at(9),
    )
    assert has(ben, "FLAI") == quoted.amount_out_micro == -event.base_micro
    assert has(ben, "USDC") == 0
    pool = selectors.pool_by_base("FLAI")
    assert pool.price_micro == quoted.price_after_micro == event.price_micro
    assert rules.keeps_product(
        rules.Pool(4_000 * MICRO, 1_000 * MICRO), pool.state, quote_in=10 * MICRO
    )


def test_liquidity_comes_back_with_its_fees(ann):
    ben, cid = holder("ben", FLAI=2_000, USDC=1_000), holder("cid", USDC=500)
    pools.liquidity_add(
        party=ben, base="FLAI", base_max_micro=2_000 * MICRO, quote_max_micro=900 * MICRO,
        now=at(2),
    )  # fmt: skip
    assert (has(ben, "FLAI"), has(ben, "USDC")) == (0, 500 * MICRO)
    for second in range(3, 13):
        pools.swap(party=cid, base="FLAI", side="quote", amount_micro=20 * MICRO, now=at(second))
        got = has(cid, "FLAI")
        pools.swap(party=cid, base="FLAI", side="base", amount_micro=got, now=at(second))
    lost = 500 * MICRO - has(cid, "USDC")
    pools.liquidity_remove(party=ben, base="FLAI", shares_micro=has(ben, "LP-FLAI"), now=at(20))
    assert has(ben, "LP-FLAI") == 0
    gained = has(ben, "USDC") - 1_000 * MICRO + (has(ben, "FLAI") - 2_000 * MICRO) // 4
    assert lost // 3 - 20 <= gained <= lost // 3 + 20  # a third of the pool was his


def refused(code, call, **args):
    before = (Transfer.objects.count(), LogLeaf.objects.count(), PoolEvent.objects.count())
    with pytest.raises(DomainError) as caught:
        call(**{"base": "FLAI", "now": at(5)} | args)
    assert caught.value.code == code
    after = (Transfer.objects.count(), LogLeaf.objects.count(), PoolEvent.objects.count())
    assert after == before


def test_what_is_refused_is_named_in_order_and_writes_nothing(ann):
    swap = {"call": pools.swap, "party": ann, "side": "base", "amount_micro": 5 * MICRO}
    late, much = {"deadline": at(4)}, {"out_min_micro": 2**62}
    refused("pool_not_found", **swap | {"base": "USDC"})
    refused("amount_not_positive", **swap | late | much | {"amount_micro": 0})
    refused("amount_too_large", **swap | late | much | {"amount_micro": 2**63})
    refused("quote_expired", **swap | late | much)
    refused("pool_overflow", **swap | much | {"amount_micro": 2**63 - 1})
    refused("insufficient_liquidity", **swap | much | {"amount_micro": 1})
    refused("slippage_exceeded", **swap | much)
    refused("insufficient_balance", **swap | {"amount_micro": 7_000 * MICRO})
    refused("insufficient_shares", pools.liquidity_remove, party=holder("x"), shares_micro=1)
    refused(
        "slippage_exceeded", pools.liquidity_add, party=ann, base_max_micro=MICRO,
        quote_max_micro=MICRO, shares_min_micro=MICRO,
    )  # fmt: skip
    refused("not_tradable", pools.pool_open, party=ann, base="USDC", base_micro=1, quote_micro=1)


def test_the_same_swap_again_gets_the_same_answer_and_another_one_a_conflict(ann):
    key = uuid.uuid4()
    swap = {"party": ann, "base": "FLAI", "side": "base", "amount_micro": MICRO}
    first = pools.swap(**swap, idempotency=key, now=at(2))
    again = pools.swap(**swap, idempotency=key, now=at(7))
    assert (again.id, again.at_ms, again.quote_micro) == (first.id, first.at_ms, first.quote_micro)
    with pytest.raises(DomainError, match="transfer_conflict"):
        pools.swap(**swap | {"amount_micro": 2 * MICRO}, idempotency=key, now=at(8))
    assert Pool.objects.get().events.count() == 2


def test_the_mean_price_weighs_by_time_and_an_instant_does_not_move_it(ann):
    pool = selectors.pool_by_base("FLAI")
    assert selectors.price_mean_micro(pool, at(0), at(5)) is None  # it was not there yet
    assert selectors.price_mean_micro(pool, at(1), at(5)) == 250_000
    # Doubled and halved again within a moment.
    pools.swap(party=ann, base="FLAI", side="quote", amount_micro=400 * MICRO, now=at(11))
    got = has(ann, "FLAI") - 6_000 * MICRO
    pools.swap(party=ann, base="FLAI", side="base", amount_micro=got, now=at(11))
    pool = selectors.pool_by_base("FLAI")
    mean = selectors.price_mean_micro(pool, at(1), at(21))
    assert 250_000 <= mean <= 251_000
    rows = selectors.history(pool, start=at(0) - timedelta(days=1), end=at(21), buckets=4)
    assert [row.volume_micro > 0 for row in rows] == [False, True, False, False]
    assert rows[0].price_micro == 250_000 and rows[-1].end == at(21)
    selectors.add_last_day([pool], at(21))
    assert pool.volume_24h_micro == sum(row.volume_micro for row in rows)


def test_the_history_of_a_pool_cannot_be_changed(ann):
    from django.db import DatabaseError, transaction

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        PoolEvent.objects.update(base_micro=1)


def test_the_log_replays_to_the_same_pool_and_a_bent_leaf_is_found(ann):
    pools.swap(party=ann, base="FLAI", side="base", amount_micro=77 * MICRO, now=at(3))
    pools.liquidity_remove(party=ann, base="FLAI", shares_micro=55 * MICRO, now=at(3))
    state = replayed()
    assert state.findings.errors == []
    pool = selectors.pool_by_base("FLAI")
    assert state.exchange.pools[pool.party.pid].state == pool.state


def test_a_bound_key_signs_swaps_and_locks_with_their_limits(ann):
    key = Ed25519PrivateKey.generate()
    bind(ann, key, now=at(2))
    swap = {"base": "FLAI", "side": "base", "amount_micro": MICRO, "out_min_micro": 5}
    refused("signature_required", pools.swap, party=ann, **swap)
    word = signed(ann, key, consent.SWAP, consent.swap_payload(**swap), nonce=1, now=at(5))
    said = keys.Consent("session", word)
    refused("bad_signature", pools.swap, party=ann, **swap | {"out_min_micro": 0}, consent=said)
    pools.swap(party=ann, **swap, consent=said, now=at(5))
    lock = {"asset": "FLAI", "amount_micro": MICRO, "lock_s": 60}
    word = signed(ann, key, consent.STAKE, consent.stake_payload(**lock), nonce=2, now=at(6))
    vaults.stake(party=ann, **lock, consent=keys.Consent("session", word), now=at(6))
    state = replayed()
    assert state.findings.errors == [] and state.findings.signatures == 3


@pytest.mark.parametrize(
    "bent", [{"signed": None}, {"asked": {"out_min_micro": "0"}}, {"asked": {"side": "quote"}}]
)
def test_a_swap_without_its_partys_signature_is_found(ann, bent):
    key = Ed25519PrivateKey.generate()
    bind(ann, key, now=at(2))
    swap = {"base": "FLAI", "side": "base", "amount_micro": MICRO, "out_min_micro": 5}
    word = signed(ann, key, consent.SWAP, consent.swap_payload(**swap), nonce=1, now=at(5))
    pools.swap(party=ann, **swap, consent=keys.Consent("session", word), now=at(5))
    leaves = [json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id")]
    body = leaves[-1]["body"]
    body |= {k: body[k] | v if isinstance(v, dict) else v for k, v in bent.items()}
    error, *_ = replay(leaves).findings.errors
    assert "exchange.swap" in error or "not what was asked for" in error
