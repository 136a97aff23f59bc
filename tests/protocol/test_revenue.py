"""The division of revenue: golden values by hand, properties by hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.money import BPS, MICRO, mul_div_ceil, mul_div_floor
from apps.protocol.revenue import (
    CUSTODIAN,
    HOLDER,
    OPERATOR,
    VALIDATOR,
    Payment,
    Policy,
    Served,
    cycle_rewards,
    holding_weight,
    pro_rata,
    sbgt_rewards,
    sdt_rewards,
    split,
    time_weighted,
)

DEFAULT = Policy(
    sbgt_bps=6000,
    sdt_bps=2800,
    treasury_bps=1200,
    custodians_bps=8000,
    validators_bps=1000,
    operators_bps=1000,
    stake_boost_bps=15000,
)

names = st.text("abcdefgh", min_size=1, max_size=2)
weights = st.dictionaries(names, st.integers(0, 10**13), max_size=8)
amounts = st.integers(0, 10**15)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    def thirds() -> tuple[int, int, int]:
        a, b = sorted((draw(st.integers(0, BPS)), draw(st.integers(0, BPS))))
        return a, b - a, BPS - b

    return Policy(*thirds(), *thirds(), stake_boost_bps=draw(st.integers(BPS, 5 * BPS)))


@st.composite
def services(draw: st.DrawFn) -> list[Served]:
    count = draw(st.integers(0, 3))
    return [
        Served(str(n), draw(amounts), draw(weights), draw(weights)) for n in range(1, count + 1)
    ]


def test_the_papers_example_to_the_micro_unit() -> None:
    """Ten queries at $0.50 (paper §9.5), 60/28/12, three useful sites, one that earned nothing."""
    settlement = split(
        [
            Served(
                "1",
                10 * 500_000,
                {"north": 1000, "south": 700, "east": 301, "rider": 0},
                {"v1": 1, "v2": 1, "v3": 1},
            )
        ],
        jobs={"op1": 20, "op2": 10},
        holdings={"alice": 3, "bob": 1},
        policy=DEFAULT,
    )
    assert settlement.payments == (
        Payment("east", CUSTODIAN, "1", 361_019),
        Payment("north", CUSTODIAN, "1", 1_199_400),
        Payment("south", CUSTODIAN, "1", 839_580),
        Payment("v1", VALIDATOR, "1", 100_000),
        Payment("v2", VALIDATOR, "1", 100_000),
        Payment("v3", VALIDATOR, "1", 100_000),
        Payment("op1", OPERATOR, None, 200_000),
        Payment("op2", OPERATOR, None, 100_000),
        Payment("alice", HOLDER, None, 1_050_000),
        Payment("bob", HOLDER, None, 350_000),
    )
    assert settlement.treasury_micro == 600_001
    assert sum(settlement.by_payee().values()) + settlement.treasury_micro == 5 * MICRO


def test_a_class_without_members_leaves_its_part_to_the_treasury() -> None:
    settlement = split([Served("1", 1_000_000, {"a": 5}, {})], jobs={}, holdings={}, policy=DEFAULT)
    assert settlement.by_payee() == {"a": 480_000}
    assert settlement.treasury_micro == 520_000


def test_each_version_pays_by_its_own_scores() -> None:
    served = [
        Served("1", 1_000_000, {"a": 1000, "b": 0}, {}),
        Served("2", 1_000_000, {"a": 0, "b": 1000}, {}),
    ]
    settlement = split(served, jobs={}, holdings={}, policy=DEFAULT)
    assert settlement.payments == (
        Payment("a", CUSTODIAN, "1", 480_000),
        Payment("b", CUSTODIAN, "2", 480_000),
    )


def test_equation_3_is_equation_10_with_the_whole_revenue() -> None:
    assert cycle_rewards({"a": 2, "b": 1}, 100) == sbgt_rewards({"a": 2, "b": 1}, 100)
    assert cycle_rewards({"a": 2, "b": 1}, 100) == {"a": 66, "b": 33}


@given(weights, amounts)
def test_pro_rata_floors_and_never_overpays(shares: dict[str, int], total: int) -> None:
    parts = pro_rata(shares, total)
    whole = sum(shares.values())
    assert set(parts) == (set(shares) if whole else set())
    for key, part in parts.items():
        assert part * whole <= total * shares[key] < (part + 1) * whole
    assert sum(parts.values()) <= total
    if parts:
        assert total - sum(parts.values()) < len(parts)


@given(services(), weights, weights, policies())
def test_the_parts_sum_to_the_revenue_exactly(
    served: list[Served], jobs: dict[str, int], holdings: dict[str, int], policy: Policy
) -> None:
    settlement = split(served, jobs=jobs, holdings=holdings, policy=policy)
    paid = sum(payment.amount_micro for payment in settlement.payments)
    assert settlement.revenue_micro == sum(entry.revenue_micro for entry in served)
    assert paid + settlement.treasury_micro == settlement.revenue_micro
    assert all(payment.amount_micro > 0 for payment in settlement.payments)
    assert settlement.treasury_micro >= mul_div_floor(
        settlement.revenue_micro, policy.treasury_bps, BPS
    )


@given(services(), policies())
def test_a_site_without_a_score_gets_nothing(served: list[Served], policy: Policy) -> None:
    silent = [
        Served(e.version, e.revenue_micro, {**e.phi, "rider": 0}, {**e.work, "rider": 0})
        for e in served
    ]
    settlement = split(silent, jobs={"rider": 0}, holdings={"rider": 0}, policy=policy)
    assert "rider" not in settlement.by_payee()


@given(amounts, amounts, amounts)
def test_token_holders_are_paid_by_their_tokens(a: int, b: int, total: int) -> None:
    parts = sdt_rewards({"a": a, "b": b}, total)
    if a + b:
        assert parts == {"a": total * a // (a + b), "b": total * b // (a + b)}
        assert (parts["a"] >= parts["b"]) if a >= b else (parts["a"] <= parts["b"])


@given(st.integers(1, 10**12), st.integers(1, 10**6), st.integers(0, 10**6))
def test_tokens_bought_late_count_for_the_time_they_were_held(
    amount: int, length: int, late: int
) -> None:
    late = min(late, length)
    area = time_weighted(0, [(100 + late, amount)], start=100, end=100 + length)
    assert area == amount * (length - late)


def test_time_weighting_by_hand() -> None:
    changes = [(40, -5), (10, 20), (99, 7), (100, 1000), (-3, 1)]
    # 10 held before the epoch, one more from its first instant
    assert time_weighted(10, changes, start=0, end=100) == 11 * 10 + 31 * 30 + 26 * 59 + 33
    with pytest.raises(ValueError, match="never negative"):
        time_weighted(1, [(5, -2)], start=0, end=10)
    with pytest.raises(ValueError, match="must end"):
        time_weighted(1, [], start=3, end=3)
    assert time_weighted(1, [(5, -2), (5, 1)], start=0, end=10) == 5


def test_a_stake_counts_for_more_than_a_holding() -> None:
    assert holding_weight(10, 0, stake_boost_bps=15_000) == 100_000
    assert holding_weight(0, 10, stake_boost_bps=15_000) == 150_000


@pytest.mark.parametrize(
    "shares",
    [
        (6000, 2800, 1201, 8000, 1000, 1000),
        (6000, 2800, 1200, 8000, 1000, 999),
        (11000, -2200, 1200, 8000, 1000, 1000),
    ],
)
def test_shares_must_sum_to_the_whole(shares: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sum"):
        Policy(*shares)


def test_a_boost_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="stake"):
        Policy(6000, 2800, 1200, 8000, 1000, 1000, stake_boost_bps=9_999)


@pytest.mark.parametrize("call", [mul_div_floor, mul_div_ceil])
def test_divisions_refuse_what_has_no_direction(call) -> None:
    for a, b, c in ((-1, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(ValueError):
            call(a, b, c)


@given(st.integers(0, 10**30), st.integers(0, 10**30), st.integers(1, 10**30))
def test_floor_and_ceil_enclose_the_quotient(a: int, b: int, divisor: int) -> None:
    low, high = mul_div_floor(a, b, divisor), mul_div_ceil(a, b, divisor)
    assert low * divisor <= a * b <= high * divisor
    assert high - low == (a * b % divisor != 0)


def test_negative_revenue_is_refused() -> None:
    with pytest.raises(ValueError):
        split([Served("1", -1, {}, {})], jobs={}, holdings={}, policy=DEFAULT)
    with pytest.raises(ValueError):
        pro_rata({"a": -1}, 5)
