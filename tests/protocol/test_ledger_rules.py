"""Rules of the ledger against a model that only adds up, on generated histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.protocol.ledger import (
    AMOUNT_MAX,
    PRECEDENCE,
    Balance,
    Move,
    RuleBroken,
    apply,
    net_posted,
)
from tests.support.examples import examples

ACCOUNTS = ["mint", "a", "b", "c", "other"]
START = {
    "mint": Balance("USDC", floor_micro=-1000),
    "a": Balance("USDC"),
    "b": Balance("USDC"),
    "c": Balance("USDC"),
    "other": Balance("FLAI"),
}
amounts = st.one_of(st.integers(-2, 120), st.sampled_from([AMOUNT_MAX, AMOUNT_MAX + 1]))
moves = st.builds(
    Move,
    debit=st.sampled_from([*ACCOUNTS, "nobody"]),
    credit=st.sampled_from([*ACCOUNTS, "nobody"]),
    amount_micro=amounts,
    phase=st.sampled_from(["single", "pend"]),
    hold_micro=st.just(0),
)


class Book:
    """A ledger that is only a list: moves made, holds open; balances are always added up anew."""

    def __init__(self):
        self.made, self.holds = [], {}

    def posted(self, account):
        return net_posted(self.made).get(account, 0)

    def held(self, account):
        return sum(m.amount_micro for m in self.holds.values() if m.debit == account)


@st.composite
def histories(draw):
    return [
        draw(
            st.one_of(
                moves, st.tuples(st.sampled_from(["post", "void"]), st.integers(0, 9), amounts)
            )
        )
        for _ in range(draw(st.integers(0, 30)))
    ]


@settings(max_examples=examples(1000), deadline=None)
@given(histories())
def test_balances_are_always_the_sums_and_money_is_conserved(history):
    book, balances = Book(), dict(START)
    for step, wanted in enumerate(history):
        pending = None
        if not isinstance(wanted, Move):
            phase, nth, amount_micro = wanted
            if not book.holds:
                continue
            pending = sorted(book.holds)[nth % len(book.holds)]
            hold = book.holds[pending]
            if phase == "void":
                amount_micro = hold.amount_micro
            move = Move(hold.debit, hold.credit, amount_micro, phase, hold.amount_micro)
        else:
            move = wanted
        before = dict(balances)
        try:
            balances = apply(balances, [move])
        except RuleBroken as broken:
            assert broken.code in PRECEDENCE and balances == before
            continue
        book.made.append(move)
        if pending is not None:
            del book.holds[pending]
        elif move.phase == "pend":
            book.holds[step] = move
        assert move.amount_micro > 0 and move.debit != move.credit
        for account, balance in balances.items():
            assert balance.posted_micro == book.posted(account)
            assert balance.held_micro == book.held(account) >= 0
            assert balance.posted_micro - balance.held_micro >= balance.floor_micro
        for asset in ("USDC", "FLAI"):
            assert sum(b.posted_micro for b in balances.values() if b.asset == asset) == 0


@settings(max_examples=300, deadline=None)
@given(st.lists(moves, max_size=8))
def test_a_group_gives_what_its_moves_give_one_by_one_or_nothing(group):
    one_by_one, failed = dict(START), None
    for index, move in enumerate(group):
        try:
            one_by_one = apply(one_by_one, [move])
        except RuleBroken as broken:
            failed = (index, broken.code)
            break
    start = dict(START)
    if failed is None:
        assert apply(start, group) == one_by_one
    else:
        with pytest.raises(RuleBroken) as error:
            apply(start, group)
        assert (error.value.index, error.value.code) == failed
    assert start == START


# Two broken rules at once: the one named comes first in PRECEDENCE.
TABLE = """
debit  credit  amount  phase   hold  code
nobody a       0       single  0     unknown_account
a      nobody  1       single  0     unknown_account
a      a       0       single  0     amount_not_positive
a      a       -1      pend    0     amount_not_positive
a      a       2**63   single  0     amount_too_large
a      a       1       single  0     same_account
a      other   1       single  0     asset_mismatch
a      b       6       post    5     post_over_hold
a      b       5       post    5     nothing_held
a      b       5       void    5     nothing_held
a      b       1       single  0     insufficient_balance
a      b       1       pend    0     insufficient_balance
mint   a       1001    single  0     insufficient_balance
mint   full    1       single  0     balance_overflow
"""


@pytest.mark.parametrize("line", TABLE.strip().splitlines()[1:])
def test_the_first_broken_rule_is_named(line):
    debit, credit, amount, phase, hold, code = line.split()
    balances = START | {"full": Balance("USDC", AMOUNT_MAX)}
    with pytest.raises(RuleBroken) as error:
        apply(balances, [Move(debit, credit, eval(amount), phase, int(hold))])
    assert error.value.code == code


def test_what_lacks_is_told():
    with pytest.raises(RuleBroken) as error:
        apply(START, [Move("mint", "a", 10), Move("a", "b", 13)])
    assert (error.value.index, error.value.account, error.value.short_micro) == (1, "a", 3)


def test_a_hold_pays_at_most_what_it_holds_and_frees_the_rest():
    balances = apply(START, [Move("mint", "a", 10), Move("a", "b", 7, "pend")])
    assert (balances["a"].held_micro, balances["a"].available_micro) == (7, 3)
    paid = apply(balances, [Move("a", "b", 4, "post", 7)])
    assert (paid["a"].posted_micro, paid["a"].held_micro, paid["b"].posted_micro) == (6, 0, 4)
    assert apply(balances, [Move("a", "b", 7, "void", 7)])["a"].available_micro == 10


@pytest.mark.parametrize("phase", ["single", "pend", "post", "void"])
@pytest.mark.parametrize("side", ["debit", "credit"])
def test_a_closed_account_takes_part_in_nothing_but_a_void(phase, side):
    balances = {"a": Balance("USDC", 10, 5, closed=side == "debit")}
    balances["b"] = Balance("USDC", closed=side == "credit")
    move = Move("a", "b", 5, phase, 5 if phase in ("post", "void") else 0)
    if phase == "void":
        assert apply(balances, [move])["a"].held_micro == 0
        return
    with pytest.raises(RuleBroken) as error:
        apply(balances, [move])
    assert (error.value.code, error.value.account) == ("account_closed", getattr(move, side))


def test_holds_do_not_overflow_either():
    balances = {"a": Balance("USDC", 5, AMOUNT_MAX - 4, -AMOUNT_MAX), "b": Balance("USDC")}
    assert apply(balances, [Move("a", "b", 4, "pend")])["a"].held_micro == AMOUNT_MAX
    with pytest.raises(RuleBroken) as error:
        apply(balances, [Move("a", "b", 5, "pend")])
    assert error.value.code == "balance_overflow"
