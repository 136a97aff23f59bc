"""Columns as a request describes them, told from their cells.

A column most of whose cells are no numbers is a category of what they say, a boolean where that is
yes and no; a few that are none among numbers are typing errors, which whoever reads the rows finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.encoding import BOOLEAN, CATEGORY, LEVELS_MAX, NO_YES, alike, place_of, width
from apps.protocol.rfm_spec import FEATURES_MAX, SpecError, check_features
from workers.client.errors import DataError, is_number
from workers.client.series import MISSING


def described(columns: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The features of a request whose columns, by name, have these cells. Raises: DataError."""
    features = [_feature(name, cells) for name, cells in columns.items()]
    if (wide := width(features)) > FEATURES_MAX:
        raise DataError(
            f"{wide} feature columns, one for each level but the first of a category; a request "
            f"has {FEATURES_MAX} at most."
        )
    for feature in features:
        try:
            check_features([feature])
        except SpecError as error:
            part = error.field.rpartition(".")[2]
            raise DataError(
                f"The column “{feature['name']}”, {part}: {error.text} Leave it out, or rename it."
            ) from None
    return features


def _feature(name: str, cells: Sequence[str]) -> dict[str, Any]:
    known = [cell for cell in map(str.strip, cells) if cell.lower() not in MISSING]
    if 2 * sum(map(is_number, known)) >= len(known):
        return {"name": name}
    levels = sorted({alike(cell) for cell in known})
    if all(place_of(NO_YES, level) is not None for level in levels):
        return {"name": name, "type": BOOLEAN}
    if not 2 <= len(levels) <= LEVELS_MAX:
        raise DataError(
            f"The column “{name}” has {len(levels)} different values; a category has 2 to "
            f"{LEVELS_MAX} levels. Leave it out, or group them."
        )
    return {"name": name, "type": CATEGORY, "levels": levels}
