"""Tables in and out: what is taken of them, what is refused, and how answers are named."""

import numpy as np
import pandas
import pytest

from workers.client.buyer import Answers
from workers.client.data import DataError
from workers.client.tables import columns_of, features_of

COLUMNS = ("age", "weight")


def test_a_frame_gives_its_columns_by_name_and_keeps_the_others():
    frame = pandas.DataFrame({"name": ["a", "b"], "weight": [70, 81.5], "age": [33, 54]})
    assert features_of(frame, COLUMNS).tolist() == [[33, 70], [54, 81.5]]
    assert features_of(frame[["age", "weight"]].to_numpy(), COLUMNS).tolist()[1] == [54, 81.5]
    assert features_of([(1, 2)], COLUMNS).tolist() == [[1, 2]]


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
        features_of(table, COLUMNS)


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
