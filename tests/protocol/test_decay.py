"""Equation 12 in whole micro-points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.decay import PPM, decayed, next_points, points_of_phi

points = st.integers(0, 10**15)
lambdas = st.integers(1, PPM - 1)


@given(points, lambdas)
def test_decay_is_lambda_times_points_rounded_down(value: int, decay_ppm: int) -> None:
    after = decayed(value, decay_ppm)
    assert after * PPM <= value * decay_ppm < (after + 1) * PPM
    assert after < value or value == 0


@given(points, st.integers(0, 10**9), lambdas)
def test_the_active_gain_and_the_inactive_fade(value: int, earned: int, decay_ppm: int) -> None:
    gained = next_points(value, earned_micro=earned, active=True, decay_ppm=decay_ppm)
    faded = next_points(value, earned_micro=0, active=False, decay_ppm=decay_ppm)
    assert gained == value + earned
    assert faded == decayed(value, decay_ppm)


def test_golden_values() -> None:
    assert decayed(1_000_000, 900_000) == 900_000
    assert decayed(1, 999_999) == 0
    assert points_of_phi(1_000) == 1_000_000
    assert points_of_phi(0) == 0


@pytest.mark.parametrize("decay_ppm", [0, PPM, -1, PPM + 1])
def test_lambda_lies_strictly_between_0_and_1(decay_ppm: int) -> None:
    with pytest.raises(ValueError):
        decayed(10, decay_ppm)


def test_the_inactive_earn_nothing() -> None:
    with pytest.raises(ValueError):
        next_points(10, earned_micro=1, active=False, decay_ppm=900_000)
    with pytest.raises(ValueError):
        points_of_phi(1_001)
