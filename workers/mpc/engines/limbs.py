"""Matrix products mod 2^64, by float64 BLAS where that is faster.

A word is three limbs of 22 bits: w = l_0 + l_1·2^22 + l_2·2^44 (the last one of 20 bits). A product
of two limbs is under 2^44, so that sums over 512 of them are exact in a float64; limbs i + j > 2
fall out of the word. Six small products of BLAS against one of numpy's own loops: from some 64
rows and columns on that wins, twice over where all three sides are long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Word = npt.NDArray[np.uint64]

LIMB_BITS = 22
LIMBS = 3
INNER_MAX = 512
SIDE_MIN = 64
PRODUCTS_MIN = 1 << 20


def matmul(a: Any, b: Any) -> Any:
    """a @ b; of words, mod 2^64."""
    if a.ndim != 2 or b.ndim != 2 or a.dtype != np.uint64:
        return a @ b
    (rows, inner), columns = a.shape, b.shape[1]
    if min(rows, columns, inner) < SIDE_MIN or rows * inner * columns < PRODUCTS_MIN:
        return a @ b
    return matmul_by_limbs(a, b)


def matmul_by_limbs(a: Word, b: Word) -> Word:
    total = np.zeros((a.shape[0], b.shape[1]), np.uint64)
    for at in range(0, a.shape[1], INNER_MAX):
        left, right = _limbs(a[:, at : at + INNER_MAX]), _limbs(b[at : at + INNER_MAX])
        for i in range(LIMBS):
            for j in range(LIMBS - i):
                part = (left[i] @ right[j]).astype(np.uint64)
                total += part << np.uint64(LIMB_BITS * (i + j))
    return total


def _limbs(words: Word) -> list[npt.NDArray[np.float64]]:
    low = np.uint64((1 << LIMB_BITS) - 1)
    return [((words >> np.uint64(LIMB_BITS * i)) & low).astype(np.float64) for i in range(LIMBS)]
