"""Early access by stake: its threshold and its end, exactly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.unlocks import (
    Sponsoring,
    Unlocks,
    early,
    first,
    needed_micro,
    sponsoring_of,
    unlocked,
    unlocks_of,
)

AMOUNTS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(("staked", "supply", "bps", "has"), [
    (10, 10_000, 10, True),
    (9, 10_000, 10, False),
    (1, 1_000, 10, True),
    (0, 0, 1, False),
    (1, 0, 1, True),
])  # fmt: skip
def test_the_threshold_is_a_part_of_the_supply(
    staked: int, supply: int, bps: int, has: bool
) -> None:
    rule = Unlocks(stake_bps=bps)
    assert unlocked(rule, staked_micro=staked, supply_micro=supply) is has


@given(AMOUNTS, AMOUNTS, st.integers(1, 1_000))
def test_more_stake_never_locks(staked: int, supply: int, bps: int) -> None:
    rule = Unlocks(stake_bps=bps)
    if unlocked(rule, staked_micro=staked, supply_micro=supply):
        assert unlocked(rule, staked_micro=staked + 1, supply_micro=supply)


@given(st.integers(0, 2**50), st.integers(0, 30 * 86_400))
def test_early_access_ends_to_the_millisecond(opened: int, seconds: int) -> None:
    rule = Unlocks(early_access_s=seconds)
    end = opened + 1000 * seconds
    assert not early(rule, opened_ms=opened, at_ms=end)
    assert early(rule, opened_ms=opened, at_ms=end - 1) or not seconds


@given(AMOUNTS, st.integers(1, 1_000))
def test_what_is_needed_unlocks_and_one_unit_less_does_not(supply: int, bps: int) -> None:
    rule = Sponsoring(stake_bps=bps)
    needed = needed_micro(rule, supply_micro=supply)
    assert unlocked(rule, staked_micro=needed, supply_micro=supply)
    assert not unlocked(rule, staked_micro=needed - 1, supply_micro=supply)


@given(st.integers(0, 2**50), st.integers(0, 7 * 86_400))
def test_stakers_pledge_first_to_the_millisecond(opened: int, seconds: int) -> None:
    rule = sponsoring_of({"first_s": seconds, "stake_bps": 1})
    end = opened + 1000 * seconds
    assert not first(rule, opened_ms=opened, at_ms=end)
    assert first(rule, opened_ms=opened, at_ms=end - 1) or not seconds


@pytest.mark.parametrize("raw", [None, {"first_s": 1}, {"first_s": 7 * 86_400 + 1, "stake_bps": 1}])
def test_a_first_time_out_of_bounds_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError):
        sponsoring_of(raw)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"early_access_s": 1},
        {"early_access_s": -1, "stake_bps": 10},
        {"early_access_s": 30 * 86_400 + 1, "stake_bps": 10},
        {"early_access_s": 0, "stake_bps": 0},
        {"early_access_s": 0, "stake_bps": 1_001},
        {"early_access_s": True, "stake_bps": 10},
        {"early_access_s": "0", "stake_bps": 10},
        {"early_access_s": 0, "stake_bps": 10, "more": 1},
    ],
)
def test_what_is_out_of_bounds_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError):
        unlocks_of(raw)
