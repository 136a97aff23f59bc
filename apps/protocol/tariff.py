"""What rows cost a buyer who asks much (paper §7.2): tiers by volume.

Row n of a buyer's month, counted from 0, costs

    p(n) = ⌈price · (10 000 − off(n)) / 10 000⌉,   off(n) = that of the last tier with from_rows ≤ n

and k rows after n others F(n + k) − F(n), F(n) = Σ_{i<n} p(i). So each row has its own price: the
sum grows with every row, no threshold makes more rows cheaper than fewer, and the same rows cost
the same in one request or in many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from apps.protocol.money import BPS, mul_div_ceil

QUOTE_MS = 10 * 60_000  # how long a quoted price holds
TIERS_MAX = 8
ROWS_MAX = 10**9
OFF_BPS_MAX = 9_900


@dataclass(frozen=True)
class Tier:
    """After `from_rows` rows in a month a row costs `off_bps` less. Raises ValueError."""

    from_rows: int
    off_bps: int

    def __post_init__(self) -> None:
        within(self, "from_rows", 1, ROWS_MAX)
        within(self, "off_bps", 1, OFF_BPS_MAX)


def tiers_of(raw: Any) -> tuple[Tier, ...]:
    """From untrusted data: a list of {"from_rows", "off_bps"}, both rising. Raises ValueError."""
    tiers = tuple(Tier(**row) for row in rows_of(raw, Tier, most=TIERS_MAX))
    for before, after in pairwise(tiers):
        if before.from_rows >= after.from_rows or before.off_bps >= after.off_bps:
            raise ValueError(
                "each tier begins at more rows than the one before, and takes more off"
            )
    return tiers


def row_price(price_micro: int, off_bps: int = 0) -> int:
    """⌈price · (10 000 − off) / 10 000⌉: never 0."""
    return mul_div_ceil(price_micro, BPS - off_bps, BPS)


def charge(rows: int, *, before: int, price_micro: int, tiers: Sequence[Tier]) -> int:
    """F(before + rows) − F(before), in micro-units. Raises ValueError for negative counts."""
    if rows < 0 or before < 0:
        raise ValueError("rows are not negative")
    end, total, off_bps = before + rows, 0, 0
    for tier in tiers:
        stop = min(tier.from_rows, end)
        total += max(stop - before, 0) * row_price(price_micro, off_bps)
        before, off_bps = max(before, stop), tier.off_bps
    return total + (end - before) * row_price(price_micro, off_bps)


def rows_of(raw: Any, kind: type[Any], *, most: int) -> list[dict[str, Any]]:
    """A list of objects with exactly the fields of `kind`. Raises ValueError."""
    names = [field.name for field in fields(kind)]
    if not isinstance(raw, list) or len(raw) > most:
        raise ValueError(f"give a list of {most} at most")
    if any(not isinstance(row, dict) or set(row) != set(names) for row in raw):
        raise ValueError(f"each has {', '.join(names)} and nothing else")
    return raw


def within(row: Any, name: str, least: int, most: int) -> None:
    """Raises ValueError naming the field where it is no whole number of these."""
    value = getattr(row, name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} lies between {least} and {most}")
