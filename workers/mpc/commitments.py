"""Salted commitments to the words of a share.

    c_j = SHA-256(salt_j ‖ "flai/word/v1" ‖ 0x00 ‖ share_id ‖ j ‖ word_j)

salt_j: 16 random bytes, sealed to the two nodes that hold word j, so that both check the same word
and nobody else can test guesses: without a salt, a node with two words of a short row finds the
third by trying rows.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

SALT_BYTES = 16
_CONTEXT = b"flai/word/v1\0"


def begun(*, salt: bytes, share_id: bytes, j: int) -> Any:
    """The hash of c_j, which the word's little-endian bytes are still to be added to."""
    if len(salt) != SALT_BYTES or len(share_id) != 16:
        raise ValueError("salt and share id have 16 bytes each")
    return hashlib.sha256(salt + _CONTEXT + share_id + bytes([j]))


def commit(*, salt: bytes, share_id: bytes, j: int, word: bytes | memoryview) -> str:
    """c_j in hex; `word` is the word's little-endian bytes."""
    total = begun(salt=salt, share_id=share_id, j=j)
    total.update(word)  # apart: a word may be megabytes, and need not be copied
    return str(total.hexdigest())


def matches(
    commitment: str, *, salt: bytes, share_id: bytes, j: int, word: bytes | memoryview
) -> bool:
    """Is this the word that was committed to?"""
    ours = commit(salt=salt, share_id=share_id, j=j, word=word)
    return hmac.compare_digest(ours, commitment)
