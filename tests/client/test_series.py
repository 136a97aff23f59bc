"""A site's series becomes rows of lags: on a grid, nothing filled in, nothing from the future."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.least_squares import factor_of
from apps.protocol.rfm_spec import check_spec
from apps.protocol.series import moment
from tests.support.market import SPEC
from workers.client import data, training

SERIES = {"time": "day", "step": "day", "lags": 2, "season": 4, "split": "2024-01-09"}


def spec(**changes: Any) -> dict[str, Any]:
    """A checked request; `changes` of how its series lies in time, None takes a field away."""
    series = {k: v for k, v in (SERIES | changes).items() if v is not None}
    label = {"name": "load", "min": "0", "max": "100", "series": series}
    raw = {k: v for k, v in SPEC.items() if k not in ("features", "standard", "strata", "gates")}
    return check_spec(raw | {"model_class": "forecaster", "label": label})


def days(count: int) -> list[str]:
    return [str(date(2024, 1, 1) + timedelta(days=place)) for place in range(count)]


def read(path: Path, lines: list[str], *, holdout: bool = False, **changes: Any) -> data.Table:
    path.write_text("\n".join(lines) + "\n")
    wanted = data.Schema.of_spec(spec(**changes))
    return data.read_table(path, wanted, min_rows=2, holdout=holdout)


def test_each_row_has_its_lags_and_the_split_divides_them(tmp_path: Path) -> None:
    values = [float(place**2 % 23) for place in range(12)]
    lines = ["load,day", *(f"{v},{d}" for v, d in zip(values, days(12)))]
    lines[1:] = lines[:0:-1]  # in whatever order they stand
    for holdout, places in ((False, range(4, 8)), (True, range(8, 12))):
        table = read(tmp_path / "rows.csv", lines, holdout=holdout)
        assert table.columns == ("t-1", "t-2", "t-4")
        wanted = [[values[at - lag] for lag in (1, 2, 4)] for at in places]
        assert table.features.tolist() == wanted
        # the naive forecast is the value a season before
        assert table.labels.tolist() == [[values[at], values[at - 4]] for at in places]
    assert read(tmp_path / "rows.csv", lines, season=None).labels[0].tolist() == [4.0, 1.0]


def test_a_later_value_changes_no_earlier_row(tmp_path: Path) -> None:
    """A custodian's rows are the same whatever comes from the split on."""
    rng = np.random.default_rng(0)
    lines = ["day,load", *(f"{d},{v:.3f}" for d, v in zip(days(20), rng.uniform(0, 99, 20)))]
    before = read(tmp_path / "rows.csv", lines)
    changed = [*lines[:9], *(f"{line.partition(',')[0]},{i}" for i, line in enumerate(lines[9:]))]
    after = read(tmp_path / "rows.csv", changed)
    assert np.array_equal(before.features, after.features)
    assert np.array_equal(before.labels, after.labels)


def test_rows_beside_a_gap_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = ["day,load", *(f"{d},{place}" for place, d in enumerate(days(14)))]
    lines[6] = lines[6].partition(",")[0] + ",NA"  # day 5
    del lines[2]  # day 1
    table = read(tmp_path / "rows.csv", lines, season=None, split="2024-02-01")
    # neither days 0 to 3 have two values before them, nor 5, 6 and 7
    assert table.labels[:, 0].tolist() == [4, 8, 9, 10, 11, 12, 13]
    assert table.missing == 0 and "6 of 13 values" in table.notes[0]
    assert "nothing is filled in" in table.notes[0]


def test_several_series_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    lines = ["ward,day,load"]
    for place, day in enumerate(days(6)):
        lines += [f"a,{day},{place}", f"b,{day},{50 + place}"]
    lines.append("b,2024-01-07,200")  # beyond the range
    table = read(tmp_path / "rows.csv", lines, id="ward", season=None, split="2024-02-01")
    assert np.array_equal(table.features[:, 0] - table.features[:, 1], np.ones(table.rows))
    assert table.rows == 9 and table.clamped == 1 and table.labels[-1, 0] == 100
    # in the order of time, whichever series a row is of
    assert table.labels[:4, 0].tolist() == [2, 52, 3, 53]


def test_half_days_of_a_series_of_days_are_refused(tmp_path: Path) -> None:
    lines = ["day,load", "2024-01-01,1", "2024-01-02T12:00,2"]
    with pytest.raises(data.DataError, match=r"row 3: the time 2024-01-02T12:00 is no whole"):
        read(tmp_path / "rows.csv", lines)


@pytest.mark.parametrize(
    ("lines", "changes", "said"),
    [
        (["day,load", "2024-01-01,1", "2024-01-01,2"], {}, "row 3: the time 2024-01-01 stands tw"),
        (["day,load", "2024-01-01,1", "monday,2"], {}, "row 3, column “day”: “monday”: it must be"),
        (["day,load", "1,1", "1.5,2"], {"step": "number", "split": 3}, "“1.5”: it must be a whole"),
        (["day,load", "2024-01-01,much"], {}, "column “load”: “much” is not a number"),
        (["day,load,ward", "2024-01-01,1,"], {"id": "ward"}, "row 2: “ward” is missing"),
        (["day,load", "0001-01-01T00:00:00+14:00,1"], {}, "column “day”: “0001-01-01T00:00:00"),
        (
            ["load,day", "1,9999-12-31T23:00:00-14:00"],
            {"step": "hour"},
            "it must be a date or time",
        ),
        (["load", "1"], {}, "lacks the columns “day”"),
        (["day,load"], {}, "rows.csv has no rows"),
        (["day,load", *(f"{d},{d[-2:]}" for d in days(5))], {}, "too short a series. 4 of 5"),
        (["day,load", *(f"{d},7" for d in days(9))], {}, "every “load” that is used is 7"),
    ],
)
def test_what_is_no_regular_series_is_named(tmp_path, lines, changes, said) -> None:
    with pytest.raises(data.DataError, match=re.escape(said)):
        read(tmp_path / "rows.csv", lines, **changes)


@pytest.mark.parametrize(
    ("times", "step", "apart"),
    [
        (("2024-01-31", "2024-02-29"), "month", 1),
        (("2023-12", "2024-03"), "quarter", 3),
        (("2023", "2024-06-30"), "year", 12),
        (("2024-03-31T00:00+01:00", "2024-03-31T01:00Z"), "hour", 7200),
        (("2024-01-01", "2024-01-08 00:00:00"), "week", 604_800),
        (("-3", "4.0"), "number", 7),
    ],
)
def test_times_are_whole_numbers_of_their_step(times, step, apart) -> None:
    first, last = (moment(time, step) for time in times)
    assert last - first == apart


def test_targets_are_on_the_labels_scale_and_sums_are_of_the_values(tmp_path: Path) -> None:
    lines = ["day,load", *(f"{d},{place * 7 % 50}" for place, d in enumerate(days(40)))]
    table = read(tmp_path / "rows.csv", lines, split="2024-03-01")
    about, model = spec()["label"], CLASSES["forecaster"]
    columns = training.target_columns(table.labels, model, about)
    assert np.array_equal(columns, (table.labels - 50) / 25)
    update = training.train(table.features / 50, table.labels, c=1.0, model=model, label=about)
    assert np.array_equal(update, factor_of(table.features / 50, columns[:, 0]))


def test_the_earlier_half_of_a_holdout_scores_and_the_later_one_is_evidence() -> None:
    for rows in (7, 8):
        order = data.row_order(np.zeros((rows, 2)), None, by_time=True)
        scoring, proving = order[0::2], order[1::2]
        assert sorted(order) == list(range(rows)) and scoring.max() < proving.min()
