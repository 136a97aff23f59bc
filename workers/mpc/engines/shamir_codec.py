"""Field elements on the wire: twelve bytes each, and nothing else is ever read.

A message of `count` elements is their three limbs as little-endian 32-bit integers, all l_0 first.
Only reduced numbers (0 … p − 1) are accepted: a message has one meaning and its length is known
before it comes. Nothing is unpickled.
"""

from __future__ import annotations

import numpy as np

from apps.protocol.tickets import ELEMENT_BYTES
from workers.mpc.engines import field89
from workers.mpc.engines.field89 import Limbs

_WIRE = np.dtype("<u4")


class Malformed(ValueError):
    """A message that no honest member sends."""


def encoded(x: Limbs) -> bytes:
    """The elements in their order, flat."""
    return b"".join(limb.astype(_WIRE).tobytes() for limb in field89.reduced(x))


def decoded(data: bytes | bytearray | memoryview, count: int) -> Limbs:
    """`count` elements, flat. Raises: Malformed."""
    if len(data) != ELEMENT_BYTES * count:
        raise Malformed(f"{len(data)} bytes instead of {ELEMENT_BYTES * count}")
    l0, l1, l2 = np.frombuffer(data, _WIRE).astype(np.uint64).reshape(3, count)
    m0, m1, m2 = (np.uint64(mask) for mask in field89.MASKS)
    if np.any(l0 > m0) or np.any(l1 > m1) or np.any(l2 > m2):
        raise Malformed("a number beyond the field")
    if np.any((l0 == m0) & (l1 == m1) & (l2 == m2)):
        raise Malformed("a number that is not reduced")
    return l0, l1, l2
