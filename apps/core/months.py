"""Calendar months, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from django.urls import register_converter


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The calendar month (UTC) of a time: [start, end)."""
    start = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    later = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
    return start, start.replace(year=later[0], month=later[1])


class MonthConverter:
    """`2026-11` in an address; its first moment."""

    regex = "20[0-9]{2}-(?:0[1-9]|1[0-2])"

    def to_python(self, text: str) -> datetime:
        return datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC)

    def to_url(self, start: datetime | str) -> str:
        return start if isinstance(start, str) else f"{start:%Y-%m}"


register_converter(MonthConverter, "month")
