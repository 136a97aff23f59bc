"""The user's own files as sites: one CSV a site, checked whole before anything begins.

Rule: every k-th row of each site is held out for the validators (k = 4, more for large data, so
that they stay within what one round can score), dealt to them in turn; a few of those go to the
buyers as the patients they ask about. Missing cells are the agents' business. Columns of words are
categories (workers/client/columns.py).
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.client import data
from workers.client.columns import described
from workers.client.data import DataError
from workers.demo.sites import BUYERS, PATIENTS_PER_BUYER, TRAIN_C, VALIDATORS

KEEP_EVERY = 4
HOLDOUT_MAX = 1500
MIN_SITES = 3
"""With two, each would learn the other's part by subtraction."""
MIN_TRAIN_ROWS = 10
MIN_HOLDOUT_ROWS = 10
STRATA_MAX = 16
Feature = dict[str, Any]


@dataclass(frozen=True)
class Source:
    path: Path
    header: list[str]
    rows: list[list[str]]


def prepare(folder: Path, out: Path, *, label: str, region: str | None) -> None:
    """Homes of custodians, validators and buyers under `out`, and out/sites.json.

    Raises: DataError naming file, row and column.
    """
    sources, features, positive, strata = _checked(folder, label=label, region=region)
    _write(sources, out, features, label, positive, region if strata else None, strata)


def _checked(
    folder: Path, *, label: str, region: str | None
) -> tuple[list[Source], list[Feature], str, list[str]]:
    """(files, features, positive label, regions). Raises: DataError. Writes nothing."""
    sources = _sources(folder)
    columns = _columns(sources, label, region)
    features = described(
        {name: [row[s.header.index(name)] for s in sources for row in s.rows] for name in columns}
    )
    positive = _positive(sources, label)
    strata = _strata(sources, region)
    schema = data.Schema(
        features=features,
        label=label,
        positive=positive,
        strata_column=region if strata else None,
        strata_values=tuple(strata),
    )
    for source in sources:
        # The agents read their part again; here the whole file is read, so that errors come early.
        data.read_table(source.path, schema, min_rows=MIN_TRAIN_ROWS, need_strata=bool(strata))
    return sources, features, positive, strata


def _sources(folder: Path) -> list[Source]:
    if not folder.is_dir():
        raise DataError(f"There is no directory {folder}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    if len(paths) < MIN_SITES:
        raise DataError(
            f"{folder} holds {len(paths)} CSV file{'s'[: len(paths) != 1]}; at least {MIN_SITES} "
            "sites are needed: with two, each would learn the other's part by subtraction."
        )
    return [Source(path, *data.read_rows(path)) for path in paths]


def _columns(sources: list[Source], label: str, region: str | None) -> list[str]:
    first = sources[0]
    for source in sources:
        for name in (label, region):
            if name is not None and name not in source.header:
                raise DataError(
                    f"{source.path.name} has no column “{name}”. Its columns: "
                    f"{data.few(source.header)}."
                )
        missing = [name for name in first.header if name not in source.header]
        extra = [name for name in source.header if name not in first.header]
        if missing or extra:
            parts = []
            if missing:
                parts.append(f"lacks {data.few(missing)}")
            if extra:
                parts.append(f"has {data.few(extra)} in addition")
            raise DataError(
                f"{source.path.name} has other columns than {first.path.name}: "
                f"it {' and '.join(parts)}."
            )
    columns = [name for name in first.header if name not in (label, region)]
    if not columns:
        raise DataError(f"{first.path.name} has no feature columns besides the label.")
    return columns


def _positive(sources: list[Source], label: str) -> str:
    values: set[str] = set()
    for source in sources:
        index = source.header.index(label)
        for number, row in enumerate(source.rows, start=2):
            if row[index].strip().lower() in data.MISSING:
                raise DataError(
                    f"{source.path.name}, row {number}: the label “{label}” is missing."
                )
            values.add(data.plain(row[index]))
    if len(values) != 2:
        found = f"{len(values)} different values" if len(values) > 1 else "the same value"
        raise DataError(
            f"The label “{label}” has {found} over all files ({data.few(sorted(values))}); "
            "a binary label has two."
        )
    return "1" if values == {"0", "1"} else sorted(values)[-1]


def _strata(sources: list[Source], region: str | None) -> list[str]:
    if region is None:
        return []
    values: Counter[str] = Counter()
    for source in sources:
        index = source.header.index(region)
        for number, row in enumerate(source.rows, start=2):
            if not row[index].strip():
                raise DataError(f"{source.path.name}, row {number}: “{region}” is empty.")
            values[row[index].strip()] += 1
    if not 2 <= len(values) <= STRATA_MAX:
        raise DataError(
            f"The column “{region}” has {len(values)} different values; 2 to {STRATA_MAX} regions "
            "can be told apart. Leave --region out, or group them."
        )
    return sorted(values)


def _write(
    sources: list[Source],
    out: Path,
    features: list[Feature],
    label: str,
    positive: str,
    region: str | None,
    strata: list[str],
) -> None:
    columns = [feature["name"] for feature in features]
    total = sum(len(source.rows) for source in sources)
    every = max(KEEP_EVERY, -(-total // HOLDOUT_MAX))
    order = [*columns, *([region] if region else []), label]
    held: list[list[str]] = []
    sites, taken = [], set()
    for source in sources:
        at = [source.header.index(name) for name in order]
        rows = [[row[index] for index in at] for row in source.rows]
        held += rows[every - 1 :: every]
        kept = [row for number, row in enumerate(rows, start=1) if number % every]
        slug = _slug(source.path.stem, taken)
        _site(out / slug, source.path.stem, "custodian", order, kept, label, region)
        sites.append({"slug": slug, "name": source.path.stem, "role": "custodian"})
    patients, held = _patients(held, columns)
    count = max(1, min(len(VALIDATORS), len(held) // (2 * MIN_HOLDOUT_ROWS)))
    if len(held) < MIN_HOLDOUT_ROWS:
        raise DataError(
            f"{total} rows in all are too few: the validators would hold {len(held)}, and need "
            f"{MIN_HOLDOUT_ROWS}."
        )
    # Sorted by region and label before they are dealt, so that every validator gets some of each.
    held.sort(key=lambda row: (row[len(columns) : -1], data.plain(row[-1])))
    for number, name in enumerate(VALIDATORS[:count]):
        slug = f"validator-{name.lower()}"
        rows = held[number::count]
        _site(out / slug, f"Validator {name}", "validator", order, rows, label, region)
        sites.append({"slug": slug, "name": f"Validator {name}", "role": "validator"})
    buyers = []
    for number, slug in enumerate(BUYERS):
        _csv(out / slug, "patients.csv", columns, patients[number :: len(BUYERS)])
        buyers.append({"slug": slug, "name": slug.replace("-", " ").title()})
    description = {
        "sites": sites,
        "buyers": buyers,
        "label": label,
        "positive": positive,
        "strata": {"column": region, "values": strata} if strata else None,
        "columns": columns,
        "features": features,
    }
    (out / "sites.json").write_text(json.dumps(description, indent=1), encoding="utf-8")


def _patients(held: list[list[str]], columns: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """A twentieth of the held-out rows without gaps, at most 20, as (patients, the others)."""
    complete = [
        index
        for index, row in enumerate(held)
        if all(cell.strip().lower() not in data.MISSING for cell in row[: len(columns)])
    ]
    wanted = min(len(BUYERS) * PATIENTS_PER_BUYER, max(len(BUYERS), len(held) // 10))
    step = max(1, len(complete) // wanted)
    asked = set(complete[::step][:wanted])
    if len(asked) < len(BUYERS):
        raise DataError("Too few rows without missing cells: the buyers have nothing to ask about.")
    patients = [held[index][: len(columns)] for index in sorted(asked)]
    return patients, [row for index, row in enumerate(held) if index not in asked]


def _site(
    home: Path,
    name: str,
    role: str,
    order: list[str],
    rows: list[list[str]],
    label: str,
    region: str | None,
) -> None:
    _csv(home, "rows.csv", order, rows)
    config = [
        f"name = {json.dumps(name)}",
        f'role = "{role}"',
        'data = "rows.csv"',
        f"label = {json.dumps(label)}",
    ]
    if region:
        config.append(f"strata = {json.dumps(region)}")
    if role == "custodian":
        config += ["", "[train]", f"C = {TRAIN_C}"]
    (home / "agent.toml").write_text("\n".join(config) + "\n", encoding="utf-8")


def _csv(home: Path, name: str, header: list[str], rows: list[list[str]]) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _slug(stem: str, taken: set[str]) -> str:
    base = "site-" + (re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40] or "file")
    base = base.removeprefix("site-") if base.startswith("site-site-") else base
    slug, number = base, 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    taken.add(slug)
    return slug


def main(argv: list[str] | None = None) -> int:
    """`python -m workers.demo.userdata DIR --label L [--region R]`: are these files fit? 0 or 2."""
    parser = argparse.ArgumentParser(prog="python -m workers.demo.userdata")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label", required=True)
    parser.add_argument("--region")
    options = parser.parse_args(argv)
    try:
        _checked(options.folder, label=options.label, region=options.region)
    except DataError as error:
        print(error.text, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
