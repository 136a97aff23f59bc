"""What all model classes share: limits, formats, and rows with a 1 for the intercept."""

from __future__ import annotations

from typing import Any

import numpy as np

FEATURES_MAX = 1000
FEATURE_LIMIT = 16
WEIGHT_LIMIT = 64
MODEL_F = 24
# What a model's words stay within: weights that are clipped on shares may be longer by 2^−7.
CLIPPED_BOUND = (WEIGHT_LIMIT << MODEL_F) + (WEIGHT_LIMIT << MODEL_F - 7)
MODEL_BOUND = (WEIGHT_LIMIT + 1) << MODEL_F
INPUT_F = 16
SCORE_F = 20


def with_intercept(ops: Any, rows: Any) -> Any:
    """[x, 1]: the last weight of each output is its intercept."""
    ones = np.full((rows.shape[0], 1), 1 << rows.f, dtype=np.int64)
    return ops.concat([rows, ops.public(ones, rows.f)], axis=1)
