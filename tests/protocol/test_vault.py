"""The vault's shares: nobody gains by rounding, nobody can make them too dear for the next one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apps.protocol import vault as rules
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.vault import Position, Vault, VaultRule
from tests.support.examples import examples

amounts = st.one_of(st.integers(1, 5000), st.integers(1, 10**12))
NONE = Position()


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(VaultRule) as caught:
        call(*args, **kwargs)
    assert caught.value.code in rules.PRECEDENCE
    return caught.value.code


@given(st.lists(amounts, min_size=1, max_size=8))
def test_without_earnings_a_stake_is_what_was_staked(stakes):
    vault = Vault()
    for amount in stakes:
        done = rules.stake(vault, NONE, amount)
        vault = done.vault
        assert (done.position.principal, done.shares, done.earned) == (amount, 1000 * amount, 0)
    assert vault.pot == 0


def test_earnings_are_shared_by_stake_and_count_when_touched():
    vault = rules.stake(Vault(), NONE, 3_000_000).vault
    ben = rules.stake(vault, NONE, 1_000_000)
    ann = Position(3_000_000, 3_000_000_000)
    vault = rules.reward(ben.vault, 400_000)
    assert (rules.worth(vault, ann), rules.worth(vault, ben.position)) == (3_299_999, 1_099_999)
    more = rules.stake(vault, ann, 1)
    assert more.earned in (299_998, 299_999) and more.position.principal >= 3_299_999
    out = rules.leave(more.vault, ben.position, 1_099_999, at_ms=0)
    assert (out.position, out.earned) == (NONE, 99_999)


@settings(max_examples=1000, deadline=None)
@given(first=amounts, given_=amounts, second=amounts)
def test_who_makes_shares_dear_pays_for_it(first, given_, second):
    """The donation attack: stake, give, let a victim stake, leave. It never pays, and the victim
    loses at most a thousandth of what was given, and the rounding of a unit."""
    attacker = rules.stake(Vault(), NONE, first)
    vault = rules.reward(attacker.vault, given_)
    try:
        victim = rules.stake(vault, NONE, second)
    except VaultRule as broken:
        assert broken.code == "worth_no_share"  # refused, nothing lost
        return
    got = rules.worth(victim.vault, attacker.position)
    left = rules.leave(victim.vault, attacker.position, got, at_ms=0)
    attackers_loss = first + given_ - got
    victims_loss = second - rules.worth(left.vault, victim.position)
    assert attackers_loss >= 0
    assert victims_loss <= given_ // 1000 + 2


@settings(max_examples=1000, deadline=None)
@given(amounts, amounts, amounts)
def test_in_and_out_never_profits_and_a_share_never_loses(staked, given_, amount):
    vault = rules.reward(rules.stake(Vault(), NONE, staked).vault, given_)
    try:
        put = rules.stake(vault, NONE, amount)
    except VaultRule as broken:
        assert broken.code == "worth_no_share"
        return
    assert rules.worth(put.vault, put.position) <= amount
    assert rules.value(put.vault, 10**9) >= rules.value(vault, 10**9)
    if put.position.principal:
        out = rules.leave(put.vault, put.position, put.position.principal, at_ms=0)
        assert rules.value(out.vault, 10**9) >= rules.value(put.vault, 10**9)


FULL = Vault(10, 10_000, 10)
MINE = Position(10, 10_000, locked_until_ms=100)


@pytest.mark.parametrize(
    "code, call, args, more",
    [
        ("amount_not_positive", rules.stake, (Vault(), NONE, 0), {}),
        ("amount_too_large", rules.stake, (Vault(), NONE, AMOUNT_MAX + 1), {}),
        ("vault_overflow", rules.stake, (Vault(), NONE, AMOUNT_MAX), {}),
        ("vault_overflow", rules.stake, (Vault(), NONE, AMOUNT_MAX // 1000 + 1), {}),
        ("worth_no_share", rules.stake, (Vault(10**9, 10, 10), NONE, 5), {}),
        ("amount_not_positive", rules.leave, (FULL, MINE, -1), {"at_ms": 0}),
        ("stake_locked", rules.leave, (FULL, MINE, 11), {"at_ms": 99}),
        ("insufficient_stake", rules.leave, (FULL, MINE, 11), {"at_ms": 100}),
        ("insufficient_stake", rules.leave, (FULL, MINE, 11), {"at_ms": 0, "forced": True}),
        ("vault_empty", rules.reward, (Vault(), 5), {}),
        ("amount_not_positive", rules.reward, (Vault(), 0), {}),
        ("vault_overflow", rules.reward, (FULL, AMOUNT_MAX), {}),
    ],
)
def test_the_first_broken_rule_is_named(code, call, args, more):
    assert refused(call, *args, **more) == code


def test_a_lock_only_grows():
    locked = rules.stake(Vault(), NONE, 5, locked_until_ms=90)
    again = rules.stake(locked.vault, locked.position, 5, locked_until_ms=30)
    assert again.position.locked_until_ms == 90
    assert rules.leave(again.vault, again.position, 10, at_ms=90).position.principal == 0


class VaultHistory(RuleBasedStateMachine):
    """Any history of a vault, against purses that only add up."""

    names = st.sampled_from(["ann", "ben", "cid"])

    @initialize()
    def start(self):
        self.vault, self.gifts = Vault(), 0
        self.held = {name: NONE for name in ("ann", "ben", "cid")}
        self.put = dict.fromkeys(self.held, 0)

    def take(self, name, change, amount):
        before = self.vault
        assert change.position.principal == self.held[name].principal + amount + change.earned
        assert change.position.shares == self.held[name].shares + change.shares
        assert rules.value(change.vault, 10**9) >= rules.value(before, 10**9)
        others = {n: rules.worth(before, p) for n, p in self.held.items() if n != name}
        self.vault, self.held[name] = change.vault, change.position
        self.put[name] += amount
        for other, worth in others.items():  # a unit of the pot may be taken by rounding
            assert rules.worth(self.vault, self.held[other]) >= worth - 1

    @rule(name=names, amount=amounts)
    def stake(self, name, amount):
        try:
            self.take(name, rules.stake(self.vault, self.held[name], amount), amount)
        except VaultRule as broken:
            assert broken.code == "worth_no_share"

    @rule(name=names, part=st.fractions(0, 1), forced=st.booleans())
    def leave(self, name, part, forced):
        amount = int(rules.worth(self.vault, self.held[name]) * part)
        try:
            done = rules.leave(self.vault, self.held[name], amount, at_ms=0, forced=forced)
            self.take(name, done, -amount)
        except VaultRule as broken:
            assert broken.code == "amount_not_positive" and not amount

    @rule(amount=amounts)
    def give(self, amount):
        try:
            self.vault = rules.reward(self.vault, amount)
            self.gifts += amount
        except VaultRule as broken:
            assert broken.code == "vault_empty" and not self.vault.shares

    @invariant()
    def nothing_is_made_or_lost(self):
        v, held = self.vault, self.held.values()
        assert v.assets == sum(self.put.values()) + self.gifts
        assert v.shares == sum(p.shares for p in held) <= 1000 * v.assets
        assert v.principal == sum(p.principal for p in held)
        assert v.pot >= 0 and min(p.principal for p in held) >= 0
        assert sum(rules.value(v, p.shares) for p in held) <= v.assets


TestVaultHistory = VaultHistory.TestCase
TestVaultHistory.settings = settings(
    max_examples=examples(1000), stateful_step_count=12, deadline=None
)
