"""What a prediction costs, as the log tells it: tiers, quotes, months and the author's rebate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from apps.protocol.consent import SKEW_MS
from apps.protocol.tariff import QUOTE_MS, tiers_of
from workers.client.earnings import Finding
from workers.client.parameters import Parameters
from workers.client.prices import Prices

LIFE = QUOTE_MS + SKEW_MS
NOON = int(datetime(2026, 11, 15, 12, tzinfo=UTC).timestamp() * 1000)
DECEMBER = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def prices() -> Prices:
    """100 a row, half of it from the eleventh of a month on; the author pays 20 % less."""
    parameters = Parameters()
    parameters.tiers["d"] = tiers_of([{"from_rows": 10, "off_bps": 5_000}])
    parameters.rebate_bps["d"] = 2_000
    parameters.on_sale("d", 100)
    return Prices(parameters)


def asked(
    prices: Prices, price: int, *, rows: int = 4, at: int = NOON, author: bool = False, **more: str
) -> bool:
    """Does a query of so many rows cost this? If so, it is settled at once."""
    body = {"query": "q", "buyer": "b", "listing": "l", "rows": rows, "price_micro": str(price)}
    try:
        prices.query_held(body | more, at, dao="d", author=author, planned=None)
    except Finding:
        return False
    prices.query_settled(body, at)
    return True


def test_rows_cost_the_tier_of_those_settled_within_a_quotes_life(prices: Prices) -> None:
    assert not asked(prices, 399) and not asked(prices, 401)
    assert asked(prices, 1000, rows=10)
    # A quote may be older than what was settled since; when it is not, there is one price.
    assert asked(prices, 100, rows=1, at=NOON + LIFE - 1) is True
    later = NOON + 2 * LIFE
    assert not asked(prices, 400, at=later) and not asked(prices, 199, at=later)
    assert not asked(prices, 200, at=later, buyer="other")
    assert asked(prices, 200, at=later)


def test_a_month_begins_anew_but_for_quotes_of_the_last_one(prices: Prices) -> None:
    assert asked(prices, 1000, rows=10)
    assert asked(prices, 200, at=DECEMBER + LIFE - 1) and asked(prices, 400, at=DECEMBER + LIFE - 1)
    assert not asked(prices, 200, at=DECEMBER + 3 * LIFE)


def test_a_price_that_was_voted_counts_from_then_and_the_old_one_while_quotes_last(
    prices: Prices,
) -> None:
    prices.parameters.price["d"] = 300
    prices.parameters.priced("d", NOON)
    assert not asked(prices, 1200, at=NOON - 1, rows=5)
    assert asked(prices, 400, at=NOON + LIFE - 1)
    assert asked(prices, 1200, at=NOON + LIFE - 1)
    assert not asked(prices, 400, at=NOON + LIFE + 1)


def test_the_author_alone_has_the_rebate(prices: Prices) -> None:
    assert not asked(prices, 320) and not asked(prices, 400, author=True)
    assert asked(prices, 320, author=True)


def test_where_rows_or_tiers_were_not_told_the_price_is_the_most(prices: Prices) -> None:
    body = {"query": "p", "buyer": "b", "listing": "l", "price_micro": "7"}
    prices.query_held(body, NOON, dao="e", author=False, planned=None)
    assert prices.silent == 1
    assert asked(prices, 200) and not asked(prices, 199) and not asked(prices, 401)
    for dao in ("d", "e"):  # whose founding told the rest; and after one that told its rows
        with pytest.raises(Finding, match="does not say how many rows"):
            prices.query_held(body, NOON, dao=dao, author=False, planned=None)
    del prices.parameters.tiers["d"], prices.parameters.tariffs["d"]
    prices.parameters.on_sale("d", 100)
    assert asked(prices, 1) and not asked(prices, 401)


def test_a_plan_pays_the_rows_that_are_asked(prices: Prices) -> None:
    body = {"query": "p", "buyer": "b", "listing": "l", "rows": 4, "price_micro": "7"}
    prices.query_held(body, NOON, dao="d", author=False, planned=4)
    with pytest.raises(Finding, match="other rows of its plan"):
        prices.query_held(body, NOON, dao="d", author=False, planned=3)
    assert prices.asked == {}
