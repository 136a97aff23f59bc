"""Cells of CSV files that are opened in a spreadsheet."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell_text(text: str) -> str:
    """What others wrote must stay text: a spreadsheet would run a cell that begins like this."""
    return f"'{text}" if text.startswith(_FORMULA) else text
