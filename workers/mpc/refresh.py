"""New words of the same secrets: x_j + z_j with Σ z_j = 0 mod 2^64, z from everybody's entropy.

Each member gives 32 random bytes; the key is the hash of all of them, so z is fresh if one member's
are. z_0 … z_(n−2) are key streams, z_(n−1) is minus their sum. A node that takes part knows all z,
as it holds all words but one and z sums to nothing; so whoever *watches* a node during the refresh
counts for both sides of it. Who has only what nodes kept, one before and another one after, lacks
z: to him all n − 1 old and n − 1 new words are uniform together, whatever the secret is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from workers.mpc.engines.base import Word
from workers.mpc.keystream import Keystream

ENTROPY_BYTES = 32


class Zeros:
    """Fresh sharings of zero, one after the other; the same at all who were told the same."""

    def __init__(self, context: bytes, entropy: Sequence[bytes], n: int) -> None:
        """`entropy` is every member's, in their order; `context` is what the refresh is called."""
        if any(len(part) != ENTROPY_BYTES for part in entropy):
            raise ValueError("a member's entropy has the wrong size")
        key = hashlib.sha256(b"flai/refresh-key/v1\0" + context + b"".join(entropy)).digest()
        self._streams = [Keystream(hashlib.sha256(key + bytes([j])).digest()) for j in range(n - 1)]

    def add_to(self, words: Mapping[int, Word]) -> dict[int, Word]:
        """A node's words of the next secret, by index, as they are from now on."""
        shape = next(iter(words.values())).shape
        drawn = [s.words(int(np.prod(shape))).reshape(shape) for s in self._streams]
        last = np.zeros(shape, np.uint64)
        for z in drawn:
            last -= z
        return {j: word + [*drawn, last][j] for j, word in words.items()}
