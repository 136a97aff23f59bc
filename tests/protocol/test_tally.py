"""proposal_state as a table, and its laws as properties."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol import tally
from apps.protocol.tally import Facts, State

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


FACTS = Facts(
    voting_starts_at=at(10),
    voting_ends_at=at(20),
    timelock_s=5,
    grace_s=100,
    quorum_bps=2_000,
    threshold_bps=5_000,
    total_weight=100,
    for_weight=30,
    against_weight=10,
)


@pytest.mark.parametrize(
    ("second", "state"),
    [
        (0, State.PENDING),
        (9.999, State.PENDING),
        (10, State.ACTIVE),
        (19.999, State.ACTIVE),
        (20, State.QUEUED),
        (24.999, State.QUEUED),
        (25, State.SUCCEEDED),
        (124.999, State.SUCCEEDED),
        (125, State.EXPIRED),
    ],
)
def test_a_carried_proposal_walks_through_its_states(second: float, state: State) -> None:
    assert tally.proposal_state(FACTS, at(second)) is state


@pytest.mark.parametrize(
    ("votes_for", "against", "abstain", "quorum", "threshold", "carried"),
    [
        (30, 10, 0, 2_000, 5_000, True),
        (20, 20, 0, 2_000, 5_000, False),  # a tie is defeated
        (0, 0, 0, 2_000, 5_000, False),
        (19, 0, 0, 2_000, 5_000, False),  # quorum missed by one
        (20, 0, 0, 2_000, 5_000, True),
        (10, 0, 10, 2_000, 5_000, True),  # abstentions count for the quorum
        (10, 9, 0, 2_000, 5_000, False),  # votes against do not
        (66, 34, 0, 2_000, 6_667, False),
        (67, 33, 0, 2_000, 6_667, True),
        (0, 0, 100, 2_000, 5_000, False),
    ],
)
def test_quorum_and_threshold(
    votes_for: int, against: int, abstain: int, quorum: int, threshold: int, carried: bool
) -> None:
    facts = replace(
        FACTS,
        for_weight=votes_for,
        against_weight=against,
        abstain_weight=abstain,
        quorum_bps=quorum,
        threshold_bps=threshold,
    )
    state = tally.proposal_state(facts, at(25))
    assert state is (State.SUCCEEDED if carried else State.DEFEATED)


def test_executed_and_canceled_win_over_the_clock() -> None:
    for second in (0, 15, 22, 30, 999):
        assert tally.proposal_state(replace(FACTS, executed_at=T0), at(second)) is State.EXECUTED
        assert tally.proposal_state(replace(FACTS, canceled_at=T0), at(second)) is State.CANCELED


def test_nobody_holds_weight_nothing_passes() -> None:
    empty = replace(FACTS, total_weight=0, for_weight=0, against_weight=0, quorum_bps=1)
    assert tally.proposal_state(empty, at(30)) is State.DEFEATED


weights = st.integers(0, 10**18)


@given(weights, weights, weights, st.integers(0, 10_000), st.integers(5_000, 10_000))
def test_more_votes_for_never_defeat(
    votes_for: int, against: int, abstain: int, quorum: int, threshold: int
) -> None:
    total = votes_for + against + abstain + 1
    facts = replace(
        FACTS,
        total_weight=total,
        for_weight=votes_for,
        against_weight=against,
        abstain_weight=abstain,
        quorum_bps=quorum,
        threshold_bps=threshold,
    )
    if tally.proposal_state(facts, at(25)) is State.SUCCEEDED:
        more = replace(facts, for_weight=votes_for + 1)
        assert tally.proposal_state(more, at(25)) is State.SUCCEEDED
        assert votes_for > against
        assert (votes_for + abstain) * 10_000 >= quorum * total


ORDER = [State.PENDING, State.ACTIVE, State.QUEUED, State.SUCCEEDED, State.EXPIRED]


@given(st.lists(st.integers(0, 200_000), min_size=2, max_size=20))
def test_time_only_moves_forward(millis: list[int]) -> None:
    states = [tally.proposal_state(FACTS, at(m / 1_000)) for m in sorted(millis)]
    positions = [ORDER.index(state) for state in states]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("voted", "had", "has", "already", "ends"),
    [
        (19, False, True, False, 24),  # reached late: five seconds to answer
        (12, False, True, False, 20),  # reached early: nothing changes
        (19, True, True, False, 20),  # was reached before
        (19, False, False, False, 20),  # still not reached
        (19, False, True, True, 20),  # only once
    ],
)
def test_late_quorum_extends_once(
    voted: int, had: bool, has: bool, already: bool, ends: int
) -> None:
    deadline = tally.extended_deadline(
        voting_ends_at=at(20),
        voted_at=at(voted),
        extension_s=5,
        had_quorum=had,
        has_quorum=has,
        already_extended=already,
    )
    assert deadline == at(ends)


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 10**15), max_size=30))
def test_shares_sum_to_one_but_for_floors(points: dict[str, int]) -> None:
    shares = tally.voting_shares_ppm(points)
    whole = sum(points.values())
    if whole == 0:
        assert set(shares.values()) <= {0}
    else:
        assert tally.PPM - len(points) < sum(shares.values()) <= tally.PPM
        for key, value in points.items():
            assert shares[key] * whole <= value * tally.PPM < (shares[key] + 1) * whole


def test_negative_points_are_refused() -> None:
    with pytest.raises(ValueError):
        tally.voting_shares_ppm({"a": -1})
