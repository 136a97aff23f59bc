"""Rows of lags, cut out of a site's series in time (apps/protocol/series.py says what one is).

Rules. Times lie on the grid of the step, counted from each series' first one: what does not is
refused, as is a time that stands twice. Nothing is filled in: a row for which the value or one of
its lags is missing (a gap, an empty cell, the beginning) is left out, and the site is told how
many. Values beyond the label's plausible range are moved to its edge first. A custodian's rows are
those before the split, a validator's those from it on; the lags of these may lie before. Rows stand
in the order of time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.protocol.series import STEPS, lags_of, moment, naive_of
from workers.client.errors import DataError, is_number
from workers.client.sources import Sheet

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


@dataclass(frozen=True)
class Lagged:
    """features [n, p], labels [n, 2] (value, naive forecast), rows [n]: where each value stood."""

    features: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    clamped: int
    notes: tuple[str, ...]


def lagged(
    path: Path,
    sheet: Sheet,
    series: Mapping[str, Any],
    name: str,
    span: tuple[float, float],
    *,
    holdout: bool,
) -> Lagged:
    """The rows of the part that this site uses. Raises: DataError, naming row and column."""
    if not sheet.rows:
        raise DataError(f"{path.name} has no rows.")
    times, owners, values = _read(sheet, series, name)
    inside = np.clip(values, *span)
    clamped = int(((inside != values) & ~np.isnan(values)).sum())
    lags, naive = lags_of(series), naive_of(series)
    whose = np.unique(owners, return_inverse=True)[1]
    each = np.split(np.argsort(whose, kind="stable"), np.cumsum(np.bincount(whose))[:-1])
    parts = [_of_one(sheet, series, mine, times, inside, [*lags, naive]) for mine in each]
    rows, windows = (np.concatenate(both) for both in zip(*parts))
    split = moment(series["split"], series["step"])
    part = times[rows] >= split if holdout else times[rows] < split
    rows, windows = rows[part], windows[part]
    whole = ~np.isnan(windows).any(axis=1)
    notes = []
    which = f"{'from' if holdout else 'before'} {series['split']}"
    if not whole.all():
        notes.append(
            f"{len(whole) - int(whole.sum())} of {len(whole)} values {which} are left out: they or "
            "a value that they would be forecast from are missing (nothing is filled in)."
        )
    order = np.flatnonzero(whole)[np.argsort(times[rows[whole]], kind="stable")]
    rows, windows = rows[order], windows[order]
    notes.append(
        f"{len(rows)} rows of “{name}” {which}, each with {len(lags)} values before it: the last "
        f"{series['lags']}"
        + (f" and the one {max(lags)} steps back." * (lags[-1] > series["lags"]))
    )
    labels = windows[:, [0, -1]]
    return Lagged(windows[:, 1:-1], labels, rows, clamped, tuple(notes))


def _read(
    sheet: Sheet, series: Mapping[str, Any], name: str
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """(times, which series, values or NaN) of each row of the file."""
    at = {column: place for place, column in enumerate(sheet.header)}
    own = series.get("id")
    times, owners, values = [], [], []
    for number, row in enumerate(sheet.rows):
        text, cell = row[at[series["time"]]].strip(), row[at[name]].strip()
        try:
            times.append(moment(text, series["step"]))
        except ValueError as error:
            raise DataError(
                f"{sheet.where(number)}, column “{series['time']}”: “{text[:40]}”: {error}."
            ) from None
        owners.append(row[at[own]].strip() if own else "")
        if own and owners[-1].lower() in MISSING:
            raise DataError(f"{sheet.where(number)}: “{own}” is missing.")
        missing = cell.lower() in MISSING
        if not missing and not is_number(cell):
            raise DataError(
                f"{sheet.where(number)}, column “{name}”: “{cell[:40]}” is not a number."
            )
        values.append(math.nan if missing else float(cell))
    return np.array(times, np.int64), owners, np.array(values, float)


def _of_one(
    sheet: Sheet,
    series: Mapping[str, Any],
    mine: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    lags: list[int],
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of this series in the order of time, [value, its lags] of each, NaN where there is
    none)."""
    mine = mine[np.argsort(times[mine], kind="stable")]
    gone = times[mine] - times[mine[0]]
    size = STEPS[series["step"]]

    def said(place: int) -> str:
        row, column = mine[place], sheet.header.index(series["time"])
        return f"{sheet.where(int(row))}: the time {sheet.rows[row][column].strip()}"

    for place in np.flatnonzero(gone % size)[:1]:
        first = sheet.rows[mine[0]][sheet.header.index(series["time"])].strip()
        raise DataError(
            f"{said(place)} is no whole number of steps ({series['step']}) after the series' first "
            f"one, {first}. A series must be regularly spaced; local times that change in summer "
            "are to be given in UTC."
        )
    for place in np.flatnonzero(np.diff(gone) == 0)[:1]:
        raise DataError(f"{said(place + 1)} stands twice in its series.")
    places, own = gone // size, values[mine]
    windows = [own]
    for lag in lags:
        found = np.minimum(np.searchsorted(places, places - lag), len(places) - 1)
        windows.append(np.where(places[found] == places - lag, own[found], math.nan))
    return mine, np.column_stack(windows)
