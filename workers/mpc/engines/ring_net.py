"""Messages and common randomness of the ring: three nodes, one missing word each.

Node here means role: which of a job's three computing nodes this one is.

Node i holds word i+1 ("first") and word i+2 ("second"), indices mod 3. The key of word j is known
to exactly the two holders of word j; its stream makes words that the third node cannot tell from
random ones.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.tickets import TRIO
from workers.mpc.engines.base import Word
from workers.mpc.engines.counted import Counted, Disagreement
from workers.mpc.engines.ring_bits import Bits
from workers.mpc.keystream import KEY_BYTES, Keystream
from workers.mpc.transport import Transport

Array = npt.NDArray[Any]
LONG_BYTES = 1 << 16


class Net(Counted):
    """The job's messages, counted alike at every member, and its key streams."""

    def __init__(self, transport: Transport, context: bytes) -> None:
        """Exchange context and fresh keys. Raises: Disagreement, TransportError."""
        if transport.n != TRIO:
            raise ValueError("the ring engine runs on exactly three nodes")
        super().__init__(transport)
        self.left, self.right = (self.me + 2) % TRIO, (self.me + 1) % TRIO
        mine = os.urandom(KEY_BYTES)
        digest = hashlib.sha256(b"flai/ring/v2\0" + context).digest()
        # word i+1 is also held by the left neighbour, word i+2 by the right one
        self._send(self.left, digest + mine)
        self._send(self.right, digest)
        from_right = self._recv(self.right, len(digest) + KEY_BYTES)
        from_left = self._recv(self.left, len(digest))
        self.step()
        if from_left != digest or from_right[: len(digest)] != digest:
            raise Disagreement("the members hold different descriptors of this job")
        self.first = Keystream(mine)
        self.second = Keystream(bytes(from_right[len(digest) :]))

    @cached_property
    def private(self) -> Keystream:
        """Known to this node alone."""
        return Keystream(os.urandom(KEY_BYTES))

    def send(self, to: int, *arrays: Array) -> None:
        if sum([array.nbytes for array in arrays]) < LONG_BYTES:
            self._send(to, b"".join([array.tobytes() for array in arrays]))
            return
        # not copied: a mesh has sent it when this returns
        parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        self._send(to, (parts[0] if len(parts) == 1 else np.concatenate(parts)).data)

    def recv(self, frm: int, count: int, dtype: Any = np.uint64) -> Array:
        data = self._recv(frm, count * np.dtype(dtype).itemsize)
        return np.frombuffer(data, dtype=dtype)

    def recv_parts(self, frm: int, parts: Sequence[tuple[int, np.dtype[Any]]]) -> list[Array]:
        """One message of several arrays, each of so many numbers of a kind."""
        return _parts_of(self._recv(frm, _size(parts)), parts)

    def message(self, parts: Sequence[tuple[int, np.dtype[Any]]]) -> tuple[Array, list[Array]]:
        """(what to send, the arrays of which it consists, to be filled): for `recv_parts`."""
        whole = np.empty(_size(parts), np.uint8)
        return whole, _parts_of(whole, parts)

    def pass_left(self, *mine: Array) -> list[tuple[Array, Array]]:
        """Send to the left neighbour what it is to hold as second; each with the right one's."""
        self.send(self.left, *mine)
        others = self.recv_parts(self.right, [(part.size, part.dtype) for part in mine])
        self.step()
        return [(a, b.reshape(a.shape)) for a, b in zip(mine, others, strict=True)]

    def zero(self, shape: tuple[int, ...]) -> Word:
        """My part of a fresh additive sharing of 0 over the three nodes."""
        count = math.prod(shape)
        mask = self.first.words(count)
        mask -= self.second.words(count)
        return mask.reshape(shape)

    def zero_xor(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """My part of a fresh XOR sharing of 0."""
        count = math.prod(shape)
        mask = self.first.draw(count, dtype)
        mask ^= self.second.draw(count, dtype)
        return mask.reshape(shape)

    def reshare(self, part: Word) -> tuple[Word, Word]:
        """Additive parts (one per node) -> replicated words, re-randomised. One round."""
        (words,) = self.pass_left(part + self.zero(part.shape))
        return words

    def and_part(self, x: Bits, y: Bits) -> Array:
        """This node's part of x & y, masked: the cross terms that it can form."""
        (x1, x2), (y1, y2) = x.words, y.words
        part: Array = y1 ^ y2
        part &= x1
        part ^= x2 & y1
        part ^= self.zero_xor(part.shape, part.dtype)
        return part

    def open_and(self, x: Bits, y: Bits, rest: Bits) -> Array:
        """(x & y) ^ rest, made public: for what a mask in `rest` makes uniform. One round."""
        part = self.and_part(x, y) ^ rest.words[0]
        self.send(self.right, part)
        self.send(self.left, part)
        for neighbour in (self.left, self.right):
            part = part ^ self.recv(neighbour, part.size, part.dtype)
        self.step()
        return part

    def exchange_missing(self, first: Array, second: Array) -> Array:
        """The word that I lack, from both its holders. Raises: Disagreement if they differ."""
        self.send(self.right, first)
        self.send(self.left, second)
        one = self.recv(self.left, first.size, first.dtype)
        two = self.recv(self.right, first.size, first.dtype)
        self.step()
        if not np.array_equal(one, two):
            raise Disagreement("the other two members opened different words")
        return one.reshape(first.shape)


def _size(parts: Sequence[tuple[int, np.dtype[Any]]]) -> int:
    return sum([count * kind.itemsize for count, kind in parts])


def _parts_of(data: Any, parts: Sequence[tuple[int, np.dtype[Any]]]) -> list[Array]:
    arrays, at = [], 0
    for count, kind in parts:
        arrays.append(np.frombuffer(data, kind, count, at) if count else np.empty(0, kind))
        at += count * kind.itemsize
    return arrays
