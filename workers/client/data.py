"""A site's rows: a CSV file, checked against the request's schema before anything is computed.

Errors name the file, the row and the column, because the person who reads them sits beside the
data. They never leave the site.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.protocol.targets import class_of
from workers.client.api import ClientError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
MIN_ROWS = 10
LABEL = ""  # the label's plausible range, under a name that no column has
MAX_BYTES = 1 << 30


class DataError(ClientError):
    """The file does not fit. `text` names file, row and column."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code="bad_data")


@dataclass(frozen=True)
class Table:
    """Checked rows: features [n, d] without gaps, labels [n], strata [n] of str or None.

    Labels are 0/1 of a binary label, the number of the class, or the number itself, by the
    request's model class. missing: how many cells were filled with their column's mean; clamped:
    how many lay outside the schema's plausible range and were moved to its edge.
    """

    path: Path
    columns: tuple[str, ...]
    features: np.ndarray
    labels: np.ndarray
    strata: np.ndarray | None
    missing: int
    clamped: int

    @property
    def rows(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Schema:
    """What the request asks of a file: feature columns with optional ranges, label, strata."""

    columns: tuple[str, ...]
    ranges: Mapping[str, tuple[float | None, float | None]]
    label: str
    positive: str
    strata_column: str | None
    strata_values: tuple[str, ...]
    kind: str = "binary"
    classes: tuple[str, ...] = ()

    @classmethod
    def of_spec(
        cls, spec: Mapping[str, Any], *, label: str | None = None, strata: str | None = None
    ) -> Schema:
        """The schema of a request's spec; a site may call its label or strata column otherwise."""
        features = spec["features"]
        wanted = spec.get("strata") or None
        return cls(
            columns=tuple(f["name"] for f in features),
            ranges={
                f["name"]: (_bound(f.get("min")), _bound(f.get("max")))
                for f in (*features, {**spec["label"], "name": LABEL})
            },
            label=label or spec["label"]["name"],
            positive=str(spec["label"].get("positive", "1")),
            classes=tuple(plain(name) for name in spec["label"].get("classes", ())),
            kind=class_of(spec).label,
            strata_column=(strata or wanted["column"]) if wanted else None,
            strata_values=tuple(str(v) for v in wanted["values"]) if wanted else (),
        )


def _bound(value: Any) -> float | None:
    return None if value is None else float(value)


def read_header(path: Path) -> list[str]:
    """The column names of a CSV file. Raises: DataError."""
    return read_rows(path)[0]


def read_table(
    path: Path, schema: Schema, *, min_rows: int = MIN_ROWS, need_strata: bool = False
) -> Table:
    """The rows of a CSV file as the schema wants them.

    Missing feature cells (empty, NA, NaN, null, ?) take the mean of their column's other cells.
    A missing label is an error, since a guess would be a wrong diagnosis.

    Raises: DataError for a wrong file, wrong columns, too few rows, no label, one class only, a
    cell that is not a number, a column without any number, an unknown stratum.
    """
    header, rows = read_rows(path)
    _check_columns(path, header, schema, need_strata)
    if len(rows) < min_rows:
        raise DataError(f"{path.name} has {len(rows)} rows; at least {min_rows} are needed.")
    at = {name: index for index, name in enumerate(header)}
    features = _numbers(path, rows, schema.columns, at)
    labels = _labels(path, rows, schema, at[schema.label])
    strata = None
    if schema.strata_column and schema.strata_column in at:
        strata = _strata(path, rows, schema, at[schema.strata_column])
    missing = int(np.isnan(features).sum())
    features = _impute(path, features, schema.columns)
    features, clamped = _clamp(features, schema)
    if schema.kind in ("number", "count"):
        low, high = schema.ranges[LABEL]
        inside = np.clip(labels, low, high)
        labels, clamped = inside, clamped + int((inside != labels).sum())
    return Table(path, schema.columns, features, labels, strata, missing, clamped)


def read_features(path: Path, columns: Sequence[str]) -> np.ndarray:
    """The feature columns [n, d] of a file of questions: no label, no gaps. Raises: DataError."""
    header, rows = read_rows(path)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(f"{path.name} lacks the columns {few(missing)}.")
    if not rows:
        raise DataError(f"{path.name} has no rows.")
    at = {name: index for index, name in enumerate(header)}
    features = _numbers(path, rows, tuple(columns), at)
    for i, j in np.argwhere(np.isnan(features))[:1]:
        raise DataError(f"{path.name}, row {i + 2}, column “{columns[j]}” is empty.")
    return features


def read_weights(path: Path, columns: Sequence[str], outputs: int = 1) -> np.ndarray:
    """An update trained by the site's own tooling: weights of the columns, then the intercept.

    The file has a header (the columns and "intercept") and one row of numbers for each output (a
    class). Returns them row after row. Raises: DataError.
    """
    header, rows = read_rows(path)
    wanted = [*columns, "intercept"]
    if sorted(header) != sorted(wanted):
        raise DataError(f"{path.name} must have the columns {few(wanted)}.")
    if len(rows) != outputs:
        raise DataError(
            f"{path.name} must have {'one row' if outputs == 1 else f'{outputs} rows'} of weights, "
            f"not {len(rows)}."
        )
    at = {name: index for index, name in enumerate(header)}
    weights = _numbers(path, rows, tuple(wanted), at).reshape(-1)
    if np.isnan(weights).any():
        raise DataError(f"{path.name} lacks a weight.")
    return weights


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """(column names, rows of cells) of a CSV file in UTF-8. Raises: DataError."""
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MB.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, strict=True) if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error):
        raise DataError(f"{path.name} is not a CSV file in UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror}.") from None
    if not lines:
        raise DataError(f"{path.name} is empty; the first line must name the columns.")
    header = [name.strip() for name in lines[0]]
    if all(_is_number(name) for name in header):
        raise DataError(f"{path.name} has no header; the first line must name the columns.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} names a column twice: {few(twice)}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"{path.name}, row {number}: {len(line)} cells where the header has {len(header)}."
            )
    return header, lines[1:]


def _check_columns(path: Path, header: list[str], schema: Schema, need_strata: bool) -> None:
    if schema.label not in header:
        raise DataError(
            f"{path.name} has no label column “{schema.label}”. Its columns: {few(header)}."
        )
    wanted = list(schema.columns)
    if need_strata and schema.strata_column:
        wanted.append(schema.strata_column)
    missing = [name for name in wanted if name not in header]
    if not missing:
        return
    known = {*schema.columns, schema.label, schema.strata_column}
    extra = [name for name in header if name not in known]
    text = f"{path.name} lacks the columns {few(missing)}."
    if extra:
        text += f" It has others that the request does not know: {few(extra)}."
    raise DataError(text)


def _numbers(
    path: Path, rows: list[list[str]], columns: tuple[str, ...], at: dict[str, int]
) -> np.ndarray:
    table = np.empty((len(rows), len(columns)))
    for j, name in enumerate(columns):
        index = at[name]
        for i, row in enumerate(rows):
            cell = row[index].strip()
            if cell.lower() in MISSING:
                table[i, j] = math.nan
                continue
            if not _is_number(cell):
                raise DataError(
                    f"{path.name}, row {i + 2}, column “{name}”: “{cell[:40]}” is not a number."
                )
            table[i, j] = float(cell)
    return table


def _labels(path: Path, rows: list[list[str]], schema: Schema, index: int) -> np.ndarray:
    cells = [row[index].strip() for row in rows]
    for number, cell in enumerate(cells, start=2):
        if cell.lower() in MISSING:
            raise DataError(f"{path.name}, row {number}: the label “{schema.label}” is missing.")
    if schema.kind == "classes":
        return _class_labels(path, cells, schema)
    if schema.kind in ("number", "count"):
        return _number_labels(path, cells, schema)
    values = sorted({plain(cell) for cell in cells})
    if len(values) > 2:
        raise DataError(
            f"{path.name}: the label “{schema.label}” has {len(values)} different values "
            f"({few(values)}); a binary label has two."
        )
    positive = plain(schema.positive)
    if len(values) == 1:
        raise DataError(
            f"{path.name}: every row has the label {values[0]}; both classes are needed."
        )
    if positive not in values:
        raise DataError(
            f"{path.name}: the label “{schema.label}” has the values {few(values)}; the request's "
            f"positive value “{schema.positive}” is not among them."
        )
    return np.array([1 if plain(cell) == positive else 0 for cell in cells], dtype=np.int64)


def _class_labels(path: Path, cells: list[str], schema: Schema) -> np.ndarray:
    """The number of each row's class. A site may lack some classes, not all but one."""
    place = {name: number for number, name in enumerate(schema.classes)}
    for number, cell in enumerate(cells, start=2):
        if plain(cell) not in place:
            raise DataError(
                f"{path.name}, row {number}: “{cell[:40]}” is no class of “{schema.label}”; the "
                f"request knows {few(schema.classes)}."
            )
    labels = np.array([place[plain(cell)] for cell in cells], dtype=np.int64)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"{path.name}: every row has the label {cells[0]}; two classes are needed.")
    return labels


def _number_labels(path: Path, cells: list[str], schema: Schema) -> np.ndarray:
    for number, cell in enumerate(cells, start=2):
        if not _is_number(cell):
            raise DataError(f"{path.name}, row {number}: the label “{cell[:40]}” is not a number.")
        if schema.kind == "count" and (float(cell) < 0 or float(cell) != int(float(cell))):
            raise DataError(f"{path.name}, row {number}: the label “{cell[:40]}” is not a count.")
    labels = np.array([float(cell) for cell in cells])
    if labels.min() == labels.max():
        raise DataError(f"{path.name}: every row has the label {cells[0]}; it must vary.")
    return labels


def _strata(path: Path, rows: list[list[str]], schema: Schema, index: int) -> np.ndarray:
    cells = [row[index].strip() for row in rows]
    for number, cell in enumerate(cells, start=2):
        if cell not in schema.strata_values:
            raise DataError(
                f"{path.name}, row {number}: “{cell}” is no value of “{schema.strata_column}”; "
                f"the request knows {few(schema.strata_values)}."
            )
    return np.array(cells, dtype=object)


def _impute(path: Path, features: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    gaps = np.isnan(features)
    if not gaps.any():
        return features
    empty = [name for name, all_gaps in zip(columns, gaps.all(axis=0), strict=True) if all_gaps]
    if empty:
        raise DataError(f"{path.name}: the column {few(empty)} has no number in any row.")
    return np.where(gaps, np.nanmean(features, axis=0), features)


def _clamp(features: np.ndarray, schema: Schema) -> tuple[np.ndarray, int]:
    low = np.array([_or(schema.ranges.get(c, (None, None))[0], -np.inf) for c in schema.columns])
    high = np.array([_or(schema.ranges.get(c, (None, None))[1], np.inf) for c in schema.columns])
    inside = np.clip(features, low, high)
    return inside, int((inside != features).sum())


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def plain(value: str) -> str:
    """ "1.0" and "1" are the same label."""
    text = str(value).strip()
    if _is_number(text) and float(text) == int(float(text)):
        return str(int(float(text)))
    return text


def few(names: Sequence[str], limit: int = 6) -> str:
    """The first names, quoted, and how many more there are."""
    shown = ", ".join(f"“{name}”" for name in list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def row_order(labels: np.ndarray, strata: np.ndarray | None) -> np.ndarray:
    """An order of a validator's rows in which even and odd positions are alike.

    Rule: sort by (stratum, label), then take the rows in turn, so that of every stratum and class
    the halves hold the same number of rows, up to one. The even half scores, the odd one is
    evidence. Returns: row numbers [n].
    """
    keys = [
        ("" if strata is None else str(strata[i]), float(labels[i])) for i in range(len(labels))
    ]
    return np.array(sorted(range(len(labels)), key=lambda i: (keys[i], i)), dtype=np.int64)


def one_hot(strata: np.ndarray | None, values: Sequence[str], rows: int) -> np.ndarray:
    """Bits [n, R]: which of the R strata each row belongs to; [n, 0] where there are none."""
    bits = np.zeros((rows, len(values)))
    if strata is not None:
        place = {value: index for index, value in enumerate(values)}
        for i, value in enumerate(strata):
            bits[i, place[str(value)]] = 1.0
    return bits
