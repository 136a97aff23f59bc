"""Every operation of the Shamir engine against the plain engine and against real numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.ring import plain_function
from tests.support.shamir import SETTINGS, SURVIVORS, THREE, shamir_function
from workers.mpc.engines import field89, shamir
from workers.mpc.engines.shamir_bits import BitPool

few = settings(max_examples=6, deadline=None)
EDGES = np.array([0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63), 65536, -65536], np.int64)
any_word = arrays(np.int64, 5, elements=st.integers(-(2**63), 2**63 - 1))
in_word = arrays(np.int64, 9, elements=st.integers(-(2**62) + 2**10, 2**62 - 2**10))
small = arrays(np.int64, 7, elements=st.integers(-(2**29), 2**29))
positive = arrays(np.int64, 5, elements=st.integers(1, 2**40))
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


def both(function, *inputs, setting=THREE):
    return shamir_function(function, *inputs, setting=setting), plain_function(function, *inputs)


# -- the field ----------------------------------------------------------------------------------

P = field89.P
element = st.one_of(
    st.integers(0, P - 1),
    st.sampled_from([0, 1, P - 1, P - 2, 2**30 - 1, 2**60 - 1, 2**88 - 1, 2**88, P - 2**30]),
)


@given(st.lists(st.tuples(element, element), min_size=1, max_size=40))
def test_limbs_are_integers_mod_p(pairs):
    left, right = zip(*pairs, strict=True)
    a, b = field89.of_ints(left), field89.of_ints(right)
    for limbs, ints in (
        (field89.add(a, b), [x + y for x, y in pairs]),
        (field89.sub(a, b), [x - y for x, y in pairs]),
        (field89.neg(a), [-x for x in left]),
        (field89.mul(a, b), [x * y for x, y in pairs]),
        (field89.mul(field89.sub(a, b), field89.add(a, b)), [x * x - y * y for x, y in pairs]),
        (field89.times_small(a, 2**32 - 1), [x * (2**32 - 1) for x in left]),
    ):
        assert field89.to_ints(limbs) == [value % P for value in ints]
    signed = [x - P if x > P // 2 else x for x in left]
    assert [int(word) for word in field89.to_words(a)] == [value % 2**64 for value in signed]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (2, 20_000, 3), (70, 300, 65)])
def test_products_of_matrices_by_limbs_are_exact(shape):
    rows, inner, columns = shape
    # the largest short limbs, where a float64 would lose the last bit first
    most = P - 1
    left = [most if k % 3 else k * 2**60 % P for k in range(rows * inner)]
    right = [most if k % 5 else k * 2**40 % P for k in range(inner * columns)]
    a = field89.shaped(field89.of_ints(left), (rows, inner))
    b = field89.shaped(field89.of_ints(right), (inner, columns))
    found = field89.to_ints(field89.contract(np.matmul, a, b, inner))
    exact = np.array(left, object).reshape(rows, inner) @ np.array(right, object).reshape(
        inner, columns
    )
    assert found == [int(value) % P for value in exact.reshape(-1)]


def test_products_of_long_arrays_are_those_of_short_ones():
    size = 2 * field89.BLOCK + 7
    a, b = field89.Stream().numbers(size), field89.Stream().numbers(size)
    long = field89.mul(a, b)
    for at in (0, field89.BLOCK - 3, 2 * field89.BLOCK - 3):
        here = np.s_[at : at + 10]
        part = field89.mul(field89.taken(a, here), field89.taken(b, here))
        assert field89.to_ints(part) == field89.to_ints(field89.taken(long, here))


# -- operations ---------------------------------------------------------------------------------


@every_setting
@few
@given(a=small, b=small)
def test_product_truncates_to_one_unit(setting, a, b):
    found, plain = both(lambda o, x, y: o.mul(x, y), (a, 16), (b, 16), setting=setting)
    assert np.all((found - plain == 0) | (found - plain == 1))


@every_setting
@few
@given(a=in_word, drop=st.integers(1, 61))
def test_truncation_never_wraps(setting, a, drop):
    found, plain = both(lambda o, x: o.trunc(x, 0), (a, drop), setting=setting)
    assert np.all((found - plain == 0) | (found - plain == 1))


@every_setting
@few
@given(a=any_word)
def test_sign_is_exact_for_every_word(setting, a):
    words = np.concatenate([a, EDGES])
    found = shamir_function(lambda o, x: o.ltz(x), (words, 16), setting=setting)
    np.testing.assert_array_equal(found, words < 0)


@few
@given(any_word)
def test_clamp_tames_every_word_and_what_is_beyond_words(a):
    words = np.concatenate([a, EDGES])
    low, high = -(5 << 16), 9 << 16
    found = shamir_function(lambda o, x: o.clamp(x, low, high), (words, 16))
    np.testing.assert_array_equal(found, np.clip(words, low, high))
    # a dealer may share any element of the field
    wild = shamir_function(
        lambda o, x: o.clamp(o.scale(o.scale(x, 2**62 - 1), 2**27 + 5), low, high), (words, 16)
    )
    assert np.all((wild >= low) & (wild <= high))


def test_signs_at_the_edges_of_the_field():
    """2^88 − 1 is the largest positive number, 2^88 ≡ −(2^88 − 1) the least."""

    def signs(ops, one):
        top = ops.scale(ops.scale(one, 2**62), 2**26)
        return ops.ltz(ops.concat([ops.add_public(top, -1), top, ops.neg(top)]))

    assert shamir_function(signs, (np.array([1]), 0)).tolist() == [0, 1, 0]


@few
@given(any_word)
def test_a_flag_is_exactly_a_bit(a):
    words = np.concatenate([a, [0, 65536, 32768, 32767]])
    found = shamir_function(lambda o, x: o.bit(x), (words, 16))
    np.testing.assert_array_equal(found, words >= 32768)


@few
@given(arrays(np.int64, st.integers(1, 6), elements=st.integers(-(2**40), 2**40)))
def test_order_statistics(a):
    np.testing.assert_array_equal(shamir_function(lambda o, x: o.sort(x), (a, 16)), np.sort(a))
    assert shamir_function(lambda o, x: o.max(x), (a, 16))[0] == a.max()
    middle = shamir_function(lambda o, x: o.median(x), (a, 16))[0]
    assert abs(middle - float(np.median(a))) <= 1
    np.testing.assert_array_equal(
        shamir_function(lambda o, x: o.relu(x), (a, 16)), np.maximum(a, 0)
    )


@few
@given(arrays(np.int64, 5, elements=st.integers(-(2**25), 2**25)))
def test_sigmoids_keep_their_bounds(a):
    exact = 0.5 * (1 + np.tanh(a / 2**21))
    for name, bound in (("sigmoid", 0.0034), ("sigmoid_accurate", 1.6e-5)):
        found, plain = both(lambda o, x, n=name: getattr(o, n)(x), (a, 20))
        assert np.all(np.abs(found - plain) <= 4)
        assert np.max(np.abs(found / 2**20 - exact)) <= bound
    found, plain = both(lambda o, x: o.sigmoid_hard(x), (a, 16))
    np.testing.assert_array_equal(found, plain)


@few
@given(positive)
def test_reciprocal_roots_and_logarithm(a):
    found, plain = both(
        lambda o, x: o.reciprocal(x, f=24, bits=42, low_bits=20), (a + 2**20, 30), setting=SURVIVORS
    )
    exact = 2.0**54 / (a + 2**20)
    assert np.max(np.abs(found - plain)) <= 2 + exact.max() * 2e-7
    found = shamir_function(lambda o, x: o.rsqrt(x, f=22, bits=56), (a, 32))
    exact = [2.0**38 / math.sqrt(value) for value in a.tolist()]
    assert np.all(np.abs(found - exact) <= 2 + np.array(exact) * 2e-5)
    found = shamir_function(lambda o, x: o.sqrt(x, f=24, bits=42), (a, 20))
    exact = np.sqrt(a / 2**20)
    assert np.all(np.abs(found / 2**24 - exact) <= 2 / 2**24 + exact * 2e-7)
    found, plain = both(lambda o, x: o.log(x, f=24, bits=42), (a, 20))
    assert np.all(np.abs(found / 2**24 - np.log(a / 2**20)) <= 1e-6)
    assert np.all(np.abs(found - plain) <= 16)


@few
@given(arrays(np.int64, 7, elements=st.integers(-(12 << 20), 12 << 20)))
def test_exponential(a):
    found = shamir_function(lambda o, x: o.exp(x, f=28), (a, 20))
    exact = np.exp(np.clip(a / 2**20, -11, 11))
    assert np.all(np.abs(found / 2**28 - exact) <= 2 / 2**28 + exact * 1e-6)


@few
@given(arrays(np.int64, st.integers(1, 5), elements=st.integers(0, 2**60)))
def test_ratio_of_max_loses_nothing_at_any_scale(a):
    found = shamir_function(lambda o, x: o.ratio_of_max(x, bits=61, low_bits=0, f=28), (a, 40))
    exact = a / a.max() if a.max() else np.zeros(len(a))
    assert np.max(np.abs(found / 2**28 - exact)) <= 2e-8


def test_functions_of_nothing_are_zero():
    nothing = (np.array([0, 3]), 16)
    found = shamir_function(lambda o, x: o.reciprocal(x, f=16, bits=20, low_bits=2), nothing)
    assert found[0] == 0
    ratio = shamir_function(lambda o, x: o.ratio_of_max(x, bits=61, low_bits=4, f=28), nothing)
    assert ratio.tolist() == [0, 0]


@every_setting
@few
@given(a=arrays(np.int64, 6, elements=st.integers(-(2**61), 2**61)), f=st.integers(0, 40))
def test_rounded_opening_is_exact(setting, a, f):
    found = shamir_function(lambda o, x: o.open_rounded(x), (a, f), setting=setting)
    assert found.tolist() == [(2 * v + 2**f) // 2 ** (f + 1) if f else v for v in a.tolist()]


@few
@given(any_word, any_word, st.integers(-(2**20), 2**20), st.integers(0, 2**20))
def test_linear_operations_are_exact(a, b, left, right):
    for function in (
        lambda o, x, y: o.weighted_sum([x, y], [left, right]),
        lambda o, x, y: o.sub(o.neg(x), o.scale(y, right)),
        lambda o, x, y: o.sum(o.stack([x, y, x]), 0),
        lambda o, x, y: o.combine(o.stack([x, y]), [[left, 1], [right, -1]], 0),
        lambda o, x, y: o.lift(o.add_public(x, a), 20),
    ):
        found, plain = both(function, (a, 16), (b, 16))
        np.testing.assert_array_equal(found, plain)


@every_setting
def test_products_of_many_shapes_agree_with_numpy(setting):
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 9, (4, 5)), rng.integers(-9, 9, (5, 3))

    def run(function, *inputs):
        return shamir_function(function, *inputs, setting=setting)

    np.testing.assert_array_equal(run(lambda o, x, y: o.matmul(x, y), (a, 0), (b, 0)), a @ b)
    np.testing.assert_array_equal(
        run(lambda o, x, y: o.dot(x, o.transpose(y)), (b.T, 0), (b, 0)), (b.T * b.T).sum(1)
    )
    bits = np.array([1, 0, 1])
    np.testing.assert_array_equal(
        run(lambda o, c, x, y: o.select(c, x, y), (bits, 0), (a[0, :3], 3), (b[:3, 0], 3)),
        np.where(bits, a[0, :3], b[:3, 0]),
    )


def test_more_values_than_a_batch():
    size = shamir.BATCH_MAX + 3
    a = np.arange(size, dtype=np.int64) - 7
    found = shamir_function(lambda o, x: o.trunc(x, 0), (a, 1))
    assert np.all((found - (a >> 1) == 0) | (found - (a >> 1) == 1))


# -- random bits --------------------------------------------------------------------------------


@every_setting
def test_random_bits_are_bits_and_fair(setting):
    bits = shamir_function(lambda o: shamir.Shared(o.bits.draw(20_000), 0), setting=setting)
    assert set(bits.tolist()) == {0, 1}
    # six standard deviations
    assert abs(bits.mean() - 0.5) < 0.0213


def constant_pool(bits):
    """Constants are sharings of themselves."""
    pool = BitPool()
    zero = np.zeros(len(bits), np.uint64)
    pool.add((np.array(bits, np.uint64), zero, zero))
    return pool


@pytest.mark.parametrize("value", [0, 5, -(2**61)])
def test_a_mask_that_may_have_wrapped_is_drawn_again(value):
    """r = p − 1 wraps with any number, r = 0 does not but looks alike; both are thrown away."""
    all_but_one = [0] + [1] * 88
    for first in ([0] * 89, all_but_one):
        found = shamir_function(
            lambda o, x: [int(o.open(o.trunc(x, 0))[0]), o.bits.used],
            (np.array([value]), 3),
            pools=[constant_pool(first) for _ in range(3)],
        )
        assert found[0] - (value >> 3) in (0, 1)
        assert found[1] == 2 * 89


def test_equal_mask_and_sum_are_not_less():
    """[c < r] with c = r, c = r ± 1, and both ends."""
    top = 2**89 - 1
    cases = [(0, 0), (5, 5), (5, 6), (6, 5), (top, top), (0, top), (top, 0), (2**88, 2**88 - 1)]

    def bits(values):
        return np.array(
            [[value >> place & 1 for value in values] for place in range(89)], np.uint64
        )

    public, secret = bits([c for c, _ in cases]), bits([r for _, r in cases])
    zero = np.zeros_like(secret)
    for _ in range(4):  # either sign
        found = shamir_function(
            lambda o: shamir.Shared(o.bits.below(public, (secret, zero, zero)), 0)
        )
        assert found.tolist() == [int(c < r) for c, r in cases]


def test_a_pool_gives_each_bit_once_and_in_order():
    pool = constant_pool([0, 1, 1, 0, 1])
    pool.add(constant_pool([1, 0, 0]).take(3))
    assert pool.take(3)[0].tolist() == [0, 1, 1]
    assert pool.take(4)[0].tolist() == [0, 1, 1, 0]
    assert len(pool) == 1
    with pytest.raises(ValueError, match="fewer"):
        pool.take(2)
    assert len(pool) == 1


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
@pytest.mark.parametrize(
    "run",
    [
        lambda o, a: o.open(o.trunc(a, 4)),
        lambda o, a: o.open(o.ltz(a)),
        lambda o, a: o.open(o.clamp(a, -5, 5)),
        lambda o, a: o.open_rounded(a),
    ],
)
def test_nothing_is_made_of_no_numbers(run, shape):
    """As on the ring: a slot may be empty."""
    assert shamir_function(run, (np.zeros(shape, np.int64), 16)).shape == shape


@pytest.mark.parametrize("name", ["_bits", "_top_bits"])
def test_bits_of_no_numbers_have_the_shape_of_bits(name):
    def run(o, a):
        return o.open(shamir.Shared(getattr(o, name)(a, 2, 7), 0))

    assert shamir_function(run, (np.array([5, 6]), 0)).shape == (5, 2)
    assert shamir_function(run, (np.zeros(0, np.int64), 0)).shape == (5, 0)
