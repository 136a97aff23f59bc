"""A wrong file gives a message that names file, row and column; a right one gives clean rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from apps.protocol.circuits import CLASSES
from workers.client import data, training
from workers.client.columns import described

SCHEMA = data.Schema(
    features=({"name": "age", "min": 0, "max": 120}, {"name": "dose"}),
    label="ill",
    positive="1",
    strata_column="region",
    strata_values=("north", "south"),
)
GOOD = "age,dose,region,ill\n40,1,north,1\n50,2,south,0\n60,,north,1\n30,4,south,0\n"


def read(tmp_path: Path, text: str, **options: object) -> data.Table:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return data.read_table(path, SCHEMA, **({"min_rows": 2} | options))


def test_missing_cells_take_their_column_mean(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert table.features[2].tolist() == [60.0, pytest.approx(7 / 3)]
    assert table.labels.tolist() == [1, 0, 1, 0]
    assert table.missing == 1


def test_values_outside_the_plausible_range_are_moved_to_its_edge(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD.replace("60,", "600,"))
    assert table.features[2, 0] == 120.0
    assert table.clamped == 1


def other(model_class: str, **label: object) -> data.Schema:
    spec = {
        "model_class": model_class,
        "features": [{"name": "age"}, {"name": "dose"}],
        "label": {"name": "ill", **label},
    }
    return data.Schema.of_spec(spec)


def rows_of(model_class: str, cells: Sequence[str]) -> str:
    head = "age,dose,ill" + ",dead" * (model_class == "cox")
    return f"{head}\n" + "".join(f"4{i},{i},{c}\n" for i, c in enumerate(cells))


@pytest.mark.parametrize(
    ("model_class", "label", "cells", "labels", "clamped"),
    [
        ("multinomial", {"classes": ["a", "1", "c"]}, ("a", "1.0", "a"), [0, 1, 0], 0),
        ("linear", {"min": "-10", "max": "30"}, ("-2.5", "7", "1e9"), [-2.5, 7, 30], 1),
        ("linear", {"min": "1", "max": "5"}, ("1.75", "2.7", "1e9"), [1.75, 2.7, 5], 1),
        ("poisson", {"min": "0", "max": "50"}, ("0", "3", "70"), [0, 3, 50], 1),
        # who was watched beyond the longest time had no event within it
        (
            "cox",
            {"event": "dead", "occurred": "yes", "max": "50"},
            ("70,yes", "3,no", "3,yes"),
            [[50, 0], [3, 0], [3, 1]],
            0,
        ),
    ],
)
def test_labels_of_other_classes(tmp_path: Path, model_class, label, cells, labels, clamped):
    path = tmp_path / "rows.csv"
    path.write_text(rows_of(model_class, cells))
    table = data.read_table(path, other(model_class, **label), min_rows=2)
    assert table.labels.tolist() == labels and table.clamped == clamped
    about = {"name": "ill", **label}
    columns = training.target_columns(table.labels, CLASSES[model_class], about)
    if model_class == "multinomial":
        assert columns.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    elif model_class == "linear":  # the range becomes ±2
        assert np.allclose(columns[:, 0], [-1.25, -0.3, 2.0])
    elif model_class == "cox":  # the longest time becomes 2
        assert np.allclose(columns, [[2, 0], [0.12, 0], [0.12, 1]])
        # who was watched until the event was still at risk of it
        assert data.row_order(table.labels, None).tolist() == [2, 1, 0]
        assert table.notes == ("1 rows end at 50, before their time.",)
    else:
        assert columns[:, 0].tolist() == labels


@pytest.mark.parametrize(
    ("model_class", "label", "cells", "said"),
    [
        ("multinomial", {"classes": ["a", "b"]}, "ac", "row 3: “c” is no class of “ill”"),
        ("multinomial", {"classes": ["a", "b"]}, "aa", "two classes are needed"),
        ("multinomial", {"classes": ["a", "b"]}, ("a", ""), "the label “ill” is missing"),
        ("linear", {"min": "0", "max": "9"}, ("1", "much"), "row 3: the label “much” is not a"),
        ("linear", {"min": "0", "max": "9"}, ("1", "inf"), "“inf” is not a number"),
        ("linear", {"min": "0", "max": "9"}, "77", "it must vary"),
        ("poisson", {"min": "0", "max": "9"}, ("1", "2.5"), "“2.5” is not a count"),
        ("poisson", {"min": "0", "max": "9"}, ("1", "-1"), "“-1” is not a count"),
        ("cox", {"event": "dead", "max": "9"}, ("1,0", "-1,1"), "“-1” is no time"),
        ("cox", {"event": "dead", "max": "9"}, ("1,0", "1,"), "row 3: “dead” is missing"),
        ("cox", {"event": "dead", "max": "9"}, ("1,0", "2,0"), "must be “1” in some rows"),
        ("cox", {"event": "dead", "max": "9"}, ("1,0", "12,1"), "must be “1” in some rows"),
        ("cox", {"event": "dead", "max": "9"}, ("1,0", "2,1", "3,2"), "has 3 different values"),
    ],
)
def test_a_label_that_does_not_fit_its_class_is_named(tmp_path, model_class, label, cells, said):
    path = tmp_path / "rows.csv"
    path.write_text(rows_of(model_class, cells))
    with pytest.raises(data.DataError, match=re.escape(said)):
        data.read_table(path, other(model_class, **label), min_rows=2)


def test_own_weights_of_several_classes_come_one_row_each(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text("age,intercept,dose\n1,2,3\n4,5,6\n")
    assert data.read_weights(path, ("age", "dose"), 2).tolist() == [1, 3, 2, 4, 6, 5]
    with pytest.raises(data.DataError, match="must have 3 rows of weights, not 2"):
        data.read_weights(path, ("age", "dose"), 3)


def test_columns_may_come_in_any_order_with_others_beside_them(tmp_path: Path) -> None:
    table = read(tmp_path, "name,ill,dose,age\nx,1.0,1,40\ny,0,2,50\n")
    assert table.features.tolist() == [[40, 1], [50, 2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("1,2,3\n4,5,6\n", "no header"),
        ("age,age,ill\n1,2,1\n", "twice"),
        ("age,ill\n40,1\n50,0\n", "lacks the columns “dose”"),
        ("age,doze,ill\n40,1,1\n50,1,0\n", "“doze”"),
        ("age,dose\n40,1\n50,2\n", "no label column “ill”"),
        ("age,dose,ill\n40,1,1\n", "1 rows; at least 2"),
        ("age,dose,ill\n40,1,1\n50,2,1\n", "both classes"),
        ("age,dose,ill\n40,1,1\n50,2,\n", "row 3: the label “ill” is missing"),
        ("age,dose,ill\n40,1,1\n50,2,0\n60,1,2\n", "3 different values"),
        ("age,dose,ill\n40,1,1\nold,2,0\n", "row 3, column “age”: “old” is not a number"),
        ("age,dose,ill\n40,,1\n50,,0\n", "“dose” has no value"),
        ("age,dose,ill\n40,1,1\n50,2\n", "row 3: 2 cells"),
        (GOOD.replace("south", "west"), "row 3: “west” is no value of “region”"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(data.DataError, match=said.replace("(", r"\(")) as caught:
        read(tmp_path, text)
    if text:
        assert "rows.csv" in caught.value.text


def test_a_file_that_is_no_text_or_not_there_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(data.DataError, match="no file"):
        data.read_table(path, SCHEMA)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(data.DataError, match="not a CSV file"):
        data.read_table(path, SCHEMA)


def test_sums_that_would_overflow_name_their_column(tmp_path: Path) -> None:
    table = read(tmp_path, "age,dose,ill\n40,1e7,1\n50,2,0\n")
    with pytest.raises(data.DataError, match="column “dose”"):
        training.moments(table, f=20, sites=6)


def test_the_two_halves_of_a_holdout_are_alike() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 101)
    strata = np.array(["north", "south", "east"], dtype=object)[rng.integers(0, 3, 101)]
    order = data.row_order(labels, strata)
    assert sorted(order) == list(range(101))
    for name in set(strata):
        for label in (0, 1):
            there = (strata[order] == name) & (labels[order] == label)
            assert abs(int(there[::2].sum()) - int(there[1::2].sum())) <= 1


def test_weights_of_the_sites_own_tooling_are_read_in_schema_order(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text("dose,intercept,age\n2,3,1\n")
    assert data.read_weights(path, ["age", "dose"]).tolist() == [1, 2, 3]
    path.write_text("dose,age\n2,1\n")
    with pytest.raises(data.DataError, match="“intercept”"):
        data.read_weights(path, ["age", "dose"])


@pytest.mark.parametrize("wild", [1e9, 1.7e308, -1.7e308])
def test_one_wild_cell_does_not_fill_the_gaps(tmp_path: Path, wild: float) -> None:
    """A hundred weights around 70 kg, every tenth missing, one of them a typing error."""
    weights = [65 + i % 11 for i in range(100)]
    cells = ["" if i % 10 == 3 else str(w) for i, w in enumerate(weights)]
    cells[50] = repr(wild)
    lines = [f"40,{cell},north,{i % 2}" for i, cell in enumerate(cells)]
    table = read(tmp_path, "age,dose,region,ill\n" + "\n".join(lines) + "\n")
    known = [w for i, w in enumerate(weights) if i % 10 != 3 and i != 50]
    low, high = min(known) - 100 * 11, max(known) + 100 * 11
    assert table.missing == 10 and low < table.features[50, 1] < high
    gaps = table.features[3::10, 1]
    assert np.ptp(gaps) == 0 and abs(gaps[0] - 70) < 10
    assert [note for note in table.notes if "dose" in note] == [
        f"“dose”: 1 values far outside all others were moved to {table.features[50, 1]:.6g}. "
        "Give the request a plausible range."
    ]


def test_cells_of_any_size_stay_finite(tmp_path: Path) -> None:
    huge = GOOD.replace(",1,", ",1.7e308,").replace(",2,", ",-1.7e308,").replace(",4,", ",1.6e308,")
    table = read(tmp_path, huge)
    assert np.isfinite(table.features).all() and table.features[2, 1] == pytest.approx(1.6e308 / 3)
    with pytest.raises(data.DataError, match="“dose”: its numbers are too large"):
        training.moments(table, f=16, sites=3)
    assert np.abs(training.standardise(table.features, [0, 0], [1e-6, 1e-6])).max() == 16


def test_rows_are_drawn_alike_by_the_same_seed_only(tmp_path: Path) -> None:
    lines = [f"{30 + i},{i},{'north' if i % 3 else 'south'},{i % 2}" for i in range(9)]
    table = read(tmp_path, "age,dose,region,ill\n" + "\n".join(lines) + "\n")
    one, again = (table.drawn(3, b"a" * 32) for _ in range(2))
    assert one.rows == 3 and np.array_equal(one.features, again.features)
    whole = list(zip(table.features.tolist(), table.labels, table.strata))
    part = list(zip(one.features.tolist(), one.labels, one.strata))
    assert [row for row in whole if row in part] == part
    drawn = {tuple(table.drawn(3, bytes([i]) * 32).features[:, 0]) for i in range(8)}
    assert len(drawn) > 1


MIXED = data.Schema.of_spec(
    {
        "model_class": "logistic",
        "features": [
            {"name": "stage", "type": "category", "levels": ["I", "II", "none"]},
            {"name": "age"},
            {"name": "smoker", "type": "boolean"},
        ],
        "label": {"name": "ill", "positive": "1"},
    }
)
WORDS = "age,smoker,stage,ill\n40,TRUE,II,1\n50,no,I,0\n60,,none,1\n30,0,,0\n"


def mixed(tmp_path: Path, text: str) -> data.Table:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return data.read_table(path, MIXED, min_rows=2)


def test_levels_become_columns_after_the_numbers(tmp_path: Path) -> None:
    """A level may be called as missing cells are; these take what part of the rows has a level."""
    table = mixed(tmp_path, WORDS)
    assert table.columns == ("stage", "age", "smoker") and table.numbers == ("age",)
    third = pytest.approx(1 / 3)
    assert table.features[:3].tolist() == [[40, 1, 0, 1], [50, 0, 0, 0], [60, 0, 1, third]]
    assert table.features[3].tolist() == [30, third, third, 0] and table.missing == 2
    sums = training.moments(table, f=20, sites=3, limits=[1 << 41])
    assert sums.tolist() == [4, 180, 8600]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "II,1",
            "IV,1",
            "row 2, column “stage”: “IV” is none of its levels, which are “I”, “II”, ",
        ),
        ("TRUE", "maybe", "row 2, column “smoker”: “maybe” is none of its levels.* “no”, “yes”"),
        ("II,1", "ii,1", "“ii” is none of its levels"),
        ("40,", "I,", "row 2, column “age”: “I” is not a number"),
    ],
)
def test_a_cell_of_no_level_is_named_with_the_levels(tmp_path: Path, old, new, said) -> None:
    with pytest.raises(data.DataError, match=said):
        mixed(tmp_path, WORDS.replace(old, new))


def test_a_category_without_a_value_or_with_one_alone_is_said(tmp_path: Path) -> None:
    empty = WORDS.replace("TRUE", "").replace("no,", ",").replace("30,0", "30,")
    with pytest.raises(data.DataError, match="column “smoker” has no value in any row"):
        mixed(tmp_path, empty)
    same = WORDS.replace("II,", "I,").replace("none", "I")
    assert "“stage” has the same value in every row" in mixed(tmp_path, same).notes[0]


def test_columns_of_words_are_described_as_categories() -> None:
    ages = ["40", "", "6x", "30"]
    columns = {"age": ages, "smoker": ["Yes", "no", "", "NO"], "stage": ["II", "I", "?", "2.0"]}
    assert described(columns) == [
        {"name": "age"},
        {"name": "smoker", "type": "boolean"},
        {"name": "stage", "type": "category", "levels": ["2", "I", "II"]},
    ]
    with pytest.raises(data.DataError, match=r"“note” has 51 different values.*2 to 50 levels"):
        described({"note": [f"note {number}" for number in range(51)]})
    with pytest.raises(data.DataError, match=r"“test”, levels\[0\]: Must not begin with"):
        described({"test": ["+", "-", "-"]})
    with pytest.raises(data.DataError, match=r"“note”, levels\[1\]: .*80"):
        described({"note": ["short", "x" * 81]})
    wide = [f"level {number}" for number in range(50)]
    with pytest.raises(data.DataError, match="245 feature columns"):
        described({f"f{number}": wide for number in range(5)})
