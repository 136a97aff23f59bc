"""Whole numbers of the discrete Gaussian, exactly: noise that a node brings into a job.

P(x) ∝ e^(−x² / 2σ²) on all integers, σ² a whole number. Only integers are compared with uniform
ones, so no rounding of a float shows what noise was added to (Mironov 2012), and two nodes that
draw from the same key stream draw the same. Source: Canonne, Kamath, Steinke, "The Discrete
Gaussian for Differential Privacy" (2020), algorithms 1 to 3.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from workers.mpc.keystream import Keystream

CHUNK_BYTES = 1 << 12


class Uniform:
    """Uniform whole numbers of any size from a key stream."""

    def __init__(self, stream: Keystream) -> None:
        self._stream = stream
        self._left = b""

    def below(self, n: int) -> int:
        """0 … n − 1, n ≥ 1."""
        bits = (n - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            if len(self._left) < size:
                self._left += self._stream.draw(CHUNK_BYTES, np.dtype(np.uint8)).tobytes()
            drawn, self._left = self._left[:size], self._left[size:]
            value = int.from_bytes(drawn, "little") >> (8 * size - bits)
            if value < n:
                return value

    def happens(self, numerator: int, denominator: int) -> bool:
        """With probability e^(−numerator / denominator)."""
        while numerator > denominator:
            if not self._happens(1, 1):
                return False
            numerator -= denominator
        return self._happens(numerator, denominator)

    def _happens(self, numerator: int, denominator: int) -> bool:
        """The same for numerator ≤ denominator."""
        k = 1
        while self.below(denominator * k) < numerator:
            k += 1
        return k % 2 == 1


def discrete_gaussian(stream: Keystream, variance: int, count: int) -> npt.NDArray[np.int64]:
    """`count` independent ones with σ² = variance ≥ 1, σ < 2^50."""
    uniform, scale = Uniform(stream), isqrt(variance) + 1
    return np.array([_one(uniform, variance, scale) for _ in range(count)], np.int64)


def _one(uniform: Uniform, variance: int, scale: int) -> int:
    while True:
        value = _laplace(uniform, scale)
        # (|x| − σ²/t)² / 2σ² as a fraction
        excess = abs(value) * scale - variance
        if uniform.happens(excess * excess, 2 * variance * scale * scale):
            return value


def _laplace(uniform: Uniform, scale: int) -> int:
    """P(x) ∝ e^(−|x| / scale)."""
    while True:
        low = uniform.below(scale)
        if not uniform.happens(low, scale):
            continue
        size = low
        while uniform.happens(1, 1):
            size += scale
        negative = uniform.below(2)
        if size or not negative:
            return -size if negative else size
