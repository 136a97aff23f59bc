"""Columns with levels, and what a model takes for them. The twin of static/js/mpc/encoding.js.

A feature is a number, a `category` with a public list of levels, or a `boolean`: the category of
"no" and "yes". Rule (docs/adr/0036-categories.md), of a row of a schema:

    encoded = its numbers, in the schema's order; then, of each category in that order, a column for
              each level but the first: 1 where the row has that level, else 0

The columns of levels are not standardised: their mean is 0 and their deviation 1, whatever the
data, so that no sum of theirs is ever opened. The first level is the one that others are compared
with: all its columns are 0. Numbers stand first, so that the constants of a round are those of
their sums, and then as many zeros and ones as are left.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

NUMBER, CATEGORY, BOOLEAN = "number", "category", "boolean"
TYPES = (NUMBER, CATEGORY, BOOLEAN)
NO_YES = ("no", "yes")
LEVELS_MAX = 50
_SPELLINGS = {"false": 0, "0": 0, "true": 1, "1": 1}
_WHOLE = re.compile(r"(-?[0-9]+)\.0*")

Feature = Mapping[str, Any]


def levels_of(feature: Feature) -> tuple[str, ...]:
    """Its levels, in order; of a number none."""
    if feature.get("type") == BOOLEAN:
        return NO_YES
    return tuple(feature.get("levels") or ())


def numbers_of(features: Sequence[Feature]) -> list[Feature]:
    """Those that are numbers: a round opens the sums of these alone."""
    return [feature for feature in features if not levels_of(feature)]


def width(features: Sequence[Feature]) -> int:
    """How many columns a model takes for these features."""
    return sum(max(1, len(levels_of(feature)) - 1) for feature in features)


def encoded_names(features: Sequence[Feature]) -> list[str]:
    """The encoded columns by name, "stage=II" of a level: for a site that trains by itself."""
    return [f["name"] for f in numbers_of(features)] + [
        f"{f['name']}={level}" for f in features for level in levels_of(f)[1:]
    ]


def alike(text: str) -> str:
    """Texts of one level have one such form: "1.0", as tables write a whole number, is "1"."""
    text = unicodedata.normalize("NFC", text.strip())
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def place_of(levels: tuple[str, ...], text: str) -> int | None:
    """Which of the levels a cell says, or None. No and yes may be spelled as True, false, 1, 0."""
    form = alike(text)
    return _places(levels).get(form.lower() if levels == NO_YES else form)


@lru_cache(maxsize=256)
def _places(levels: tuple[str, ...]) -> Mapping[str, int]:
    found = {alike(level): place for place, level in enumerate(levels)}
    return MappingProxyType(found | (_SPELLINGS if levels == NO_YES else {}))


def encode(table: npt.NDArray[np.float64], features: Sequence[Feature]) -> npt.NDArray[np.float64]:
    """Encoded rows [n, width] of a table [n, c] in the schema's order: numbers as they are, and of
    a category the place of the row's level. What is missing (NaN) is so in all its columns."""
    each = [levels_of(feature) for feature in features]
    parts = [table[:, [j for j, levels in enumerate(each) if not levels]]]
    for j, levels in enumerate(each):
        if levels:
            places = table[:, [j]]
            columns = (places == np.arange(1, len(levels))).astype(float)
            parts.append(np.where(np.isnan(places), np.nan, columns))
    return np.concatenate(parts, axis=1)
