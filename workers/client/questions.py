"""The rows that a buyer asks about: from a file, a data frame, an array or a program's lists.

Numbers and level names, in the order of the model's features; a feature is what its listing says of
it, or the name of a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.encoding import levels_of, place_of
from workers.client import sources
from workers.client.data import cells_of, no_level, or_default
from workers.client.errors import DataError, few, is_number

Row = list[float | str]
Asked = Mapping[str, Any] | str


def rows_of(path: Path, features: Sequence[Asked]) -> list[Row]:
    """The rows of a file with a header; further columns are ignored. No gaps. Raises: DataError."""
    about = _about(features)
    names = [feature["name"] for feature in about]
    sheet = sources.read(path).named(*names)
    missing = [name for name in names if name not in sheet.header]
    if missing:
        raise DataError(f"{path.name} lacks the columns {few(missing)}.")
    if not sheet.rows:
        raise DataError(f"{path.name} has no rows.")
    values = cells_of(sheet, about)
    for i, j in np.argwhere(np.isnan(values))[:1]:
        raise DataError(f"{sheet.where(i)}, column “{names[j]}” is empty.")
    return named(values, about)


def table_of(table: Any, features: Sequence[Asked]) -> npt.NDArray[np.float64]:
    """A table [n, c] in the model's order, of a category the places of its levels; further columns
    of a frame stay here.

    Raises: DataError, naming the row or column.
    """
    about = _about(features)
    columns = [feature["name"] for feature in about]
    levels = {f["name"]: levels_of(f) for f in about if levels_of(f)}
    if hasattr(table, "columns") and hasattr(table, "index"):
        names = list(table.columns)
        missing = [name for name in columns if name not in names]
        if missing:
            raise DataError(f"The table lacks the columns {few(missing)}.")
        if len(set(names)) != len(names):
            raise DataError("The table has two columns of one name.")
        table = np.column_stack(
            [
                _places(name, table[name], levels[name])
                if name in levels
                else _numbers(name, table[name])
                for name in columns
            ]
        )
    elif levels:
        table = _placed(table, columns, levels)
    try:
        values = np.asarray(table)
        if np.iscomplexobj(values):
            raise TypeError
        values = values.astype(float)
    except (ValueError, TypeError):
        raise DataError(_odd(table, columns)) from None
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise DataError(f"The model takes rows of {len(columns)} values, not {values.shape[1:]}.")
    if not len(values):
        raise DataError("There is no row to predict.")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise DataError(f"Row {row + 1}, column “{columns[column]}” is missing or not finite.")
    return values


def named(values: npt.NDArray[np.float64], features: Sequence[Asked]) -> list[Row]:
    """The rows of such a table, levels by their names."""
    rows: list[Row] = values.tolist()
    for column, feature in enumerate(_about(features)):
        if levels := levels_of(feature):
            for row in rows:
                row[column] = levels[int(row[column])]
    return rows


def check_ranges(values: npt.NDArray[np.float64], features: Sequence[Mapping[str, Any]]) -> None:
    """Every value is plausible: within its feature's min and max, where the request names them.

    Raises: DataError, naming the first row and column that is not.
    """
    low, high = (
        np.array([or_default(f.get(end), default) for f in features])
        for end, default in (("min", -math.inf), ("max", math.inf))
    )
    for row, column in np.argwhere((values < low) | (values > high))[:1]:
        first, last = (features[column].get(end) for end in ("min", "max"))
        wanted = f"at least {first}" if values[row, column] < low[column] else f"at most {last}"
        raise DataError(
            f"Row {row + 1}, column “{features[column]['name']}”: {values[row, column]:g} is out "
            f"of range, it must be {wanted}. Nothing was sent."
        )


def _about(features: Sequence[Asked]) -> list[Mapping[str, Any]]:
    return [{"name": one} if isinstance(one, str) else one for one in features]


def _placed(table: Any, columns: Sequence[str], levels: Mapping[str, Any]) -> list[Any]:
    """Rows whose level names are places."""
    try:
        rows = [list(row) for row in table]
    except TypeError:
        rows = [[]]
    if any(len(row) != len(columns) for row in rows):
        raise DataError(f"The model takes rows of {len(columns)} values each.")
    for at, name in enumerate(columns):
        if name in levels:
            places = _places(name, [row[at] for row in rows], levels[name])
            for row, place in zip(rows, places, strict=True):
                row[at] = place
    return rows


def _odd(table: Any, columns: Sequence[str]) -> str:
    """What is wrong with a table that is none of numbers, naming its first cell that is none."""
    try:
        for place, row in enumerate(table):
            for name, cell in zip(columns, row, strict=True):
                if isinstance(cell, str) and not is_number(cell):
                    return f"Row {place + 1}, column “{name}”: “{cell[:40]}” is not a number."
    except (ValueError, TypeError):
        pass
    return "The table has rows of unlike length, or what is no number."


def _places(name: str, column: Any, levels: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Of a column of level names, numbers that are such names, or truth values; NaN if missing."""
    found = np.full(len(column), math.nan)
    for row, cell in enumerate(column):
        if cell is None or cell != cell or str(cell) in ("", "<NA>"):
            continue
        place = place_of(levels, str(cell))
        if place is None:
            raise DataError(f"Row {row + 1}, column “{name}”: {no_level(str(cell), levels)}")
        found[row] = place
    return found


def _numbers(name: str, column: Any) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(column.to_numpy(dtype=float, na_value=np.nan))
    except (ValueError, TypeError):
        raise DataError(f"Column “{name}” holds what is no number.") from None
