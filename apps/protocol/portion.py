"""The most that one buyer may take of the rows that a model's nodes answer in one of their epochs.

Nodes cap the rows of a model, whoever asks (`workers.node.policy`); the site divides them.
"""

from __future__ import annotations

from apps.protocol.money import BPS

DEFAULT_BPS = 5_000
DAY_MS = 86_400_000


def portion_rows(rows_per_epoch: int, bps: int) -> int:
    """⌊rows_per_epoch · bps / 10 000⌋, one row at least. Raises ValueError."""
    if isinstance(bps, bool) or not isinstance(bps, int) or not 1 <= bps <= BPS:
        raise ValueError(f"the part lies between 1 and {BPS} basis points")
    return max(1, rows_per_epoch * bps // BPS)


def epoch_span_ms(at_ms: int, days: int) -> tuple[int, int]:
    """[start, end) of the nodes' epoch of so many whole UTC days, counted from 1970-01-01."""
    start = at_ms - at_ms % (days * DAY_MS)
    return start, start + days * DAY_MS
