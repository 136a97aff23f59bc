"""Fixed point on 64-bit words: round(x · 2^f) in two's complement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.mpc.engines.base import Word


def encode(values: npt.ArrayLike, f: int = 16) -> Word:
    """Words of real values. Raises: ValueError unless finite and |value · 2^f| < 2^62."""
    scaled = np.rint(np.asarray(values, dtype=np.float64) * 2.0**f)
    if not np.all(np.abs(scaled) < 2.0**62):
        raise ValueError("a value is not finite or too large for the fixed-point word")
    return scaled.astype(np.int64).astype(np.uint64)


def decode(words: Word, f: int = 16) -> npt.NDArray[np.float64]:
    """Real values of words."""
    values: npt.NDArray[np.float64] = words.astype(np.int64) / 2.0**f
    return values


def to_bytes(words: Word) -> bytes:
    """Words as little-endian bytes, row by row."""
    return np.ascontiguousarray(words).astype("<u8", copy=False).tobytes()


def from_bytes(data: bytes) -> Word:
    """Inverse of `to_bytes`, flat. Raises: ValueError for a length that is no multiple of 8."""
    if len(data) % 8:
        raise ValueError("words are 8 bytes each")
    return np.frombuffer(data, dtype="<u8").astype(np.uint64)
