"""`demo --sites DIR`: the user's files are checked whole, and split without losing a row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from workers.client.data import DataError
from workers.demo import userdata


def write(folder: Path, name: str, header: str, rows: list[str]) -> None:
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(4):
        rows = [
            f"{number}.{i},{i * 7 % 13},{'yes' if i % 3 else 'no'},{'east' if i % 2 else 'west'}"
            for i in range(60)
        ]
        write(files, f"site {number}.csv", "a,b,ill,area", rows)
    return files


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_every_row_is_in_exactly_one_place(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    userdata.prepare(folder, out, label="ill", region="area")
    about = json.loads((out / "sites.json").read_text())
    assert about["positive"] == "yes"
    assert about["strata"] == {"column": "area", "values": ["east", "west"]}
    found = [row[:2] for path in out.glob("*/*.csv") for row in rows_of(path)]
    given = [row[:2] for path in folder.glob("*.csv") for row in rows_of(path)]
    assert sorted(found) == sorted(given)
    roles = [site["role"] for site in about["sites"]]
    assert roles.count("custodian") == 4
    assert roles.count("validator") >= 1


@pytest.mark.parametrize(
    ("name", "header", "rows", "said"),
    [
        ("site 2.csv", "a,c,ill,area", ["1,2,yes,east"] * 30, "lacks “b” and has “c”"),
        ("site 2.csv", "a,b,area", ["1,2,east"] * 30, "no column “ill”"),
        ("site 2.csv", "a,b,ill,area", ["1,x,yes,east"] * 30, "row 2, column “b”: “x”"),
        ("site 2.csv", "a,b,ill,area", ["1,2,maybe,east"] * 30, "3 different values"),
        ("site 2.csv", "a,b,ill,area", ["1,2,yes,east"] * 30, "both classes"),
        ("site 2.csv", "a,b,ill,area", ["1,2,,east"] * 30, "row 2: the label “ill” is missing"),
        ("site 2.csv", "a,b,ill,area", ["1,2,yes,"] * 30, "row 2: “area” is empty"),
        ("site 2.csv", "a,b,ill,area", ["1,2,yes,east", "1,2,no,west"], "2 rows; at least"),
        ("site 2.csv", "a,b,ill,area", ["1,2,yes"] * 30, "row 2: 3 cells"),
    ],
)
def test_what_is_wrong_is_named(
    folder: Path, tmp_path: Path, name: str, header: str, rows: list[str], said: str
) -> None:
    write(folder, name, header, rows)
    with pytest.raises(DataError) as caught:
        userdata.prepare(folder, tmp_path / "out", label="ill", region="area")
    assert said in caught.value.text
    assert not (tmp_path / "out").exists()


def test_too_few_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()
    with pytest.raises(DataError, match="2 CSV files; at least 3"):
        userdata.prepare(folder, tmp_path / "out", label="ill", region=None)
