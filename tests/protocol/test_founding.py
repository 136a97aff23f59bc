"""The supply of an award is divided to the last micro-unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.founding import SdtShares, accepted_pledge, sdt_allocation

amounts = st.integers(1, 10**15)


@given(amounts, st.dictionaries(st.integers(), amounts, min_size=1, max_size=40))
def test_the_parts_are_the_supply(supply: int, pledged: dict[int, int]) -> None:
    parts = sdt_allocation(supply, pledged, SdtShares())
    assert parts.total == supply
    assert min([parts.submitter, parts.reserve, parts.treasury, *parts.backers.values()]) >= 0
    assert parts.submitter == supply * 5 // 100
    assert parts.reserve == supply * 15 // 100
    assert supply * 20 // 100 <= parts.treasury <= supply * 20 // 100 + len(pledged) + 4


@given(amounts, amounts, st.integers(0, 10**6))
def test_who_pledged_more_never_gets_less(supply: int, pledge: int, more: int) -> None:
    parts = sdt_allocation(supply, {"a": pledge, "b": pledge + more}, SdtShares())
    assert parts.backers["a"] <= parts.backers["b"]


def test_golden_division_of_a_million_tokens() -> None:
    parts = sdt_allocation(10**12, {"a": 1, "b": 2}, SdtShares())
    assert parts.backers == {"a": 200_000_000_000, "b": 400_000_000_000}
    assert (parts.treasury, parts.reserve, parts.submitter) == (2 * 10**11, 15 * 10**10, 5 * 10**10)


@pytest.mark.parametrize(
    ("supply", "pledged"), [(0, {"a": 1}), (10, {}), (10, {"a": 0}), (10, {"a": -1})]
)
def test_nonsense_is_refused(supply: int, pledged: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        sdt_allocation(supply, pledged, SdtShares())


def test_shares_must_be_the_whole() -> None:
    with pytest.raises(ValueError):
        SdtShares(backers_bps=6_001)
    with pytest.raises(ValueError):
        SdtShares(backers_bps=10_001, treasury_bps=-1, reserve_bps=0, submitter_bps=0)


@given(st.lists(st.integers(1, 10**9), max_size=30), st.integers(1, 10**10))
def test_pledges_never_pass_the_cap(pledges: list[int], target: int) -> None:
    raised = 0
    for amount in pledges:
        accepted = accepted_pledge(amount, raised_micro=raised, target_micro=target)
        assert 0 <= accepted <= amount
        assert accepted == amount or raised + accepted == target
        raised += accepted
    assert raised == min(target, sum(pledges))
