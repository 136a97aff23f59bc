"""What people write as amounts and durations, and what it means."""

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from apps.explorer.fields import AmountField, DurationField
from apps.explorer.formatting import duration, times_as_likely


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30 min", 1_800), ("90 mins", 5_400), ("1 h 30 min", 5_400), ("1h30m", 5_400),
     ("3 days", 259_200), ("12 hours", 43_200), ("10 sec", 10), ("10 s", 10), ("2 w", 1_209_600),
     ("none", 0), ("1 d, 2 h", 93_600)],
)  # fmt: skip
def test_a_duration_is_read_as_it_is_written(text, seconds):
    assert DurationField().clean(text) == seconds


@pytest.mark.parametrize(
    ("epsilon_milli", "times"),
    [
        (0, "1"),
        (1_000, "2.8"),
        (2_300, "10"),
        (5_375, "220"),
        (8_000, "3,000"),
        (12_000, "170,000"),
    ],
)
def test_what_an_epsilon_bounds_is_said_in_two_digits_and_never_less(epsilon_milli, times):
    assert times_as_likely(epsilon_milli) == times


@given(st.integers(0, 400 * 86_400))
def test_a_duration_that_is_shown_can_be_written(seconds):
    shown = duration(seconds)
    assert duration(DurationField().clean(shown)) == shown


@pytest.mark.parametrize("text", ["3", "min", "3 x", "3 mi", "-3 d", "3.5 h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValidationError, match="Write it like"):
        DurationField().clean(text)


@pytest.mark.parametrize(
    ("text", "micro"),
    [("0.50", 500_000), ("1,250", 1_250_000_000), ("$1,000,000.5", 1_000_000_500_000),
     ("12", 12_000_000)],
)  # fmt: skip
def test_an_amount_is_read_as_it_is_written(text, micro):
    assert AmountField().clean(text) == micro


@pytest.mark.parametrize("text", ["0,50", "1,00", "1.000,5", "12,5", ",5", "1,2,3"])
def test_a_comma_that_may_mean_a_point_is_refused(text):
    with pytest.raises(ValidationError, match="Write a number"):
        AmountField().clean(text)
