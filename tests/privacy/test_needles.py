"""The search that the privacy tests rely on finds what it should, and nothing by chance."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from tests.support.needles import Needles

ROW = [14.25, 21.72, 93.63, 633.0, 0.09823]
UPDATE = np.array([20571, -17682, 20024, 18105]) / 2**16
ANSWER = 0.7310585786300049


@pytest.fixture
def needles() -> Needles:
    made = Needles()
    made.vector("row", ROW)
    made.vector("update", UPDATE)
    made.number("answer", ANSWER)
    return made


def words(values, f: int) -> bytes:
    return np.round(np.array(values) * 2.0**f).astype("<i8").tobytes()


PLANTED = {
    "csv": (b"14.25,21.72,93.63,633.0", "row"),
    "log line": (b"2026-11-23 11:10:58,123 INFO got [21.72, 93.63, 633.0] here", "row"),
    "json": (json.dumps({"update": UPDATE.tolist()}).encode(), "update"),
    "one a line": (b'"a": 14.25,\n"b": 21.72,\n"c": 93.630,', "row"),
    "escaped": (json.dumps({"body": "14.25\n21.72\n93.63\n"}).encode(), "row"),
    "integers": (b"[20571, -17682, 20024]", "update"),
    "words": (b"xyz" + words(UPDATE, 16), "update"),
    "other words": (words(ROW, 20) + b"!", "row"),
    "floats": (b"#" * 5 + np.array(ROW).tobytes(), "row"),
    "base64": (b'{"x":"' + base64.b64encode(b"ab" + words(ROW, 16)) + b'"}', "row"),
    "hex": (b"\\x" + words(UPDATE, 16).hex().encode(), "update"),
    "answer": (b'{"p": 0.7310585786300049}', "answer"),
    "answer in nine digits": (b"p=0.731058579 for you", "answer"),
    "answer as float": (b"??" + np.array([ANSWER]).tobytes(), "answer"),
}


@pytest.mark.parametrize("where", PLANTED)
def test_the_search_finds_what_was_planted(needles: Needles, where: str) -> None:
    data, name = PLANTED[where]
    assert needles.found_in(data) == {name}


def test_chance_finds_nothing(needles: Needles) -> None:
    numbers = np.random.default_rng(1).normal(size=20_000)
    assert not needles.found_in(json.dumps(numbers.round(4).tolist()).encode())
    assert not needles.found_in(numbers.tobytes())
    assert not needles.found_in(b"14.25 euro, 21.72 euro; 0.73; 20571 rows")
