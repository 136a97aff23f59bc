"""Three words of a secret: x = x_0 + x_1 + x_2 mod 2^64 (paper eq. 5); node i lacks word i.

Words 0 and 1 are key streams of 32-byte seeds, word 2 is the correction, so that an upload is two
seeds and one word a value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from workers.mpc.engines.base import Word
from workers.mpc.fixed import from_bytes

NODES = 3
SEED_BYTES = 32


def expand(seed: bytes, count: int) -> Word:
    """`count` words of the AES-256-CTR key stream (zero nonce) of a fresh seed."""
    if len(seed) != SEED_BYTES:
        raise ValueError("a seed has 32 bytes")
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return from_bytes(stream.update(bytes(8 * count)))


def correction(secret: Word, seed_0: bytes, seed_1: bytes) -> Word:
    """Word 2, flat: x − expand(seed_0) − expand(seed_1)."""
    flat = np.asarray(secret, dtype=np.uint64).reshape(-1)
    return flat - expand(seed_0, flat.size) - expand(seed_1, flat.size)


def held_by(node: int) -> tuple[int, int]:
    """(first, second): the indices of the words that a node holds."""
    return (node + 1) % NODES, (node + 2) % NODES


def pair_of(node: int, words: Mapping[int, Word]) -> tuple[Word, Word]:
    """A node's pair for the engine. Raises: KeyError when one of its two words is missing."""
    first, second = held_by(node)
    return words[first], words[second]


def split(secret: Word, seed_0: bytes, seed_1: bytes) -> list[Word]:
    """All three words, in the secret's shape."""
    flat = np.asarray(secret, dtype=np.uint64)
    words = [
        expand(seed_0, flat.size),
        expand(seed_1, flat.size),
        correction(flat, seed_0, seed_1),
    ]
    return [word.reshape(flat.shape) for word in words]


def join(words: Mapping[int, Word]) -> Word:
    """The secret, from all three words. For its owner or addressee only."""
    return words[0] + words[1] + words[2]
