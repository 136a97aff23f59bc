"""What is wrong with a site's data, said to the person beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workers.client.api import ClientError


class DataError(ClientError):
    """The file does not fit. `text` names file, row and column."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code="bad_data")


def is_number(text: str) -> bool:
    """Is it a finite number as data have them? Not "1_000", which Python's own reading allows."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def few(names: Sequence[str], limit: int = 6) -> str:
    """The first names, quoted, and how many more there are."""
    shown = ", ".join(f"“{name}”" for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
