"""Tiers by volume: golden sums, and that no order or cut of requests pays."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.tariff import Tier, charge, row_price, tiers_of

TIERS = (Tier(1_000, 1_000), Tier(10_000, 2_500))
PRICE = 500_000


def rising(steps: list[tuple[int, int]]) -> tuple[Tier, ...]:
    return tuple(map(Tier, *(accumulate(part) for part in zip(*steps)))) if steps else ()


TIER_LISTS = st.lists(st.tuples(st.integers(1, 80), st.integers(1, 1_200)), max_size=8).map(rising)
PRICES, COUNTS = st.integers(1, 10**15), st.integers(0, 600)


@pytest.mark.parametrize(("before", "rows", "micro"), [
    (0, 1, 500_000),
    (0, 1_000, 500_000_000),
    (0, 1_001, 500_450_000),
    (999, 2, 950_000),
    (1_000, 1, 450_000),
    (9_999, 2, 825_000),
    (20_000, 10, 3_750_000),
    (0, 0, 0),
    (0, 20_000, 500_000 * 1_000 + 450_000 * 9_000 + 375_000 * 10_000),
])  # fmt: skip
def test_each_row_costs_what_its_tier_says(before: int, rows: int, micro: int) -> None:
    assert charge(rows, before=before, price_micro=PRICE, tiers=TIERS) == micro


def test_a_fraction_of_a_micro_unit_is_one_and_nothing_is_free() -> None:
    assert row_price(1, 9_900) == 1
    assert row_price(333_333, 3_333) == 222_234  # 222 233.1111


@given(TIER_LISTS, PRICES, COUNTS, COUNTS, COUNTS)
def test_rows_cost_the_same_in_one_request_or_in_two(
    tiers: Any, price: int, before: int, one: int, two: int
) -> None:
    whole = charge(one + two, before=before, price_micro=price, tiers=tiers)
    first = charge(one, before=before, price_micro=price, tiers=tiers)
    assert whole == first + charge(two, before=before + one, price_micro=price, tiers=tiers)


@given(TIER_LISTS, PRICES, COUNTS, COUNTS)
def test_every_row_costs_something_and_no_more_than_the_one_before(
    tiers: Any, price: int, before: int, rows: int
) -> None:
    """So the whole is strictly monotone, and volume never makes the next row dearer."""
    here = charge(1, before=before + rows, price_micro=price, tiers=tiers)
    assert 0 < here <= charge(1, before=before, price_micro=price, tiers=tiers) <= price


@given(TIER_LISTS, PRICES, COUNTS)
def test_the_sum_is_that_of_its_rows(tiers: Any, price: int, rows: int) -> None:
    offs = [max([0, *(t.off_bps for t in tiers if t.from_rows <= n)]) for n in range(rows)]
    total = sum(row_price(price, off) for off in offs)
    assert charge(rows, before=0, price_micro=price, tiers=tiers) == total


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        [1],
        [{"from_rows": 1}],
        [{"from_rows": 1, "off_bps": 1, "more": 1}],
        [{"from_rows": 0, "off_bps": 1}],
        [{"from_rows": 1, "off_bps": 0}],
        [{"from_rows": 1, "off_bps": 9_901}],
        [{"from_rows": True, "off_bps": 1}],
        [{"from_rows": "1", "off_bps": 1}],
        [{"from_rows": 1.0, "off_bps": 1}],
        [{"from_rows": 10, "off_bps": 10}, {"from_rows": 10, "off_bps": 20}],
        [{"from_rows": 10, "off_bps": 10}, {"from_rows": 20, "off_bps": 10}],
        [{"from_rows": n, "off_bps": n} for n in range(1, 10)],
    ],
)
def test_what_is_no_list_of_rising_tiers_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError):
        tiers_of(raw)


def test_negative_counts_have_no_price() -> None:
    with pytest.raises(ValueError):
        charge(-1, before=0, price_micro=1, tiers=())
