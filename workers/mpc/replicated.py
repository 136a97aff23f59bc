"""Three words of a secret: x = x_0 + x_1 + x_2 mod 2^64 (paper eq. 5); node i lacks word i.

Words 0 and 1 are key streams of 32-byte seeds, word 2 is the correction, so that an upload is two
seeds and one word a value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from apps.protocol.tickets import NODES
from workers.mpc.engines.base import Word
from workers.mpc.keystream import Keystream


def expand(seed: bytes, count: int) -> Word:
    """`count` words of the AES-256-CTR key stream (zero nonce) of a fresh seed."""
    return Keystream(seed).words(count)


def held_by(node: int) -> tuple[int, int]:
    """(first, second): the indices of the words that a node holds."""
    return (node + 1) % NODES, (node + 2) % NODES


def pair_of(node: int, words: Mapping[int, Word]) -> tuple[Word, Word]:
    """A node's pair for the engine. Raises: KeyError when one of its two words is missing."""
    first, second = held_by(node)
    return words[first], words[second]


def split(secret: Word, seed_0: bytes, seed_1: bytes) -> list[Word]:
    """All three words, in the secret's shape; word 2 is the correction x − w_0 − w_1."""
    flat = np.asarray(secret, dtype=np.uint64)
    seeded = [expand(seed, flat.size).reshape(flat.shape) for seed in (seed_0, seed_1)]
    return [*seeded, flat - seeded[0] - seeded[1]]


def join(words: Mapping[int, Word]) -> Word:
    """The secret, from all three words. For its owner or addressee only."""
    return words[0] + words[1] + words[2]
