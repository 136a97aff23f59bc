"""A site's rows, checked against the request's schema before anything is computed.

Errors name the file, the row and the column, because the person who reads them sits beside the
data. They never leave the site.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from apps.protocol.encoding import NO_YES, encode, levels_of, place_of
from apps.protocol.rfm_spec import CONDITION
from apps.protocol.targets import class_of
from workers.client import fhir, sources
from workers.client.errors import DataError, few, is_number
from workers.client.series import MISSING, lagged
from workers.client.sources import Sheet

MIN_ROWS = 10
FHIR_STANDARD = "hl7-fhir-r4"
OUTLIER = 100  # interquartile ranges from the quartiles: as far may a value be


@dataclass(frozen=True)
class Table:
    """Checked rows: features [n, width] without gaps, labels [n], strata [n] of str or None.

    columns are the schema's; features are encoded (apps/protocol/encoding.py): first the columns
    that are numbers, then those of the levels that the others have.

    Labels are 0/1 of a binary label, the number of the class, the number itself, or [n, 2] of a
    time and 1 where the event came then, or of a value and its naive forecast, by the request's
    model class. missing: how many cells
    were filled with their column's mean; clamped: how many lay outside the schema's plausible range
    and were moved to its edge. notes: what else the person at the site should know.
    """

    path: Path
    columns: tuple[str, ...]
    features: np.ndarray
    labels: np.ndarray
    strata: np.ndarray | None
    missing: int
    clamped: int
    notes: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        return len(self.labels)

    @property
    def width(self) -> int:
        """How many columns a model takes for these."""
        return int(self.features.shape[1])

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns whose sums a round takes: the first of the encoded ones."""
        return tuple(name for name in self.columns if name not in self.categories)

    def drawn(self, rows: int, seed: bytes) -> Table:
        """So many of these rows, in their order, by a secret seed: the same ones each time."""
        ranks = [
            hmac.digest(seed, place.to_bytes(8, "big"), "sha256") for place in range(self.rows)
        ]
        kept = np.sort(np.array(sorted(range(self.rows), key=ranks.__getitem__)[:rows], dtype=int))
        return replace(
            self,
            features=self.features[kept],
            labels=self.labels[kept],
            strata=None if self.strata is None else self.strata[kept],
        )


@dataclass(frozen=True)
class Schema:
    """What the request asks of a file: features (its own words for each), label, strata."""

    features: Sequence[Mapping[str, Any]]
    label: str
    positive: str
    strata_column: str | None
    strata_values: tuple[str, ...]
    kind: str = "binary"
    classes: tuple[str, ...] = ()
    event: str | None = None
    series: Mapping[str, Any] | None = None
    fhir: tuple[fhir.Wanted, ...] = ()
    label_range: tuple[float | None, float | None] = (None, None)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return tuple(feature["name"] for feature in self.features)

    @classmethod
    def of_spec(
        cls,
        spec: Mapping[str, Any],
        *,
        label: str | None = None,
        strata: str | None = None,
        fhir: Mapping[str, Any] | None = None,
    ) -> Schema:
        """The schema of a request's spec; a site may call its label or strata column otherwise.

        fhir: agent.toml's [fhir]: codes {column: "system|code"} where the request has none or the
        site uses others, region: the part of an address that the strata are. Raises: DataError.
        """
        wanted = spec.get("strata") or None
        return cls(
            features=tuple(spec["features"]),
            label_range=_range(spec["label"]),
            label=label or spec["label"]["name"],
            positive=str(spec["label"].get("positive", spec["label"].get("occurred", "1"))),
            event=spec["label"].get("event"),
            series=spec["label"].get("series"),
            classes=tuple(plain(name) for name in spec["label"].get("classes", ())),
            kind=class_of(spec).label,
            strata_column=(strata or wanted["column"]) if wanted else None,
            strata_values=tuple(str(v) for v in wanted["values"]) if wanted else (),
            fhir=_fhir(spec, label or spec["label"]["name"], strata, fhir or {}),
        )


def _fhir(
    spec: Mapping[str, Any], label: str, strata: str | None, own: Mapping[str, Any]
) -> tuple[fhir.Wanted, ...]:
    """The columns as FHIR codes; none where the request is about something else."""
    codes = own.get("codes", {})
    if not own and spec.get("standard") != FHIR_STANDARD:
        return ()
    columns = [(f["name"], f, False) for f in spec["features"]]
    made = []
    for name, about, is_label in [*columns, (label, spec["label"], True)]:
        said = codes.get(name)
        if said is None and about.get("code"):
            said = f"{about.get('system') or fhir.LOINC}|{about['code']}"
        if not isinstance(said, str) or not said.partition("|")[2]:
            raise DataError(
                f"“{name}” has no code: the request names none, and agent.toml says no "
                f'"system|code" for it under [fhir.codes].'
            )
        if about.get("resource") == CONDITION and levels_of(about) != NO_YES:
            raise DataError(f"“{name}”: whether there is a {CONDITION} is a boolean, nothing else.")
        system, _, code = said.partition("|")
        made.append(
            fhir.Wanted(
                name,
                (system, code),
                about.get("unit") or "",
                is_label=is_label,
                levels=levels_of(about),
                condition=about.get("resource") == CONDITION,
                active=about.get("active", False),
            )
        )
    if spec.get("strata"):
        region = own.get("region", fhir.REGIONS[0])
        if region not in fhir.REGIONS:
            raise DataError(f"[fhir] region must be one of: {', '.join(fhir.REGIONS)}.")
        made.append(fhir.Wanted(strata or spec["strata"]["column"], region=region))
    return tuple(made)


def _range(about: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = (None if about.get(end) is None else float(about[end]) for end in ("min", "max"))
    return low, high


def read_table(
    path: Path,
    schema: Schema,
    *,
    min_rows: int = MIN_ROWS,
    need_strata: bool = False,
    holdout: bool = False,
) -> Table:
    """The rows of a file as the schema wants them: CSV, Parquet or FHIR, see sources.py.

    holdout: of a series, the rows that judge; else those that models are made of (series.py).

    Missing feature cells (empty, NA, NaN, null, ?) take the mean of their column's other cells; of
    a category they take, in each level's column, the part of the other rows that have that level.
    A missing label is an error, since a guess would be a wrong diagnosis.

    Raises: DataError for a wrong file, wrong columns, too few rows, no label, one class only, a
    cell that is not a number or none of its category's levels, a column without any value, an
    unknown stratum.
    """
    series = schema.series or {}
    names = (*schema.columns, schema.label, schema.event, schema.strata_column)
    names += (series.get("time"), series.get("id"))
    sheet = sources.read(path, schema.fhir).named(*names)
    header, rows = sheet.header, sheet.rows
    _check_columns(path, header, schema, need_strata)
    if series:
        return _forecast_rows(path, sheet, schema, min_rows=min_rows, holdout=holdout)
    if len(rows) < min_rows:
        raise DataError(f"{path.name} has {len(rows)} rows; at least {min_rows} are needed.")
    at = {name: index for index, name in enumerate(header)}
    table = cells_of(sheet, schema.features)
    labels = _labels(path, sheet, schema, at[schema.label])
    strata = None
    if schema.strata_column and schema.strata_column in at:
        strata = _strata(path, sheet, schema, at[schema.strata_column])
    missing = int(np.isnan(table).sum())
    _check_filled(path, table, schema.columns)
    table, clamped = _clamp(table, schema)
    table, notes = _tame(table, schema)
    features = _impute(encode(table, schema.features))
    if schema.kind in ("number", "count"):
        low, high = schema.label_range
        inside = np.clip(labels, low, high)
        labels, clamped = inside, clamped + int((inside != labels).sum())
    if schema.kind == "survival":
        labels, notes = _watched(labels, schema, notes)
        if labels[:, 1].min() == labels[:, 1].max():
            raise DataError(
                f"{path.name}: “{schema.event}” must be “{schema.positive}” in some rows that are "
                "watched long enough, and another value in others."
            )
    notes = (*sheet.notes, *notes)
    categories = frozenset(f["name"] for f in schema.features if levels_of(f))
    return Table(
        path, schema.columns, features, labels, strata, missing, clamped, notes, categories
    )


def _forecast_rows(
    path: Path, sheet: Sheet, schema: Schema, *, min_rows: int, holdout: bool
) -> Table:
    """The rows that a site's series make."""
    low, high = schema.label_range
    span = (or_default(low, -math.inf), or_default(high, math.inf))
    made = lagged(path, sheet, schema.series or {}, schema.label, span, holdout=holdout)
    if len(made.rows) < min_rows:
        raise DataError(
            f"{path.name}: too short a series. {' '.join(made.notes)} At least {min_rows} rows are "
            "needed."
        )
    values = made.labels[:, 0]
    if values.min() == values.max():
        raise DataError(
            f"{path.name}: every “{schema.label}” that is used is {values[0]:g}; it must vary."
        )
    strata = None
    if schema.strata_column and schema.strata_column in sheet.header:
        at = sheet.header.index(schema.strata_column)
        strata = _strata(path, sheet, schema, at)[made.rows]
    notes = (*sheet.notes, *made.notes)
    return Table(path, schema.columns, made.features, made.labels, strata, 0, made.clamped, notes)


def read_weights(path: Path, columns: Sequence[str], outputs: int = 1) -> np.ndarray:
    """An update trained by the site's own tooling: weights of the columns, then the intercept.

    The file has a header (the columns and "intercept") and one row of numbers for each output (a
    class). Returns them row after row. Raises: DataError.
    """
    sheet = sources.read(path).named(*columns)
    header, rows = sheet.header, sheet.rows
    wanted = [*columns, "intercept"]
    if sorted(header) != sorted(wanted):
        raise DataError(f"{path.name} must have the columns {few(wanted)}.")
    if len(rows) != outputs:
        raise DataError(
            f"{path.name} must have {'one row' if outputs == 1 else f'{outputs} rows'} of weights, "
            f"not {len(rows)}."
        )
    weights = cells_of(sheet, [{"name": name} for name in wanted]).reshape(-1)
    if np.isnan(weights).any():
        raise DataError(f"{path.name} lacks a weight.")
    return weights


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """(column names, rows of cells) of a CSV or Parquet file. Raises: DataError."""
    sheet = sources.read(path)
    return sheet.header, sheet.rows


def _check_columns(path: Path, header: list[str], schema: Schema, need_strata: bool) -> None:
    if schema.label not in header:
        raise DataError(
            f"{path.name} has no label column “{schema.label}”. Its columns: {few(header)}."
        )
    wanted = [*schema.columns, *([schema.event] if schema.event else [])]
    if schema.series:
        wanted = [schema.series[column] for column in ("time", "id") if column in schema.series]
    if need_strata and schema.strata_column:
        wanted.append(schema.strata_column)
    missing = [name for name in wanted if name not in header]
    if not missing:
        return
    known = {*schema.columns, *wanted, schema.label, schema.strata_column}
    extra = [name for name in header if name not in known]
    text = f"{path.name} lacks the columns {few(missing)}."
    if extra:
        text += f" It has others that the request does not know: {few(extra)}."
    raise DataError(text)


def cells_of(sheet: Sheet, features: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The features' columns [n, c]: numbers, of a category the place of each level; NaN where a
    cell is missing, unless a level is called so. Raises: DataError, naming row and column."""
    rows = sheet.rows
    table = np.empty((len(rows), len(features)))
    for j, feature in enumerate(features):
        name, levels = feature["name"], levels_of(feature)
        index = sheet.header.index(name)
        for i, row in enumerate(rows):
            cell = row[index].strip()
            place = place_of(levels, cell) if levels else None
            if place is not None:
                table[i, j] = place
            elif cell.lower() in MISSING:
                table[i, j] = math.nan
            elif levels:
                raise DataError(f"{sheet.where(i)}, column “{name}”: {no_level(cell, levels)}")
            elif is_number(cell):
                table[i, j] = float(cell)
            else:
                raise DataError(
                    f"{sheet.where(i)}, column “{name}”: “{cell[:40]}” is not a number."
                )
    return table


def no_level(cell: str, levels: Sequence[str]) -> str:
    """What is wrong with a cell of a category, naming its levels."""
    return f"“{cell[:40]}” is none of its levels, which are {few(levels, limit=50)}."


def _labels(path: Path, sheet: Sheet, schema: Schema, index: int) -> np.ndarray:
    cells = [row[index].strip() for row in sheet.rows]
    for number, cell in enumerate(cells):
        if cell.lower() in MISSING:
            raise DataError(f"{sheet.where(number)}: the label “{schema.label}” is missing.")
    if schema.kind == "classes":
        return _class_labels(path, sheet, cells, schema)
    if schema.kind in ("number", "count"):
        return _number_labels(path, sheet, cells, schema)
    if schema.kind == "survival":
        return _survival_labels(path, sheet, cells, schema)
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


def _class_labels(path: Path, sheet: Sheet, cells: list[str], schema: Schema) -> np.ndarray:
    """The number of each row's class. A site may lack some classes, not all but one."""
    place = {name: number for number, name in enumerate(schema.classes)}
    for number, cell in enumerate(cells):
        if plain(cell) not in place:
            raise DataError(
                f"{sheet.where(number)}: “{cell[:40]}” is no class of “{schema.label}”; the "
                f"request knows {few(schema.classes)}."
            )
    labels = np.array([place[plain(cell)] for cell in cells], dtype=np.int64)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"{path.name}: every row has the label {cells[0]}; two classes are needed.")
    return labels


def _number_labels(path: Path, sheet: Sheet, cells: list[str], schema: Schema) -> np.ndarray:
    for number, cell in enumerate(cells):
        if not is_number(cell):
            raise DataError(f"{sheet.where(number)}: the label “{cell[:40]}” is not a number.")
        if schema.kind == "count" and (float(cell) < 0 or float(cell) != int(float(cell))):
            raise DataError(f"{sheet.where(number)}: the label “{cell[:40]}” is not a count.")
    labels = np.array([float(cell) for cell in cells])
    if labels.min() == labels.max():
        raise DataError(f"{path.name}: every row has the label {cells[0]}; it must vary.")
    return labels


def _survival_labels(path: Path, sheet: Sheet, cells: list[str], schema: Schema) -> np.ndarray:
    """[n, 2]: the time, and 1 where the event came then. The event has two values at most: a third
    would pass for rows without it."""
    at, occurred = sheet.header.index(str(schema.event)), plain(schema.positive)
    labels, values = np.zeros((len(cells), 2)), set()
    for number, cell in enumerate(cells):
        if not is_number(cell) or float(cell) < 0:
            raise DataError(f"{sheet.where(number)}: the label “{cell[:40]}” is no time.")
        what = sheet.rows[number][at].strip()
        if what.lower() in MISSING:
            raise DataError(f"{sheet.where(number)}: “{schema.event}” is missing.")
        values.add(plain(what))
        labels[number] = float(cell), plain(what) == occurred
    if len(values) > 2:
        raise DataError(
            f"{path.name}: “{schema.event}” has {len(values)} different values "
            f"({few(sorted(values))}); it says “{schema.positive}” or one other value."
        )
    return labels


def _watched(labels: np.ndarray, schema: Schema, notes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Times beyond the longest one as rows that were watched so long without the event."""
    longest = or_default(schema.label_range[1], math.inf)
    late = labels[:, 0] > longest
    if late.any():
        notes = [*notes, f"{int(late.sum())} rows end at {longest:g}, before their time."]
    return np.where(late[:, None], [longest, 0.0], labels), notes


def _strata(path: Path, sheet: Sheet, schema: Schema, index: int) -> np.ndarray:
    cells = [row[index].strip() for row in sheet.rows]
    for number, cell in enumerate(cells):
        if cell not in schema.strata_values:
            raise DataError(
                f"{sheet.where(number)}: “{cell}” is no value of “{schema.strata_column}”; "
                f"the request knows {few(schema.strata_values)}."
            )
    return np.array(cells, dtype=object)


def _check_filled(path: Path, features: np.ndarray, columns: tuple[str, ...]) -> None:
    gaps = np.isnan(features).all(axis=0)
    empty = [name for name, all_gaps in zip(columns, gaps, strict=True) if all_gaps]
    if empty:
        raise DataError(f"{path.name}: the column {few(empty)} has no value in any row.")


def _impute(features: np.ndarray) -> np.ndarray:
    """Gaps filled with their column's mean. Last of all: a typing error would be in every mean."""
    unit = _unit(features)
    return np.where(np.isnan(features), np.nanmean(features / unit, axis=0) * unit, features)


def _unit(columns: np.ndarray) -> np.ndarray:
    """A power of two near each column's largest value: by it, no sum or difference overflows."""
    exponent = np.frexp(np.nanmax(np.abs(columns), axis=0))[1]
    return np.asarray(np.ldexp(1.0, exponent - 1))


def _clamp(features: np.ndarray, schema: Schema) -> tuple[np.ndarray, int]:
    low, high = (
        np.array([or_default(f.get(end), default) for f in schema.features])
        for end, default in (("min", -math.inf), ("max", math.inf))
    )
    inside = np.clip(features, low, high)
    return inside, int(((inside != features) & ~np.isnan(features)).sum())


def _tame(features: np.ndarray, schema: Schema) -> tuple[np.ndarray, list[str]]:
    """Values as far as a typing error goes (10^9 among hundreds) moved to OUTLIER interquartile
    ranges from the quartiles, where the schema has no range; said, as is a column of one value."""
    notes = []
    features = features.copy()
    for j, feature in enumerate(schema.features):
        name = feature["name"]
        unit = _unit(features[:, j])
        column = features[:, j] / unit
        known = column[~np.isnan(column)]
        values = np.unique(known)
        if len(values) == 1:
            notes.append(f"“{name}” has the same value in every row: it teaches nothing here.")
            continue
        if levels_of(feature):
            continue
        low, high = np.quantile(known, [0.25, 0.75])
        if low == high:
            low, high = np.quantile(values, [0.25, 0.75])
        reach = OUTLIER * (high - low)
        inside = np.clip(column, low - reach, high + reach)
        moved = (inside != column) & ~np.isnan(column)
        if moved.any() and None in _range(feature):
            features[moved, j] = inside[moved] * unit
            edges = " or ".join(f"{edge:.6g}" for edge in np.unique(features[moved, j]))
            notes.append(
                f"“{name}”: {int(moved.sum())} values far outside all others were moved to "
                f"{edges}. Give the request a plausible range."
            )
    return features, notes


def or_default(value: Any, default: float) -> float:
    return default if value is None else float(value)


def plain(value: str) -> str:
    """ "1.0" and "1" are the same label."""
    text = str(value).strip()
    if is_number(text) and float(text) == int(float(text)):
        return str(int(float(text)))
    return text


def row_order(
    labels: np.ndarray, strata: np.ndarray | None, *, by_time: bool = False
) -> np.ndarray:
    """An order of a validator's rows in which even and odd positions are alike.

    Rule: sort by (stratum, label), then take the rows in turn, so that of every stratum and class
    the halves hold the same number of rows, up to one. The even half scores, the odd one is
    evidence. Rows of times until an event stand in the order of these, as circuits/cox.py asks.
    by_time: rows of a series, in its order: the earlier half scores, the later one is evidence.
    Returns: row numbers [n].
    """
    if by_time:
        order = np.empty(len(labels), dtype=np.int64)
        half = -(-len(labels) // 2)
        order[0::2], order[1::2] = np.arange(half), np.arange(half, len(labels))
        return order
    if labels.ndim == 2:
        # events first: a row that was watched until then was still at risk
        return np.lexsort((-labels[:, 1], labels[:, 0]))
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
