"""The clock, read at the edges only (views, tasks, commands); everything below is handed `now`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def now() -> datetime:
    """The current time, with time zone UTC."""
    return datetime.now(UTC)


def going_on(start: datetime) -> Callable[[], datetime]:
    """A clock that says `start` now: for work in many transactions, each stamped when it begins."""
    began = now()
    return lambda: start + (now() - began)


def unix_ms(at: datetime) -> int:
    """Whole milliseconds since 1970, rounded down; exact (no float on the way)."""
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def from_unix_ms(ms: int) -> datetime:
    """The instant that `unix_ms` gave `ms` for, to the millisecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
