"""The reserve's schedule, conversion and sponsors' parts: paper §6.2 with golden numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.emission import (
    BPS,
    CONVERTIBLE_BPS_MAX,
    FIELDS,
    RATE_BPS_MAX,
    Schedule,
    converted,
    convertible,
    course,
    emission,
    schedule_of,
    sponsor_due,
)

VECTORS = json.loads((Path(__file__).parent / "emission_vectors.json").read_text())
AMOUNTS = st.integers(0, 2**63 - 1)


@st.composite
def schedules(draw: Any) -> Schedule:
    contributors = draw(st.integers(0, BPS))
    sponsors = draw(st.integers(0, BPS - contributors))
    return Schedule(
        rate_bps=draw(st.integers(0, RATE_BPS_MAX)),
        contributors_bps=contributors,
        sponsors_bps=sponsors,
        treasury_bps=BPS - contributors - sponsors,
        convertible_bps=draw(st.integers(0, CONVERTIBLE_BPS_MAX)),
    )


def test_golden_emissions() -> None:
    for row in VECTORS["emissions"]:
        made = emission(row["reserve"], schedule_of(row["schedule"]))
        assert [made.contributors, made.sponsors, made.treasury] == row["parts"], row


def test_golden_conversions_and_sponsors_parts() -> None:
    for points, all_points, pot, due in VECTORS["conversions"]:
        assert converted(points, all_points_micro=all_points, pot_micro=pot) == due
    for pledged, every, emitted, taken, due in VECTORS["sponsors"]:
        assert due == sponsor_due(
            pledged, all_pledged_micro=every, emitted_micro=emitted, taken_micro=taken
        )


@given(AMOUNTS, st.lists(schedules(), max_size=30))
def test_no_votes_can_release_more_than_the_reserve(reserve: int, voted: list[Schedule]) -> None:
    left = reserve
    for schedule in voted:
        made = emission(left, schedule)
        assert min(made.contributors, made.sponsors, made.treasury) >= 0
        assert made.total == left * schedule.rate_bps // BPS
        left -= made.total
    assert 0 <= left <= reserve


@given(AMOUNTS, schedules(), st.integers(0, 40))
def test_the_course_is_the_emissions_one_after_the_other(
    reserve: int, schedule: Schedule, epochs: int
) -> None:
    left = course(reserve, schedule, epochs)
    assert len(left) == epochs and left == sorted(left, reverse=True)
    for before, after in zip([reserve, *left], left):
        assert before - after == emission(before, schedule).total


@given(st.lists(st.integers(1, 10**12), min_size=2, max_size=8), AMOUNTS)
def test_who_keeps_points_never_loses_by_anothers_conversion(points: list[int], pot: int) -> None:
    held, first_pot = sum(points), pot
    for given_up in points:
        tokens = converted(given_up, all_points_micro=held, pot_micro=pot)
        left = held - given_up
        assert (pot - tokens) * held >= pot * left  # the price of a point never falls
        # By being first one gets no more than by being any other.
        assert tokens >= converted(given_up, all_points_micro=sum(points), pot_micro=first_pot)
        held, pot = left, pot - tokens
    assert held == pot == 0


@given(st.integers(1, 10**15), schedules(), st.lists(st.integers(1, 10**14), max_size=6))
def test_a_member_always_keeps_half_of_its_points(
    points: int, schedule: Schedule, wanted: list[int]
) -> None:
    left, done = points, 0
    for want in wanted:
        take = min(want, convertible(left, done_micro=done, schedule=schedule))
        left, done = left - take, done + take
    assert done <= points * schedule.convertible_bps // BPS
    assert 2 * left >= points


@given(
    st.lists(st.integers(1, 10**15), min_size=1, max_size=8),
    st.lists(st.integers(0, 10**15), max_size=8),
    st.data(),
)
def test_sponsors_take_at_any_time_and_never_more_than_there_is(
    pledges: list[int], emissions: list[int], data: Any
) -> None:
    taken, emitted = [0] * len(pledges), 0
    for part in emissions:
        emitted += part
        for i in data.draw(st.sets(st.integers(0, len(pledges) - 1))):
            taken[i] += due(pledges, i, emitted, taken)
        assert sum(taken) <= emitted
    for i in range(len(pledges)):
        taken[i] += due(pledges, i, emitted, taken)
        assert due(pledges, i, emitted, taken) == 0
        assert taken[i] == emitted * pledges[i] // sum(pledges)  # whenever it was taken
    assert emitted - len(pledges) < sum(taken) <= emitted


def due(pledges: list[int], i: int, emitted: int, taken: list[int]) -> int:
    return sponsor_due(
        pledges[i],
        all_pledged_micro=sum(pledges),
        emitted_micro=emitted,
        taken_micro=taken[i],
    )


GOOD = {name: getattr(Schedule(), name) for name in FIELDS}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        GOOD | {"more": 1},
        {k: v for k, v in GOOD.items() if k != "rate_bps"},
        GOOD | {"rate_bps": RATE_BPS_MAX + 1},
        GOOD | {"rate_bps": -1},
        GOOD | {"rate_bps": True},
        GOOD | {"rate_bps": "200"},
        GOOD | {"rate_bps": 2.5},
        GOOD | {"sponsors_bps": 2_001},
        GOOD | {"convertible_bps": CONVERTIBLE_BPS_MAX + 1},
    ],
)
def test_a_schedule_out_of_bounds_is_refused(raw: Any) -> None:
    with pytest.raises(ValueError):
        schedule_of(raw)
    assert schedule_of(GOOD) == Schedule()


def test_nonsense_is_refused() -> None:
    for points, every in ((0, 1), (-1, 1), (2, 1)):
        with pytest.raises(ValueError):
            converted(points, all_points_micro=every, pot_micro=1)
    for pledged, every, taken in ((0, 1, 0), (2, 1, 0), (1, 1, -1)):
        with pytest.raises(ValueError):
            sponsor_due(pledged, all_pledged_micro=every, emitted_micro=1, taken_micro=taken)
