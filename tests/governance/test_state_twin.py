"""The queryset's state equals the pure function's, for any facts at any time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.governance.models import Proposal
from apps.governance.selectors import with_state
from apps.subdaos.selectors import superdao
from tests.governance.helpers import at

pytestmark = pytest.mark.django_db
weights = st.sampled_from([0, 1, 19, 20, 21, 50, 10**17])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    starts=st.integers(0, 5),
    length=st.integers(1, 5),
    timelock=st.integers(0, 5),
    grace=st.integers(1, 5),
    quorum=st.sampled_from([0, 1, 2_000, 10_000]),
    threshold=st.sampled_from([1, 5_000, 6_667, 10_000]),
    total=st.sampled_from([None, 0, 100, 10**18]),
    votes=st.tuples(weights, weights, weights),
    mark=st.sampled_from([None, "canceled_at", "executed_at"]),
    now=st.integers(0, 21),
)
def test_the_twins_agree(
    db, starts, length, timelock, grace, quorum, threshold, total, votes, mark, now
) -> None:
    made = Proposal.objects.create(
        dao=superdao(),
        house="super",
        kind="test.twin",
        payload={},
        payload_hash="",
        title="twin",
        snapshot_at=at(starts),
        voting_starts_at=at(starts),
        voting_ends_at=at(starts + length),
        timelock_s=timelock,
        grace_s=grace,
        quorum_bps=quorum,
        threshold_bps=threshold,
        total_weight=total,
        for_weight=votes[0],
        against_weight=votes[1],
        abstain_weight=votes[2],
        **({mark: at(0)} if mark else {}),
    )
    row = with_state(Proposal.objects.filter(id=made.id), at(now)).get()
    assert row.state_now == row.state(at(now)).value
