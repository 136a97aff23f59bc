"""Every operation on the ring against the plain engine and against real numbers."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support import ring
from tests.support.ring import plain_function
from workers.mpc.engines import ring_base, tables
from workers.mpc.engines.base import BLOCK, Shared, matmul
from workers.mpc.engines.ring_bits import reverse_places

NODES = 3
few = settings(max_examples=12, deadline=None)
EDGES = np.array([0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63), 65536, -65536], np.int64)
any_word = arrays(np.int64, 9, elements=st.integers(-(2**63), 2**63 - 1))
in_word = arrays(np.int64, 9, elements=st.integers(-(2**62) + 2**10, 2**62 - 2**10))
small = arrays(np.int64, 7, elements=st.integers(-(2**29), 2**29))
positive = arrays(np.int64, 5, elements=st.integers(1, 2**40))


@pytest.fixture(params=[3, 4], ids=["ring", "verified"], scope="module", autouse=True)
def nodes(request):
    """Every test here runs on the ring of three nodes and on the verified one of four."""
    global NODES
    NODES = request.param


def ring_function(function, *inputs):
    return ring.ring_function(function, *inputs, n=NODES)


def both(function, *inputs):
    return ring_function(function, *inputs), plain_function(function, *inputs)


@few
@given(small, small)
def test_product_truncates_to_one_unit(a, b):
    ring, plain = both(lambda ops, x, y: ops.mul(x, y), (a, 16), (b, 16))
    assert np.all(np.abs(ring - plain) <= 1)
    exact = a.astype(object) * b.astype(object)
    assert all(abs(int(r) * 2**16 - int(e)) <= 2**16 for r, e in zip(ring, exact, strict=True))


@few
@given(in_word, st.integers(1, 61))
def test_truncation_never_wraps(a, drop):
    ring, plain = both(lambda ops, x: ops.trunc(x, 0), (a, drop))
    assert np.all((ring - plain == 0) | (ring - plain == 1))


def test_of_no_values_there_are_no_signs():
    ring, plain = both(lambda ops, x: ops.ltz(x), (np.array([], np.int64), 16))
    assert ring.shape == plain.shape == (0,)


@few
@given(any_word)
def test_sign_is_exact_for_every_word(a):
    words = np.concatenate([a, EDGES])
    ring = ring_function(lambda ops, x: ops.ltz(x), (words, 16))
    np.testing.assert_array_equal(ring, words < 0)


@few
@given(st.integers(0, 2**32))
def test_signs_of_many_words_are_exact(seed):
    """Beyond what tables are sent for; words of all lengths."""
    rng = np.random.default_rng(seed)
    words = rng.integers(-(2**63), 2**63, 600) >> rng.integers(0, 63, 600)
    ring = ring_function(lambda ops, x: ops.ltz(x), (np.concatenate([words, EDGES]), 16))
    np.testing.assert_array_equal(ring, np.concatenate([words, EDGES]) < 0)


@pytest.mark.parametrize("comparisons", [0, 10**6])
def test_top_bits_are_exact_by_comparisons_and_bit_by_bit(comparisons, monkeypatch):
    monkeypatch.setattr(ring_base, "COMPARISONS_MAX", comparisons)
    values = [0, 1, 7, 8, 15, 16, 2**20 - 1, 2**20, 2**61, 2**62 - 1]

    def top(ops, x):
        return Shared(ops._top_bits(x, 3, 62), 0)

    ring, plain = both(top, (np.array(values).reshape(2, 5), 0))
    np.testing.assert_array_equal(ring, plain)
    assert ring.shape == (59, 2, 5)


@few
@given(any_word)
def test_clamp_tames_every_word(a):
    words = np.concatenate([a, EDGES])
    ring, plain = both(lambda ops, x: ops.clamp(x, -(5 << 16), 9 << 16), (words, 16))
    np.testing.assert_array_equal(ring, plain)
    assert np.all((ring >= -(5 << 16)) & (ring <= 9 << 16))
    inner = np.abs(words.astype(object)) < 2**61
    np.testing.assert_array_equal(
        ring[inner.astype(bool)], np.clip(words, -(5 << 16), 9 << 16)[inner.astype(bool)]
    )


@few
@given(any_word)
def test_a_flag_is_exactly_a_bit(a):
    ring = ring_function(lambda ops, x: ops.bit(x), (np.concatenate([a, EDGES]), 16))
    assert set(ring.tolist()) <= {0, 1}
    flags = np.array([0, 65536, 32768, 32767])
    np.testing.assert_array_equal(
        ring_function(lambda ops, x: ops.bit(x), (flags, 16)), [0, 1, 1, 0]
    )


@few
@given(arrays(np.int64, st.integers(1, 9), elements=st.integers(-(2**40), 2**40)))
def test_order_statistics_are_exact(a):
    np.testing.assert_array_equal(ring_function(lambda ops, x: ops.sort(x), (a, 16)), np.sort(a))
    assert ring_function(lambda ops, x: ops.max(x), (a, 16))[0] == a.max()
    middle = ring_function(lambda ops, x: ops.median(x), (a, 16))[0]
    assert abs(middle - float(np.median(a))) <= 1
    np.testing.assert_array_equal(
        ring_function(lambda ops, x: ops.relu(x), (a, 16)), np.maximum(a, 0)
    )


@few
@given(arrays(np.int64, 9, elements=st.integers(-(2**25), 2**25)))
def test_sigmoids_keep_their_bounds(a):
    exact = 0.5 * (1 + np.tanh(a / 2**21))
    for function, f, bound in (("sigmoid", 20, 0.0034), ("sigmoid_accurate", 20, 1.6e-5)):
        ring, plain = both(lambda ops, x, n=function: getattr(ops, n)(x), (a, f))
        assert np.all(np.abs(ring - plain) <= 4)
        assert np.max(np.abs(ring / 2**f - exact)) <= bound


@pytest.mark.parametrize(("table", "bound"), [(tables.LINEAR, 0.0034), (tables.CUBIC, 1.3e-5)])
def test_tables_approximate_the_sigmoid_everywhere(table, bound):
    z = np.linspace(-20, 20, 40001)
    rows = np.array(table.rows)[np.searchsorted(np.array(table.knots) / 2**tables.F, z, "right")]
    rows = rows / 2**tables.F
    value = sum(rows[:, 1 + k] * (z - rows[:, 0]) ** k for k in range(rows.shape[1] - 1))
    assert np.max(np.abs(value - 0.5 * (1 + np.tanh(z / 2)))) <= bound


@few
@given(positive)
def test_reciprocal_and_root_are_relative(a):
    ring, plain = both(
        lambda ops, x: ops.reciprocal(x, f=24, bits=42, low_bits=20), (a + 2**20, 30)
    )
    exact = 2.0**54 / (a + 2**20)
    assert np.max(np.abs(ring - plain)) <= 2 + exact.max() * 2e-7
    assert np.max(np.abs(ring - exact) - 2) <= exact.max() * 2e-7
    ring, plain = both(lambda ops, x: ops.rsqrt(x, f=22, bits=56), (a, 32))
    exact = [2.0**38 / math.sqrt(value) for value in a.tolist()]
    assert np.all(np.abs(ring - exact) <= 2 + np.array(exact) * 2e-5)


@few
@given(positive)
def test_square_root_and_logarithm(a):
    ring, plain = both(lambda ops, x: ops.sqrt(x, f=24, bits=42), (a, 20))
    exact = np.sqrt(a / 2**20)
    assert np.all(np.abs(ring / 2**24 - exact) <= 2 / 2**24 + exact * 2e-7)
    assert np.all(np.abs(ring - plain) <= 3 + exact * 2**24 * 2e-7)
    ring, plain = both(lambda ops, x: ops.log(x, f=24, bits=42), (a, 20))
    assert np.all(np.abs(ring / 2**24 - np.log(a / 2**20)) <= 1e-6)
    assert np.all(np.abs(ring - plain) <= 16)


@few
@given(arrays(np.int64, 7, elements=st.integers(-(12 << 20), 12 << 20)))
def test_exponential(a):
    ring, plain = both(lambda ops, x: ops.exp(x, f=28), (a, 20))
    exact = np.exp(np.clip(a / 2**20, -11, 11))
    assert np.all(np.abs(ring / 2**28 - exact) <= 2 / 2**28 + exact * 1e-6)
    assert np.all(np.abs(ring - plain) <= 4 + exact * 2**28 * 2e-7)


def test_functions_of_nothing_are_zero():
    nothing = (np.array([0, 3]), 16)
    assert ring_function(lambda o, x: o.reciprocal(x, f=16, bits=20, low_bits=2), nothing)[0] == 0
    assert ring_function(lambda o, x: o.rsqrt(x, f=16, bits=20, low_bits=2), nothing)[1] == 0
    zero = (np.array([0]), 16)
    assert ring_function(lambda o, x: o.sqrt(x, f=16, bits=20), zero)[0] == 0
    assert ring_function(lambda o, x: o.log(x, f=16, bits=20), zero)[0] == 0
    ratio = ring_function(lambda o, x: o.ratio_of_max(x, bits=61, low_bits=4, f=28), nothing)
    assert ratio.tolist() == [0, 0]


@few
@given(arrays(np.int64, st.integers(1, 7), elements=st.integers(0, 2**60)))
def test_ratio_of_max_loses_nothing_at_any_scale(a):
    ring = ring_function(lambda o, x: o.ratio_of_max(x, bits=61, low_bits=0, f=28), (a, 40))
    exact = a / a.max() if a.max() else np.zeros(len(a))
    assert np.max(np.abs(ring / 2**28 - exact)) <= 2e-8


@few
@given(arrays(np.int64, 6, elements=st.integers(-(2**61), 2**61)), st.integers(0, 40))
def test_rounded_opening_is_exact(a, f):
    ring, plain = both(lambda ops, x: ops.open_rounded(x), (a, f))
    np.testing.assert_array_equal(ring, plain)
    assert ring.tolist() == [(2 * v + 2**f) // 2 ** (f + 1) if f else v for v in a.tolist()]


def test_products_of_many_shapes_agree_with_numpy():
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, (5, 3))
    np.testing.assert_array_equal(
        ring_function(lambda o, x, y: o.matmul(x, y), (a, 0), (b, 0)), a @ b
    )
    np.testing.assert_array_equal(
        ring_function(lambda o, x, y: o.dot(x, o.transpose(y)), (b.T, 0), (b, 0)),
        (b.T * b.T).sum(1),
    )
    table = rng.integers(-3, 3, (4, 2))
    np.testing.assert_array_equal(
        ring_function(lambda o, x: o.combine(x, table, 0), (a, 0)), table.T @ a
    )
    bits = np.array([1, 0, 1])
    np.testing.assert_array_equal(
        ring_function(
            lambda o, c, x, y: o.select(c, x, y), (bits, 0), (a[0, :3], 3), (b[:3, 0], 3)
        ),
        np.where(bits, a[0, :3], b[:3, 0]),
    )


def test_places_are_reversed_as_in_an_fft():
    for place in range(64):
        word = np.array([1 << place], np.uint64)
        assert int(reverse_places(word)[0]) == 1 << int(f"{place:06b}"[::-1], 2)


@few
@given(small)
def test_hard_sigmoid_has_three_segments(a):
    ring, plain = both(lambda ops, x: ops.sigmoid_hard(x), (a, 16))
    np.testing.assert_array_equal(ring, plain)
    np.testing.assert_array_equal(ring, np.clip(a + (1 << 15), 0, 1 << 16))


@few
@given(any_word, any_word, st.integers(-(2**31), 2**31), st.integers(0, 2**31))
def test_weighted_sum_is_exact_in_the_word(a, b, left, right):
    ring, plain = both(lambda ops, x, y: ops.weighted_sum([x, y], [left, right]), (a, 16), (b, 16))
    np.testing.assert_array_equal(ring, plain)
    exact = [(int(x) * left + int(y) * right) % 2**64 for x, y in zip(a, b, strict=True)]
    assert [int(r) % 2**64 for r in ring] == exact


def test_weighted_sum_of_more_than_a_block():
    size = BLOCK + 3
    words = np.arange(size, dtype=np.int64) - 7
    ring = ring_function(lambda ops, x: ops.weighted_sum([x, x, x], [1, 2, -5]), (words, 0))
    np.testing.assert_array_equal(ring, -2 * words)


@pytest.mark.parametrize("shape", [(64, 300, 64), (1, 40, 3), (70, 1100, 65), (3, 5, 2)])
def test_products_of_full_words_are_numpys_own(shape):
    rows, inner, columns = shape
    full = np.frombuffer(os.urandom(8 * (rows + columns) * inner), np.uint64)
    a = full[: rows * inner].reshape(rows, inner)
    b = full[rows * inner :].reshape(inner, columns)
    np.testing.assert_array_equal(matmul(a, b), a @ b)
    np.testing.assert_array_equal(matmul(a.T.copy().T, b.T.copy().T), a @ b)
    with pytest.raises(ValueError):
        matmul(a, np.zeros((inner + 1, 2), np.uint64))
