"""A series in time: how a request names one, which of its values a forecast is made of, and when.

    label.series = {time, id?, step, lags: p, season?: s, horizon: 1, split}

The value at time t is forecast from those at t−1 … t−p, and at t−s where s is beyond p. `time` and
`id` are columns (several series in one file, told apart by `id`), `step` is the distance of two
values. Custodians train on values before `split`, validators judge by those from it on, so that no
model is judged by what was known when it was made. The naive forecast is the value at t−s, or at
t−1 without a season.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LAGS_MAX, SEASON_MAX, HORIZON = 100, 1000, 1
_MINUTE, _MONTHS = 60, ("month", "quarter", "year")
# The distance of two values: in seconds, of calendar months in months, of numbers in ones.
STEPS = {
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 1,
    "quarter": 3,
    "year": 12,
    "hour": 60 * _MINUTE,
    "30 minutes": 30 * _MINUTE,
    "15 minutes": 15 * _MINUTE,
    "10 minutes": 10 * _MINUTE,
    "5 minutes": 5 * _MINUTE,
    "minute": _MINUTE,
    "number": 1,
}
_WHOLE = re.compile(r"[+-]?\d{1,15}(\.0+)?")
_SHORT = re.compile(r"\d{4}(-\d{2})?")


def lags_of(series: Mapping[str, Any]) -> list[int]:
    """How many steps back each feature lies, in the features' order."""
    season = series.get("season") or 0
    return [*range(1, series["lags"] + 1), *([season] if season > series["lags"] else [])]


def naive_of(series: Mapping[str, Any]) -> int:
    """How many steps back the naive forecast lies."""
    return int(series.get("season") or 1)


def feature_names(series: Mapping[str, Any]) -> list[str]:
    """In ASCII: they are headers of the files that buyers write."""
    return [f"t-{lag}" for lag in lags_of(series)]


def moment(text: str, step: str) -> int:
    """A time as a whole number that grows by STEPS[step] from one value to the next.

    ISO 8601, without a zone as UTC; of months and years also 2024-03 and 2024, where days (and of
    years, months) say nothing; or a whole number. Raises: ValueError for what is no such time.
    """
    bare = text.strip()
    if step == "number":
        if not _WHOLE.fullmatch(bare):
            raise ValueError("it must be a whole number")
        return int(bare.partition(".")[0])
    if step in _MONTHS and _SHORT.fullmatch(bare):
        bare += "-01" * ((10 - len(bare)) // 3)
    try:
        at = datetime.fromisoformat(bare)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):  # in UTC it may lie before year 1 or after 9999
        raise ValueError("it must be a date or time like 2024-03-15 or 2024-03-15T10:00") from None
    if step in _MONTHS:
        return 12 * at.year + (at.month - 1) * (step != "year")
    if at.microsecond:
        raise ValueError("it has a part of a second")
    return int(at.timestamp())
