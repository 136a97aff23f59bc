"""n words of a secret: x = x_0 + … + x_(n−1) mod 2^64 (paper eq. 5), n = 3, 4 or 5; node i lacks
word i.

All words but the last are key streams of 32-byte seeds, the last is the correction, so that an
upload is n − 1 seeds and one word a value.

Three nodes compute, or four in verified mode. In ascending order they play the roles 0, 1, 2 (, 3),
and role r lacks role word r: that is the word which this node lacks, and role word 0 also takes up
the surplus, the words of all nodes that do not compute. Each of those who compute holds these
anyway, so folding is exact and local. Role 0 holds the surplus too but not the rest of role word 0,
so it knows no more of it than before.

What they keep goes back to n words: they take a stream for each other node's word, which that
node alone never gets, off role word 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from apps.protocol.tickets import TRIO
from workers.mpc.engines.base import Word, blocks
from workers.mpc.keystream import Keystream, first_words

PART = 1 << 17  # words that are handed on at once


def expand(seed: bytes, count: int) -> Word:
    """`count` words of the AES-256-CTR key stream (zero nonce) of a fresh seed."""
    return first_words(seed, count)


@cache
def held_by(node: int, n: int = TRIO) -> tuple[int, ...]:
    """The indices of the words that a node of n holds, from its own upwards, round."""
    return tuple((node + step) % n for step in range(1, n))


def split(
    secret: Word, *seeds: bytes, made: Callable[[list[Word]], None] | None = None
) -> list[Word]:
    """All words, in the secret's shape: one per seed, and the correction x − w_0 − …

    `made` is told what is there of each word, part by part, flat.
    """
    flat = np.asarray(secret, dtype=np.uint64).reshape(-1)
    streams = [Keystream(seed) for seed in seeds]
    words = [np.empty(flat.size, np.uint64) for _ in range(len(seeds) + 1)]
    told = 0
    for at in blocks(flat.size):
        *drawn, correction = (word[at] for word in words)
        left = flat[at]
        for word, stream in zip(drawn, streams, strict=True):
            word[:] = stream.words(len(word))
            left = np.subtract(left, word, out=correction)
        if made is not None and (at.stop - told >= PART or at.stop == flat.size):
            made([word[told : at.stop] for word in words])
            told = at.stop
    return [word.reshape(np.shape(secret)) for word in words]


def join(words: Mapping[int, Word]) -> Word:
    """The secret, from all words. For its owner or addressee only."""
    first, *others = words.values()
    total = first.copy()
    for word in others:
        total += word
    return total


def fold(node: int, words: Mapping[int, Word], computing: Sequence[int], n: int) -> list[Word]:
    """A computing node's role words for the engine, from role + 1 upwards, round.

    Raises: KeyError when one of the node's words is missing.
    """
    role = computing.index(node)
    folded = []
    for other in held_by(role, len(computing)):
        word = words[computing[other]]
        if other == 0 and n > len(computing):
            word = word.copy()
            for j in surplus(computing, n):
                word += words[j]
        folded.append(word)
    return folded


def surplus(computing: Sequence[int], n: int) -> list[int]:
    """The words of the nodes that do not compute, which role word 0 takes up."""
    return [j for j in range(n) if j not in computing]


def spread(
    node: int, folded: Sequence[Word], computing: Sequence[int], seeds: Mapping[int, bytes]
) -> dict[int, Word]:
    """A computing node's words of n, from its role words; the inverse of `fold`.

    `seeds[d]` is known to all but the node d, which does not compute.
    """
    role = computing.index(node)
    words = {d: expand(seed, folded[0].size).reshape(folded[0].shape) for d, seed in seeds.items()}
    taken = list(words.values())
    for other, word in zip(held_by(role, len(computing)), folded, strict=True):
        if other == 0:
            word = word.copy()
            for stream in taken:
                word -= stream
        words[computing[other]] = word
    return words
