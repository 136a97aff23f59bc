"""AES-256-CTR as a source of uniform words: seeds of shares, common randomness of the ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
# Encrypted in pieces that stay in the processor's cache.
_ZEROS = memoryview(bytes(1 << 16))


class Keystream:
    """The key stream of a fresh key from a zero counter; what was drawn never comes again."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Uniform 64-bit words, little-endian in the stream."""
        return self.draw(count, np.dtype("<u8")).astype(np.uint64, copy=False)

    def draw(self, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uniform unsigned integers."""
        drawn = np.empty(count, dtype)
        if count:
            into = drawn.data.cast("B")
            for at in range(0, len(into), len(_ZEROS)):
                piece = into[at : at + len(_ZEROS)]
                self._encryptor.update_into(_ZEROS[: len(piece)], piece)
        return drawn
