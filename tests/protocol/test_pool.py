"""The pool's rules: Uniswap's vector, and what must hold for any history of any pool."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apps.protocol import pool as rules
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.pool import BASE, QUOTE, Pool, PoolRule
from tests.support.examples import examples

E18 = 10**18
amounts = st.one_of(st.integers(1, 5000), st.integers(1, 10**15))
reserves = st.integers(1, 10**15)
pools = st.builds(Pool, base=reserves, quote=reserves, shares=st.integers(1000, 10**15))
sides = st.sampled_from([BASE, QUOTE])


def refused(call, *args, **kwargs) -> str:
    with pytest.raises(PoolRule) as caught:
        call(*args, **kwargs)
    assert caught.value.code in rules.PRECEDENCE
    return caught.value.code


def test_the_vector_of_uniswap():
    """1 into 5/10: so much, and one unit more breaks the product."""
    before = Pool(base=5 * E18, quote=10 * E18, shares=1)
    out = rules.amount_out(E18, before.base, before.quote)
    assert out == 1662497915624478906
    after = Pool(base=6 * E18, quote=10 * E18 - out, shares=1)
    assert rules.keeps_product(before, after, base_in=E18)
    more = replace(after, quote=after.quote - 1)
    assert not rules.keeps_product(before, more, base_in=E18)


@pytest.mark.parametrize(
    "amount_in, x, y, out",
    [(1, 10, 5, "0453305446940074565"), (2, 5, 10, "2851015155847869602"),
     (2, 10, 5, "0831248957812239453"), (1, 10, 10, "0906610893880149131"),
     (1, 100, 100, "0987158034397061298"), (1, 1000, 1000, "0996006981039903216")],
)  # fmt: skip
def test_more_vectors_of_uniswap(amount_in, x, y, out):
    assert rules.amount_out(amount_in * E18, x * E18, y * E18) == int(out)


@settings(max_examples=1000, deadline=None)
@given(pools, sides, amounts)
def test_a_swap_gives_the_most_that_the_product_allows(pool, side, amount_in):
    try:
        done = rules.swap(pool, side, amount_in, at_ms=1)
    except PoolRule as broken:
        assert broken.code == "insufficient_liquidity"
        done = None
    paid = {"base_in": amount_in} if side == BASE else {"quote_in": amount_in}
    if done is None:
        x = replace(pool, **{side: getattr(pool, side) + amount_in})
        one = QUOTE if side == BASE else BASE
        assert not rules.keeps_product(pool, replace(x, **{one: getattr(pool, one) - 1}), **paid)
        return
    assert rules.keeps_product(pool, done.pool, **paid) and done.pool.k >= pool.k
    assert min(done.pool.base, done.pool.quote) > 0
    assert (done.pool.base - pool.base, done.pool.quote - pool.quote) == (done.base, done.quote)
    one = QUOTE if side == BASE else BASE
    greedy = replace(done.pool, **{one: getattr(done.pool, one) - 1})
    assert not rules.keeps_product(pool, greedy, **paid)


@settings(max_examples=1000, deadline=None)
@given(pools, sides, amounts)
def test_there_and_back_never_profits(pool, side, amount_in):
    other = QUOTE if side == BASE else BASE
    try:
        there = rules.swap(pool, side, amount_in, at_ms=0)
        back = rules.swap(there.pool, other, -getattr(there, other), at_ms=0)
    except PoolRule:
        return
    assert -getattr(back, side) < amount_in


@settings(max_examples=1000, deadline=None)
@given(pools, amounts, amounts)
def test_adding_and_removing_never_profits(pool, base, quote):
    try:
        put = rules.add(pool, base, quote, at_ms=0)
    except PoolRule as broken:
        assert broken.code in ("insufficient_liquidity", "pool_overflow")
        return
    assert 0 < put.base <= base and 0 < put.quote <= quote
    # A share is worth no less than before, in either asset.
    assert put.pool.base * pool.shares >= pool.base * put.pool.shares
    assert put.pool.quote * pool.shares >= pool.quote * put.pool.shares
    try:
        took = rules.remove(put.pool, put.shares, held=put.shares, at_ms=0)
    except PoolRule as broken:
        assert broken.code == "insufficient_liquidity"
        return
    assert -took.base <= put.base and -took.quote <= put.quote


def test_the_first_shares_leave_a_thousand_behind():
    made = rules.add(Pool(), 4_000_000, 1_000_000, at_ms=5)
    assert (made.shares, made.pool.shares, made.pool.at_ms) == (1_999_000, 2_000_000, 5)
    assert rules.price_micro(made.pool) == 250_000
    all_of_it = rules.remove(made.pool, made.shares, held=made.shares, at_ms=5)
    assert all_of_it.pool.shares == rules.MINIMUM_LIQUIDITY and all_of_it.pool.base > 0


POOL = Pool(base=10**9, quote=10**9, shares=10**9)


@pytest.mark.parametrize(
    "code, call, args, more",
    [
        ("amount_not_positive", rules.swap, (Pool(), BASE, 0), {"deadline_ms": 0}),
        ("amount_too_large", rules.swap, (Pool(), BASE, AMOUNT_MAX + 1), {"deadline_ms": 0}),
        ("quote_expired", rules.swap, (Pool(), BASE, 1), {"deadline_ms": 0}),
        ("pool_empty", rules.swap, (Pool(), BASE, 1), {}),
        ("pool_overflow", rules.swap, (POOL, BASE, AMOUNT_MAX), {"out_min": AMOUNT_MAX}),
        ("insufficient_liquidity", rules.swap, (POOL, BASE, 1), {"out_min": 5}),
        ("slippage_exceeded", rules.swap, (POOL, QUOTE, 1000), {"out_min": 997}),
        ("amount_not_positive", rules.add, (POOL, 5, -1), {}),
        ("minimum_liquidity", rules.add, (Pool(), 1000, 1000), {"shares_min": 5000}),
        ("pool_overflow", rules.add, (POOL, AMOUNT_MAX, AMOUNT_MAX), {}),
        ("insufficient_liquidity", rules.add, (replace(POOL, shares=1000), 1, 1), {}),
        ("slippage_exceeded", rules.add, (POOL, 100, 100), {"shares_min": 101}),
        ("quote_expired", rules.remove, (POOL, 5), {"held": 0, "deadline_ms": 0}),
        ("pool_empty", rules.remove, (Pool(), 5), {"held": 0}),
        ("insufficient_shares", rules.remove, (POOL, 6), {"held": 5}),
        ("insufficient_liquidity", rules.remove, (replace(POOL, base=1), 6), {"held": 6}),
        ("slippage_exceeded", rules.remove, (POOL, 6), {"held": 6, "base_min": 7}),
    ],
)
def test_the_first_broken_rule_is_named(code, call, args, more):
    assert refused(call, *args, at_ms=1, **more) == code


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**9)), min_size=1, max_size=20))
def test_the_mean_price_weighs_by_time(course):
    """Against the mean in fractions; a price that stood for no time does not count."""
    pool, total, start = Pool(base=10**6, quote=10**6, shares=1), Fraction(0), 0
    at = start
    for length, quote in course:
        pool = replace(pool, area=rules.area_at(pool, at), at_ms=at, quote=quote)
        at += length
        total += Fraction(quote * length)
    mean = rules.mean_price_micro(0, rules.area_at(pool, at), at)
    assert 0 <= total / at - mean < 2


def test_impact_fee_and_limit_round_against_the_trader():
    assert rules.impact_ppm(1_000_000, 99_700_000) == 9901
    assert (rules.fee(1), rules.fee(1000)) == (1, 3)
    assert (rules.least(1000, 50), rules.least(1, 50), rules.least(7, 0)) == (995, 1, 7)


class PoolHistory(RuleBasedStateMachine):
    """Any history of a pool, against purses that only add up."""

    names = st.sampled_from(["ann", "ben", "cid"])

    @initialize(base=amounts, quote=amounts)
    def start(self, base, quote):
        self.pool, self.at = Pool(), 0
        self.purse = {name: [10**16, 10**16, 0] for name in ("ann", "ben", "cid")}
        self.mean, self.since = 0, 0
        self.put("ann", base, quote)

    def take(self, name, change):
        purse = self.purse[name]
        assert change.pool.k * self.pool.shares**2 >= self.pool.k * change.pool.shares**2
        self.mean += rules.price_q(self.pool) * (self.at - self.pool.at_ms)
        self.pool = change.pool
        purse[0] -= change.base
        purse[1] -= change.quote
        purse[2] += change.shares

    @rule(name=names, base=amounts, quote=amounts)
    def put(self, name, base, quote):
        try:
            self.take(name, rules.add(self.pool, base, quote, at_ms=self.at))
        except PoolRule as broken:
            assert broken.code in ("minimum_liquidity", "insufficient_liquidity")

    @rule(name=names, part=st.fractions(0, 1))
    def take_out(self, name, part):
        held = self.purse[name][2]
        try:
            change = rules.remove(self.pool, int(held * part), held=held, at_ms=self.at)
            self.take(name, change)
        except PoolRule as broken:
            assert broken.code in ("amount_not_positive", "insufficient_liquidity", "pool_empty")

    @rule(name=names, side=sides, amount=amounts)
    def trade(self, name, side, amount):
        try:
            self.take(name, rules.swap(self.pool, side, amount, at_ms=self.at))
        except PoolRule as broken:
            assert broken.code in ("insufficient_liquidity", "pool_empty")

    @precondition(lambda self: self.pool.shares)
    @rule(length=st.integers(0, 10**7))
    def wait(self, length):
        self.at += length

    @invariant()
    def nothing_is_made_or_lost(self):
        base, quote, shares = (sum(p[i] for p in self.purse.values()) for i in range(3))
        assert (base + self.pool.base, quote + self.pool.quote) == (3 * 10**16, 3 * 10**16)
        locked = rules.MINIMUM_LIQUIDITY if self.pool.shares else 0
        assert shares + locked == self.pool.shares
        assert (self.pool.base > 0) == (self.pool.quote > 0) == (self.pool.shares > 0)
        assert rules.area_at(self.pool, self.at) == self.mean + rules.price_q(self.pool) * (
            self.at - self.pool.at_ms
        )


TestPoolHistory = PoolHistory.TestCase
TestPoolHistory.settings = settings(
    max_examples=examples(1000), stateful_step_count=12, deadline=None
)
