"""Draws of all sizes, one after the other, are the one key stream."""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.mpc.keystream import AHEAD_BYTES, Keystream

KINDS = [np.dtype(kind) for kind in (np.uint8, np.uint16, np.uint32, np.uint64)]
counts = st.one_of(st.integers(0, 40), st.integers(AHEAD_BYTES // 8 - 3, 3 * AHEAD_BYTES))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(counts, st.sampled_from(KINDS)), max_size=12))
def test_draws_are_the_stream_in_order_and_never_change(draws):
    key = os.urandom(32)
    stream = Keystream(key)
    drawn = [stream.draw(count, kind) for count, kind in draws]
    assert [(len(part), part.dtype) for part in drawn] == draws
    # as they were drawn: what came later has not touched them
    found = b"".join(part.tobytes() for part in drawn)
    wanted = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    assert found == wanted.update(bytes(len(found)))


def test_what_was_drawn_is_the_callers_own():
    stream, same = Keystream(b"k" * 32), Keystream(b"k" * 32)
    for count in (3, 5, 4000):
        mine = stream.words(count)
        np.testing.assert_array_equal(mine, same.words(count))
        mine[:] = 0
