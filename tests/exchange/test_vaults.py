"""Staking on the ledger: weight stays, earnings are shared, leaving takes time, votes slash."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest

from apps.core import actions
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.exchange import selectors, vaults
from apps.exchange.models import Vault
from apps.subdaos.selectors import superdao
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.selectors import asset_by_code, supply_weights
from apps.wallets.services import account, faucet, mint
from tests.exchange.helpers import MICRO, at, has, holder, replayed
from tests.wallets.test_wallet_api import member
from workers.client.replay import Replay

pytestmark = pytest.mark.django_db
WEEK = 7 * 86_400


def stake(who, whole, seconds=1, **more):
    return vaults.stake(
        party=who, asset="FLAI", amount_micro=whole * MICRO, now=at(seconds), **more
    )


def unstake(who, amount_micro, seconds=5, **more):
    return vaults.unstake(
        party=who, asset="FLAI", amount_micro=amount_micro, now=at(seconds), **more
    )


def weight(who, seconds):
    return supply_weights("FLAI", ("staked",), at(seconds)).get(who.id, 0)


def test_a_stake_weighs_what_was_staked_until_it_is_unstaked():
    ann, ben = holder("ann", FLAI=100), holder("ben", FLAI=100)
    stake(ann, 70)
    stake(ben, 30, 2)
    assert (weight(ann, 3), weight(ben, 3)) == (70 * MICRO, 30 * MICRO)
    assert has(ann, "ST-FLAI", "vault") == 70_000 * MICRO
    unstake(ann, 70 * MICRO)
    assert (weight(ann, 6), has(ann, "FLAI"), has(ann, "FLAI", "unstaking")) == (
        0, 30 * MICRO, 70 * MICRO,
    )  # fmt: skip
    assert weight(ann, 4) == 70 * MICRO  # the past does not change


def test_of_much_on_its_way_out_the_soonest_is_shown_and_all_is_paged(monkeypatch):
    monkeypatch.setattr(selectors, "UNSTAKINGS_SHOWN", 1)
    client, ann = member("ann")
    faucet(party=ann, asset="FLAI", amount_micro=100 * MICRO, now=at(0))
    stake(ann, 100)
    for seconds in (5, 6):
        unstake(ann, seconds * MICRO, seconds)
    where = "/api/v1/vaults/FLAI"
    (soonest,) = client.get(f"{where}/position/").data["unstaking"]
    rows = client.get(f"{where}/unstakings/").data["results"]
    assert [row["amount_micro"] for row in (soonest, *rows)] == ["5000000", "5000000", "6000000"]
    client.force_login(ann.memberships.get().user)
    assert "More comes later" in client.get("/vaults/FLAI/").content.decode()


def test_unstaked_tokens_come_back_once_after_the_delay():
    ann = holder("ann", FLAI=100)
    stake(ann, 100)
    unstake(ann, 40 * MICRO, 5)
    assert vaults.release_due(now=at(4 + WEEK)) == 0
    assert vaults.release_due(now=at(5 + WEEK)) == 1
    assert vaults.release_due(now=at(5 + WEEK)) == 0
    assert (has(ann, "FLAI"), has(ann, "FLAI", "unstaking")) == (40 * MICRO, 0)
    assert replayed().findings.errors == []


def test_a_reward_is_everybodys_by_stake_and_joins_the_stake_when_touched():
    ann, ben, cid = (holder(name, FLAI=100) for name in ("ann", "ben", "cid"))
    stake(ann, 75)
    stake(ben, 25, 2)
    vaults.reward(party=cid, asset="FLAI", amount_micro=40 * MICRO, now=at(3))
    flai = asset_by_code("FLAI")
    assert 0 <= 105 * MICRO - selectors.staked_of(ann, flai).worth_micro <= 1
    assert weight(ann, 4) == 75 * MICRO
    stake(ann, 25, 5)  # touched: what was earned is staked now
    assert 0 <= 130 * MICRO - weight(ann, 6) <= 2
    unstake(ben, selectors.staked_of(ben, flai).worth_micro)
    assert 0 <= 35 * MICRO - has(ben, "FLAI", "unstaking") <= 1
    vault = selectors.vault_of(flai)
    assert 0 <= vault.state.pot <= 3 and has(vault.party, "FLAI", "vault") == vault.state.pot
    assert replayed().findings.errors == []


def test_what_was_staked_before_there_was_a_vault_counts_and_joins_it():
    ann = holder("ann", FLAI=10)
    with durable():
        mint("FLAI", account(ann, "FLAI", "staked"), 50 * MICRO, None, at(0))
    flai = asset_by_code("FLAI")
    assert selectors.staked_of(ann, flai).worth_micro == 50 * MICRO
    unstake(ann, 20 * MICRO)
    [position] = Vault.objects.get().positions.all()
    assert position.principal_micro == has(ann, "FLAI", "staked") == 30 * MICRO
    assert replayed().findings.errors == []


def refused(code, call, **args):
    before = (Transfer.objects.count(), LogLeaf.objects.filter(type__contains="changed").count())
    with pytest.raises(DomainError) as caught:
        call(**{"asset": "FLAI", "now": at(5)} | args)
    assert caught.value.code == code
    after = (Transfer.objects.count(), LogLeaf.objects.filter(type__contains="changed").count())
    assert after == before


def test_what_is_refused_is_named_in_order_and_writes_nothing():
    ann, ben = holder("ann", FLAI=100), holder("ben", FLAI=5)
    refused("vault_empty", vaults.reward, party=ann, amount_micro=5)
    stake(ann, 60, lock_s=100)
    lot = 2**63
    refused("not_stakeable", vaults.stake, party=ann, asset="USDC", amount_micro=5)
    refused("not_stakeable", vaults.stake, party=ann, asset="FLAIX", amount_micro=5)
    refused("lock_too_long", vaults.stake, party=ann, amount_micro=5, lock_s=10**9)
    refused("amount_not_positive", vaults.stake, party=ann, amount_micro=0)
    refused("amount_too_large", vaults.stake, party=ann, amount_micro=lot)
    refused("vault_overflow", vaults.stake, party=ann, amount_micro=lot // 1000)
    refused("insufficient_balance", vaults.stake, party=ann, amount_micro=41 * MICRO)
    refused("stake_locked", vaults.unstake, party=ann, amount_micro=lot - 1)
    refused("insufficient_stake", vaults.unstake, party=ann, amount_micro=lot - 1, now=at(200))
    refused("insufficient_stake", vaults.unstake, party=ben, amount_micro=1)
    refused("insufficient_balance", vaults.reward, party=ben, amount_micro=6 * MICRO)


def test_a_retry_moves_nothing_twice():
    ann, key = holder("ann", FLAI=100), uuid.uuid4()
    first = stake(ann, 60, idempotency=key)
    assert stake(ann, 60, 9, idempotency=key) == first and weight(ann, 10) == 60 * MICRO
    with pytest.raises(DomainError, match="transfer_conflict"):
        stake(ann, 61, 9, idempotency=key)
    out = unstake(ann, 5, idempotency=key)
    assert unstake(ann, 5, 9, idempotency=key) == out and has(ann, "FLAI", "unstaking") == 5


class Voted:
    """A carried slashing, without the votes: the action, and the leaves that it rests on."""

    def __init__(self, who, amount_micro):
        self.dao, self.id = superdao(), uuid.uuid4()
        self.action = actions.get("exchange.slash_flai")
        payload = {"party": who.pid, "amount_micro": str(amount_micro)}
        self.payload = self.action.validate(payload, self.dao)

    def execute(self, seconds):
        with durable():
            self.action.execute(self.payload, dao=self.dao, proposal_id=self.id, now=at(seconds))


def test_a_slashing_takes_the_stake_first_then_what_is_on_its_way_out():
    ann, ben = holder("ann", FLAI=100), holder("ben", FLAI=100)
    stake(ann, 100, lock_s=0)
    stake(ben, 100)
    unstake(ann, 30 * MICRO, 2)
    unstake(ann, 20 * MICRO, 3)
    voted = Voted(ann, 60 * MICRO)
    [change] = voted.action.describe(voted.payload, voted.dao)
    assert (change["before"], change["after"]) == (str(100 * MICRO), str(40 * MICRO))
    voted.execute(4)
    treasury = has(superdao().party, "FLAI", "treasury")
    assert (weight(ann, 5), has(ann, "FLAI", "unstaking"), treasury) == (
        0, 40 * MICRO, 60 * MICRO,
    )  # fmt: skip
    assert weight(ben, 5) == 100 * MICRO
    assert vaults.release_due(now=at(0) + timedelta(days=8)) == 2
    assert has(ann, "FLAI") == 40 * MICRO


def test_a_lock_does_not_protect_from_a_slashing_and_no_more_is_taken_than_there_is():
    ann = holder("ann", FLAI=100)
    with pytest.raises(DomainError, match="nothing_staked"):
        Voted(ann, 5)
    stake(ann, 100, lock_s=1000)
    Voted(ann, 500 * MICRO).execute(2)
    assert (weight(ann, 3), has(superdao().party, "FLAI", "treasury")) == (0, 100 * MICRO)


def test_a_slashing_nobody_voted_on_is_found_in_the_log():
    ann = holder("ann", FLAI=100)
    stake(ann, 100)
    Voted(ann, 5 * MICRO).execute(2)
    errors = replayed().findings.errors
    assert any("is not in the log" in e for e in errors)  # the proposal
    assert any("was not voted on" in e for e in errors)


BENT = [
    ("exchange.vault_changed", {"shares_micro": "1"}, "rules of a vault"),
    ("exchange.vault_changed", {"earned_micro": "9"}, "rules of a vault"),
    ("exchange.vault_changed", {"amount_micro": "9"}, "rules of a vault"),
    ("exchange.vault_changed", {"party": "00" * 16}, "insufficient_stake"),
    ("exchange.vault_changed", {"ready_at": 0}, "sooner or later than the vault says"),
    ("exchange.pool_changed", {"quote_micro": "-123"}, "rules of a pool"),
    ("exchange.pool_changed", {"area": "1"}, "rules of a pool"),
    ("exchange.pool_changed", {"party": "00" * 16}, "its transfers"),
    ("exchange.pool_changed", {"at_ms": "5"}, "its time"),
    ("wallets.transfer", {"amount_micro": "9"}, "its transfers"),
    ("wallets.transfer", {"ref": None}, "for no reason"),
]


@pytest.mark.parametrize(("type_", "bent", "found"), BENT)
def test_a_bent_leaf_of_pool_or_vault_is_found(type_, bent, found):
    from apps.exchange import pools

    ann = holder("ann", FLAI=1_000, USDC=1_000)
    stake(ann, 70)
    vaults.reward(party=ann, asset="FLAI", amount_micro=7 * MICRO, now=at(2))
    unstake(ann, 20 * MICRO)
    pools.pool_open(
        party=ann, base="FLAI", base_micro=400 * MICRO, quote_micro=100 * MICRO, now=at(6)
    )
    pools.swap(party=ann, base="FLAI", side="base", amount_micro=MICRO, now=at(7))
    leaves = [json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id")]
    # The last of its type; of the transfers the one that a pool pays out.
    last = max(
        i for i, x in enumerate(leaves)
        if x["type"] == type_ and ("/pool/" in x["body"].get("debit", "/pool/"))
    )  # fmt: skip
    leaves[last]["body"] |= bent
    state = Replay()
    for index, leaf in enumerate(leaves):
        state.leaf(index, leaf)
    errors = state.end().errors
    assert any(found in error for error in errors), errors
