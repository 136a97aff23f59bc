"""Tables in and out: what is taken of them, what is refused, and how answers are named."""

import numpy as np
import pandas
import pytest

from workers.client.buyer import Answers
from workers.client.data import DataError
from workers.client.questions import named, rows_of, table_of
from workers.client.tables import columns_of

COLUMNS = ("age", "weight")


def test_a_frame_gives_its_columns_by_name_and_keeps_the_others():
    frame = pandas.DataFrame({"name": ["a", "b"], "weight": [70, 81.5], "age": [33, 54]})
    assert table_of(frame, COLUMNS).tolist() == [[33, 70], [54, 81.5]]
    assert table_of(frame[["age", "weight"]].to_numpy(), COLUMNS).tolist()[1] == [54, 81.5]
    assert table_of([(1, 2)], COLUMNS).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pandas.DataFrame({"age": [1]}), "lacks the columns “weight”"),
        (pandas.DataFrame([[1, 2, 3]], columns=["age", "age", "weight"]), "two columns of one"),
        (pandas.DataFrame({"age": ["old"], "weight": [1]}), "Column “age” holds what is no number"),
        (
            pandas.DataFrame({"age": pandas.array([1, None], dtype="Int64"), "weight": [1, 2]}),
            "Row 2, column “age” is missing",
        ),
        ([[1 + 2j, 1]], "no number"),
        (pandas.DataFrame({"age": [1, None], "weight": [1, 2]}), "Row 2, column “age” is missing"),
        ([[1, 2], [3, np.inf]], "Row 2, column “weight” is missing or not finite"),
        ([[1, 2], [3]], "unlike length"),
        ([[1, 2, 3]], "rows of 2 values"),
        ([1, 2], "rows of 2 values"),
        ([], "rows of 2 values"),
    ],
)
def test_what_is_no_table_of_the_models_numbers_is_refused_by_name(table, said):
    with pytest.raises(DataError, match=said):
        table_of(table, COLUMNS)


MIXED = [
    {"name": "age", "type": "number"},
    {"name": "stage", "type": "category", "levels": ["I", "2", "III"]},
    {"name": "smoker", "type": "boolean"},
]


def test_levels_are_given_by_their_names_in_any_kind_of_table(tmp_path):
    rows = [[33.0, "2", "yes"], [54.0, "I", "no"]]
    places = [[33, 1, 1], [54, 0, 0]]
    frame = pandas.DataFrame(
        {"smoker": [True, False], "stage": pandas.Categorical([2, "I"]), "age": [33, 54]}
    )
    for given in (frame, rows, np.array(rows, object), [(33, 2, True), (54, "I", "NO")]):
        assert table_of(given, MIXED).tolist() == places
    assert named(table_of(frame, MIXED), MIXED) == rows
    (tmp_path / "rows.csv").write_text("name,smoker,stage,age\na,1,2.0,33\nb,false,I,54\n")
    assert rows_of(tmp_path / "rows.csv", MIXED) == rows


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            [[33, "IV", "yes"]],
            "Row 1, column “stage”: “IV” is none of its levels, which are “I”, “2”",
        ),
        ([[33, 3, "yes"]], "“3” is none of its levels"),  # a name, never a place
        ([["x", "2", "yes"]], "Row 1, column “age”: “x” is not a number"),
        ([33, "2", "yes"], "takes rows of 3 values each"),
        ([[33, None, "yes"]], "Row 1, column “stage” is missing"),
        (pandas.DataFrame({"age": [1], "stage": [None], "smoker": [True]}), "“stage” is missing"),
        ([["33", "I", "yes"], [True, "I", "yes"], [1j, "I", "yes"]], "no number"),
        ([[33, "I"]], "rows of 3 values"),
        ([[33, "I", "yes"], [33, "I"]], "rows of 3 values"),
    ],
)
def test_what_is_no_level_is_refused_by_name(table, said):
    with pytest.raises(DataError, match=said):
        table_of(table, MIXED)


@pytest.mark.parametrize(
    ("answers", "label", "columns"),
    [
        (Answers("label", ((1,), (0,)), labels=("M", "not M")), {"positive": "M"}, ["label"]),
        (Answers("rounded", ((0.9,), (0.1,))), {"positive": "M"}, ["probability"]),
        (
            Answers("logit", ((0.5,), (0.9,)), logits=(0.0, 2.2)),
            {"positive": "M"},
            ["probability", "logit"],
        ),
        (
            Answers("band", ((0.8, 1), (0, 0.2))),
            {"positive": "M"},
            ["probability_low", "probability_high"],
        ),
        (
            Answers("rounded", ((0.1, 0.9), (1, 0))),
            {"name": "kind", "classes": ["a", "b"]},
            ["probability_a", "probability_b"],
        ),
        (Answers("band", ((0, 10), (40, 50))), {"name": "days"}, ["days_low", "days_high"]),
    ],
)
def test_answers_are_columns_with_names(answers, label, columns):
    made = columns_of(answers, label)
    assert list(made) == columns
    assert [len(cells) for cells in made.values()] == [2] * len(columns)
    if "label" not in columns and "logit" not in columns:
        assert [*zip(*made.values(), strict=True)] == [tuple(row) for row in answers.answers]
