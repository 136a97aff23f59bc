"""Categories: which level a cell says, and the columns that a model takes for a row (M-RFM1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.circuits import CIRCUITS
from apps.protocol.circuits.moments import limits_of
from apps.protocol.encoding import (
    NO_YES,
    alike,
    encode,
    encoded_names,
    levels_of,
    numbers_of,
    place_of,
    width,
)
from apps.protocol.normalise import public_constants
from workers.mpc.engines.plain import run_plain

AGE, DOSE = {"name": "age", "type": "number", "min": "0", "max": "120"}, {"name": "dose"}
STAGE = {"name": "stage", "type": "category", "levels": ["I", "II", "III"]}
SMOKER = {"name": "smoker", "type": "boolean"}
MIXED: list[dict[str, Any]] = [STAGE, AGE, SMOKER, DOSE]

levels = st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=6, unique_by=alike)
features = st.lists(
    st.one_of(
        st.just({"type": "number"}),
        st.just({"type": "boolean"}),
        levels.map(lambda names: {"type": "category", "levels": names}),
    ),
    min_size=1,
    max_size=6,
).map(lambda made: [{"name": f"f{i}", **f} for i, f in enumerate(made)])


def test_numbers_stand_first_and_a_level_but_the_first_has_a_column() -> None:
    assert width(MIXED) == 5 and [f["name"] for f in numbers_of(MIXED)] == ["age", "dose"]
    assert encoded_names(MIXED) == ["age", "dose", "stage=II", "stage=III", "smoker=yes"]
    rows = [[0, 40, 1, 2.5], [2, 50, 0, 7], [np.nan, 60, 1, 8]]
    made = encode(np.array(rows, float), MIXED)
    assert made[:2].tolist() == [[40, 2.5, 0, 0, 1], [50, 7, 0, 1, 0]]
    assert np.isnan(made[2, 2:4]).all() and made[2, [0, 1, 4]].tolist() == [60, 8, 1]
    numbers = np.array([[1.0, 2.0]])
    assert encode(numbers, [AGE, DOSE]) is not numbers  # and the same where nothing is encoded
    assert encode(numbers, [AGE, DOSE]).tolist() == numbers.tolist()


@given(features, st.data())
def test_what_a_row_says_can_be_read_from_its_encoded_columns(made: Any, draw: Any) -> None:
    """Round trip: no two rows of a schema have one encoding, and the width is what it says."""
    cells = [
        draw.draw(st.sampled_from(levels_of(f)) if levels_of(f) else st.integers(-9, 9))
        for f in made
    ]
    places = [
        place_of(levels_of(f), cell) if levels_of(f) else cell
        for f, cell in zip(made, cells, strict=True)
    ]
    encoded = encode(np.array([places], float), made)[0].tolist()
    assert len(encoded) == width(made) == len(encoded_names(made))
    told = dict(zip(encoded_names(made), encoded, strict=True))
    for f, cell in zip(made, cells, strict=True):
        if not (own := levels_of(f)):
            assert told[f["name"]] == cell
            continue
        said = [level for level in own[1:] if told[f"{f['name']}={level}"] == 1]
        assert (said or [own[0]]) == [cell]


@pytest.mark.parametrize(
    ("levels", "cell", "place"),
    [
        (("1", "2", "3+"), "2.0", 1),  # as a table with gaps writes a whole number
        (("1", "2", "3+"), " 3+ ", 2),
        (("1", "2", "01"), "01", 2),  # codes keep their zeros
        (("1.5", "1"), "1.5", 0),
        (("caf\u00e9", "tea"), "cafe\u0301", 0),
        (("male", "female"), "Male", None),
        (("male", "female"), "", None),
        (NO_YES, "TRUE", 1),
        (NO_YES, "1.0", 1),
        (NO_YES, "No", 0),
        (NO_YES, "0", 0),
        (NO_YES, "2", None),
        (("no", "yes", "unknown"), "1", None),  # no boolean
    ],
)
def test_a_cell_says_a_level_in_so_many_spellings(levels, cell, place) -> None:
    assert place_of(levels, cell) == place


def test_of_levels_no_sum_is_opened_and_their_constants_are_fixed() -> None:
    rows = np.array([[0, 30, 1, 2], [1, 50, 0, 4], [2, 70, 0, 9]], float)
    numbers = numbers_of(MIXED)
    params = {"features": len(numbers), "limits": limits_of(numbers)}
    shared = []
    for age, dose in encode(rows, MIXED)[:, :2]:
        shared.append(np.array([1, age, dose, age**2, dose**2]) * 2**20)
    words = [each.astype(np.int64) for each in shared]
    sums = run_plain(CIRCUITS["moments@1"], {"sums": words}, params).openings["sums"]
    assert [int(value) >> 20 for value in sums] == [3, 150, 15, 8300, 101]
    made = public_constants(sums, width(MIXED))
    assert made["mean"] == [50 << 20, 5 << 20, 0, 0, 0]
    assert made["std"][0] == 20 << 20 and made["std"][2:] == [1 << 20] * 3
    with pytest.raises(ValueError, match="fit"):
        public_constants(sums, 1)


def test_a_schema_without_numbers_opens_how_many_rows_there_are() -> None:
    only = [STAGE, SMOKER]
    words = [np.array([rows << 20]) for rows in (5, 7, 9)]
    sums = run_plain(CIRCUITS["moments@1"], {"sums": words}, {"features": 0}).openings["sums"]
    assert sums == [str(21 << 20)]
    assert public_constants(sums, width(only)) == {"f": 20, "mean": [0] * 3, "std": [1 << 20] * 3}
