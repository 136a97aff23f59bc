"""Where a site's rows come from: CSV, Parquet, or FHIR R4, by the file's ending.

    .csv                                    UTF-8, first line names the columns
    .parquet                                flat columns; needs pyarrow (the extra "parquet")
    .json, .ndjson, or a folder of these    FHIR R4: see fhir.py

Whatever the source, what comes out is a Sheet of text cells, so that one set of checks judges all.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.client import fhir
from workers.client.errors import DataError, few, is_number

MAX_BYTES = 1 << 30
FHIR = (".json", ".ndjson")


@dataclass(frozen=True)
class Sheet:
    """Column names, rows of text cells ("" where there is nothing), and where(i), a row's name."""

    header: list[str]
    rows: list[list[str]]
    where: Callable[[int], str]
    notes: tuple[str, ...] = ()

    def named(self, *names: str | None) -> Sheet:
        """With these columns called just so where they only look alike: “é” is one sign or two."""
        called = {_alike(name): name for name in names if name}
        return replace(self, header=[called.get(_alike(name), name) for name in self.header])


def read(path: Path, wanted: Sequence[fhir.Wanted] = ()) -> Sheet:
    """The rows of a file or folder; `wanted` are the columns that are made of FHIR resources.

    Raises: DataError.
    """
    _check_size(path)
    if path.is_dir() or path.suffix.lower() in FHIR:
        if not wanted:
            raise DataError(f"{path.name}: FHIR resources can't be read here; give a CSV file.")
        found = fhir.read(files(path), wanted)
        header = [w.column for w in wanted]
        where = [f"{path.name}, {patient}" for patient in found.patients]
        return Sheet(header, found.rows, where.__getitem__, found.notes)
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    return _csv(path)


def files(path: Path) -> list[Path]:
    """The files that a source consists of, in the order of their names."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in FHIR)
    if not found:
        raise DataError(f"{path} has no .json or .ndjson file.")
    return found


def digest(path: Path, salt: bytes) -> str:
    """SHA-256(salt ‖ content), hex; of a folder each file's name and length go before it."""
    total = hashlib.sha256(salt)
    for file in files(path):
        content = file.read_bytes()
        if path.is_dir():
            total.update(f"{file.name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _check_size(path: Path) -> None:
    if not path.exists():
        raise DataError(f"There is no file {path}.")
    if sum(file.stat().st_size for file in files(path)) > MAX_BYTES:
        raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MB.")


def _csv(path: Path) -> Sheet:
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
    if all(is_number(name) for name in header):
        raise DataError(f"{path.name} has no header; the first line must name the columns.")
    _check_header(path, header)
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"{path.name}, row {number}: {len(line)} cells where the header has {len(header)}."
            )
    return Sheet(header, lines[1:], lambda i: f"{path.name}, row {i + 2}")


def _parquet(path: Path) -> Sheet:
    """Flat columns only: a nested one would have no cell. Nulls and NaN are both missing."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"{path.name}: reading Parquet needs pyarrow (pip install 'flai-client[parquet]')."
        ) from None
    try:
        table = parquet.read_table(path, use_threads=False)
    except (arrow.ArrowException, OSError) as error:
        text = str(error).splitlines()[0][:120]
        raise DataError(f"{path.name} is not a Parquet file that can be read: {text}.") from None
    header = [str(name).strip() for name in table.column_names]
    _check_header(path, header)
    nested = [f.name for f in table.schema if arrow.types.is_nested(f.type)]
    if nested:
        raise DataError(f"{path.name} has nested columns: {few(nested)}; they must be flat.")
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(row) for row in zip(*columns)] if columns else []
    return Sheet(header, rows, lambda i: f"{path.name}, row {i + 1}")


def _cell(value: Any) -> str:
    """A number's text gives the same number again; true and false are 1 and 0."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _check_header(path: Path, header: list[str]) -> None:
    forms = [_alike(name) for name in header]
    twice = sorted({form for form in forms if forms.count(form) > 1})
    if twice:
        raise DataError(f"{path.name} names a column twice: {few(twice)}.")
