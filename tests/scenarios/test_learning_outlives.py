"""A round outlives its dead: on the stack that the story left, somebody is killed in each phase of
it. `python -m tests.support.deaths` kills each of the parties in each phase.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.deaths import Deadly, deaths_of

# Each phase and each party, and a node both before and after it has signed the result.
DEATHS = deaths_of(0) | {"committing": "node"}


@pytest.mark.slow
def test_whoever_is_killed_in_a_phase_of_a_round_it_ends_and_nothing_counts_twice(
    played: Any, stack: Any
) -> None:
    url, own = stack
    stage = Deadly(url, played[2], own)
    over, _ = stage.play(DEATHS)
    phi = {row["party"]["slug"]: row["phi_milli"] for row in over["scores"]}
    undisturbed = {stage.slugs[key]: 1000 * value for key, value in played[0]["phi"].items()}
    assert phi == pytest.approx(undisturbed, abs=3)
    assert over["version"]["status"] == "accepted"
    stage.verified()
