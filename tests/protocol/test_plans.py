"""Plans: golden changes; money is conserved to the micro-unit and no detour pays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.plans import (
    DAY_MS,
    Change,
    Plan,
    Term,
    Used,
    and_used,
    begin,
    change,
    plans_of,
    withdrawn,
)

PRICE = 500_000
BASIC = Plan("basic", 1_000, 30, 1_000)
PRO = Plan("pro", 10_000, 30, 2_500)
TERM = begin(BASIC, price_micro=PRICE, at_ms=0)


def moved(term: Term, to: Plan | None, day: int, used: int, price: int = PRICE) -> Change:
    left = term.cost_micro - used * term.row_micro
    return change(
        term,
        to,
        price_micro=price,
        left_micro=left,
        used=[(used, term.price_micro)],
        spent_micro=used * term.row_micro,
        at_ms=term.starts_ms + day * DAY_MS,
    )


def test_a_period_costs_its_rows_at_the_plans_price() -> None:
    assert Term(1_000, 450_000, PRICE, 0, 30 * DAY_MS) == TERM
    assert TERM.cost_micro == 450_000_000


def sums(one: Change) -> tuple[int, int, int, int]:
    return one.credit_micro, one.lapsed_micro, one.due_micro, one.refund_micro


@pytest.mark.parametrize(("to", "day", "used", "expected"), [
    # up at half time: half of what was paid counts, half of the new quota is paid
    (PRO, 15, 0, (225_000_000, 225_000_000, 5_000 * 375_000 - 225_000_000, 0)),
    # up at once: all of it counts
    (PRO, 0, 0, (450_000_000, 0, 10_000 * 375_000 - 450_000_000, 0)),
    # up with nothing left: the time to come was used up
    (PRO, 15, 1_000, (0, 0, 5_000 * 375_000, 0)),
    # cancelled at once: all of it comes back
    (None, 0, 0, (450_000_000, 0, 0, 450_000_000)),
    # cancelled at half time, unused: half of it
    (None, 15, 0, (225_000_000, 225_000_000, 0, 225_000_000)),
    # cancelled after 100 rows: these cost their price without the plan, 5 000 000 more
    (None, 0, 100, (400_000_000, 5_000_000, 0, 400_000_000)),
    # cancelled with so many used that the plan was what they cost
    (None, 0, 950, (0, 22_500_000, 0, 0)),
])  # fmt: skip
def test_golden_changes(to: Any, day: int, used: int, expected: tuple[int, ...]) -> None:
    assert sums(moved(TERM, to, day, used)) == expected


def test_a_smaller_plan_has_the_used_rows_as_it_would_have_had_them() -> None:
    term = begin(PRO, price_micro=PRICE, at_ms=0)
    down = moved(term, BASIC, 0, 4_000)
    # 1 000 of them at 450 000, 3 000 at 500 000: 450 000 000 more than the 1 500 000 000 spent
    assert down.credit_micro == 6_000 * 375_000 - 450_000_000
    assert down.term == Term(1_000, 450_000, PRICE, 0, 30 * DAY_MS)
    assert down.refund_micro == down.credit_micro - 450_000_000


def test_another_price_is_for_the_rows_to_come() -> None:
    up = moved(TERM, PRO, 0, 500, price=2 * PRICE)
    assert up.term is not None and up.term.row_micro == 750_000
    assert up.credit_micro == 500 * 450_000  # the used ones stay as they were


@pytest.mark.parametrize(("first", "then"), [(1_000, 100), (100, 1_000)])
def test_used_rows_keep_the_price_of_their_term(first: int, then: int) -> None:
    """400 rows asked at the first price cost it, whatever was voted before they were cancelled."""
    small, large = Plan("a", 1_000, 30, 5_000), Plan("b", 2_000, 30, 6_000)
    term = begin(small, price_micro=first, at_ms=0)
    up = moved(term, large, 0, 400, price=then)
    assert up.term is not None
    used, spent = [(400, first)], 400 * term.row_micro
    down = change(
        up.term, None, price_micro=then, left_micro=up.term.cost_micro, used=used,
        spent_micro=spent, at_ms=0,
    )  # fmt: skip
    assert term.cost_micro + up.due_micro - down.refund_micro == 400 * first + up.lapsed_micro


def test_a_smaller_plan_covers_the_rows_that_were_asked_first() -> None:
    used = and_used(and_used([(600, 400)], 100, 400), 900, 1_000)
    assert used == ((700, 400), (900, 1_000))
    assert and_used(used, 0, 5) == used
    term = Term(10_000, 375, 500, 0, 30 * DAY_MS)
    left, spent = 8_000 * 375, 100_000
    down = change(
        term, BASIC, price_micro=1, left_micro=left, used=used, spent_micro=spent, at_ms=0
    )
    anew = 700 * 360 + 300 * 900 + 600 * 1_000
    assert down.credit_micro == left - (anew - spent)


PLANS = st.lists(
    st.builds(Plan, st.just("x"), st.integers(1, 300), st.integers(1, 40), st.integers(1, 9_900)),
    min_size=1,
    max_size=4,
)
PRICES = st.integers(1, 10**9)
STEPS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 10 * DAY_MS), PRICES), max_size=4)


@given(PLANS, STEPS, PRICES, st.integers(0, 300), st.integers(0, 40 * DAY_MS))
def test_no_way_through_plans_is_cheaper_and_no_micro_unit_is_lost(
    plans: list[Plan], steps: list[tuple[int, int, int]], price: int, last: int, later: int
) -> None:
    """Rows are used, prices voted and plans changed in any order; then it is cancelled."""
    term = begin(plans[0], price_micro=price, at_ms=0)
    left, paid, spent, lapsed, at = term.cost_micro, term.cost_micro, 0, 0, 0
    used: tuple[Used, ...] = ()
    worth = 0  # the used rows without a plan, each at the price of its term
    for to, (rows, wait, voted) in [*zip(plans[1:], steps), (None, (last, later, 1))]:
        rows = min(rows, left // term.row_micro)
        left, spent = left - rows * term.row_micro, spent + rows * term.row_micro
        used, worth = and_used(used, rows, term.price_micro), worth + rows * term.price_micro
        at = min(at + wait, term.ends_ms - 1)
        made = change(
            term, to, price_micro=voted, left_micro=left, used=used, spent_micro=spent, at_ms=at
        )
        if to is None:  # neither more nor less is kept of what counts than its rows lack
            fair = term.cost_micro * (term.ends_ms - at) // (term.ends_ms - term.starts_ms)
            assert made.credit_micro == max(0, min(left, fair) - max(0, worth - spent))
        cost = made.term.cost_micro if made.term else 0
        assert left + made.due_micro == cost + made.refund_micro + made.lapsed_micro
        assert min(made.due_micro, made.refund_micro) == 0 <= made.lapsed_micro
        assert made.refund_micro <= left
        paid += made.due_micro - made.refund_micro
        lapsed += made.lapsed_micro
        left = cost
        if to is None:
            assert paid == spent + lapsed
            assert made.refund_micro == 0 or paid >= worth
            return
        assert made.term is not None
        term = made.term


@given(st.integers(0, 1_000), st.integers(0, 30 * DAY_MS - 1), st.integers(0, 30 * DAY_MS - 1))
def test_who_cancels_later_gets_no_more(used: int, one: int, two: int) -> None:
    def refund(at_ms: int) -> int:
        left = TERM.cost_micro - used * TERM.row_micro
        spent = used * TERM.row_micro
        return change(
            TERM, None, price_micro=PRICE, left_micro=left, used=[(used, PRICE)],
            spent_micro=spent, at_ms=at_ms,
        ).refund_micro  # fmt: skip

    assert refund(min(one, two)) >= refund(max(one, two))


def test_nothing_changes_outside_of_a_term() -> None:
    for at_ms, left in ((-1, 0), (TERM.ends_ms, 0), (0, TERM.cost_micro + 1), (0, -1)):
        with pytest.raises(ValueError):
            change(TERM, None, price_micro=1, left_micro=left, used=[], spent_micro=0, at_ms=at_ms)


ROW = {"name": "basic", "rows": 10, "days": 30, "off_bps": 100}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [{**ROW, "more": 1}],
        [{**ROW, "name": ""}],
        [{**ROW, "name": "Basic"}],
        [{**ROW, "name": "a b"}],
        [{**ROW, "name": "ä"}],
        [{**ROW, "name": 1}],
        [{**ROW, "name": "a" * 21}],
        [{**ROW, "rows": 0}],
        [{**ROW, "days": 367}],
        [{**ROW, "off_bps": 9_901}],
        [ROW, {**ROW, "rows": 20, "off_bps": 200}],
        [ROW, {**ROW, "name": "pro", "rows": 20}],
        [ROW, {**ROW, "name": "pro", "rows": 10, "off_bps": 200}],
    ],
)
def test_what_is_no_list_of_rising_plans_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError):
        plans_of(raw)
    assert plans_of([ROW, {**ROW, "name": "pro", "rows": 20, "off_bps": 200}])[1].name == "pro"


@given(
    used=st.integers(0, 1_000),
    at=st.integers(0, TERM.ends_ms - 1),
)
def test_a_withdrawn_plan_pays_back_the_unused_time_and_keeps_its_price(used: int, at: int) -> None:
    left = TERM.cost_micro - used * TERM.row_micro
    back = withdrawn(TERM, left_micro=left, at_ms=at)
    assert back.refund_micro + back.lapsed_micro == left and min(sums(back)) >= 0
    assert back.refund_micro == min(left, TERM.cost_micro * (TERM.ends_ms - at) // TERM.ends_ms)
    own = change(
        TERM, None, price_micro=PRICE, left_micro=left, used=[(used, PRICE)],
        spent_micro=used * TERM.row_micro, at_ms=at,
    )  # fmt: skip
    assert back.refund_micro >= own.refund_micro  # whoever cancels pays for the price that was less
    assert withdrawn(TERM, left_micro=left, at_ms=0).refund_micro == left


def test_a_plan_is_withdrawn_within_its_term() -> None:
    for at, left in ((-1, 0), (TERM.ends_ms, 0), (0, -1), (0, TERM.cost_micro + 1)):
        with pytest.raises(ValueError):
            withdrawn(TERM, left_micro=left, at_ms=at)
