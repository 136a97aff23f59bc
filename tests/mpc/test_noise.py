"""Noise that nodes make together: exact numbers, of the right size, that no node knows."""

import os
import threading
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.protocol.circuits import CIRCUITS, CLASSES, least_squares
from apps.protocol.circuits.layout import MODEL_F, WEIGHT_LIMIT
from apps.protocol.circuits.noise import CLIP, RHO, SLACK_BITS, bound_of, variance_of
from apps.protocol.circuits.scoring import aggregate, clipped, lengths
from tests.mpc import test_logistic_round, test_model_classes
from tests.mpc.test_ring_nodes import chi2
from tests.mpc.test_ring_privacy import Tap
from tests.support.ring import (
    four,
    joined,
    plain_function,
    ring_function,
    threads_of,
    three,
    three_processes,
    verified_threads,
)
from tests.support.shamir import SETTINGS, run_threads, shamir_function
from workers.mpc.engines import plain, ring, ring_verified, shamir
from workers.mpc.fixed import decode, encode
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.keystream import Keystream
from workers.mpc.transport import LocalMesh

ROUND = CIRCUITS["logistic_round@1"]
NOISE = {CLIP: 2000, RHO: 500_000}
COUNT, SIGMA = 2000, 1 << 22
WAYS = {
    # what each engine's numbers vary by, for a variance of 1: all contributions, not all but t
    "plain": (plain_function, 3 / 2),
    "ring": (ring_function, 3 / 2),
    "verified": (lambda function: ring_function(function, n=4), 6 / 3),
    **{
        f"shamir{setting}": (
            lambda function, s=setting: shamir_function(function, setting=s),
            len(setting[2]) / (len(setting[2]) - setting[1]),
        )
        for setting in SETTINGS
    },
}


def test_the_sampler_draws_the_discrete_gaussian() -> None:
    drawn = discrete_gaussian(Keystream(os.urandom(32)), 4, 12_000)
    places = np.arange(-7, 8)
    mass = np.exp(-(places**2) / 8)
    wanted = len(drawn) * mass / np.sum(np.exp(-(np.arange(-40, 41) ** 2) / 8))
    seen = np.array([(drawn == place).sum() for place in places])
    assert np.sum((seen - wanted) ** 2 / wanted) < 60  # 15 degrees: beyond once in 10^6 runs


def test_the_sampler_follows_its_key_and_reaches_large_numbers() -> None:
    first, again = (discrete_gaussian(Keystream(b"k" * 32), 1 << 80, 300) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert 0.7 < np.std(first.astype(float)) / 2.0**40 < 1.3
    assert len(set((first & 0xFF).tolist())) > 120  # to the last bit, not a float's


@pytest.mark.parametrize("way", WAYS)
def test_every_engine_makes_noise_of_its_size(way) -> None:
    run, factor = WAYS[way]
    drawn = run(lambda ops: ops.noise((COUNT // 2, 2), variance=SIGMA**2, f=24))
    assert drawn.shape == (COUNT // 2, 2)
    scaled = drawn.reshape(-1) / (SIGMA * np.sqrt(factor))
    # six standard deviations of each estimate, nine where tails are heavy
    assert abs(np.mean(scaled)) < 6 / np.sqrt(COUNT)
    assert abs(np.var(scaled) - 1) < 6 * np.sqrt(2 / COUNT)
    assert abs(np.mean(scaled**4) - 3) < 9 * np.sqrt(96 / COUNT)


@pytest.mark.parametrize("engine", [ring, shamir])
def test_all_nodes_but_one_suffice(monkeypatch, engine) -> None:
    """Whoever brings in nothing, or knows its own, leaves the variance that was asked for."""
    sampler, gone = discrete_gaussian, set()

    def drawing(stream, variance, count):
        drawn = sampler(stream, variance, count)
        return np.zeros_like(drawn) if threading.get_ident() in gone else drawn

    monkeypatch.setattr(engine, "discrete_gaussian", drawing)

    def noise(ops):
        if ops.net.me == 1:
            gone.add(threading.get_ident())
        return ops.noise((COUNT,), variance=SIGMA**2, f=24)

    drawn = ring_function(noise) if engine is ring else shamir_function(noise)
    assert abs(np.var(drawn / SIGMA) - 1) < 6 * np.sqrt(2 / COUNT)


def test_a_node_of_the_verified_ring_knows_what_three_of_six_pairs_draw(monkeypatch) -> None:
    """Two nodes draw each, and alike, so that none can bring in what it likes."""
    seeds = {}
    sampler = discrete_gaussian

    def drawing(stream, variance, count):
        drawn = sampler(stream, variance, count)
        seeds.setdefault(threading.get_ident(), []).append(drawn.tobytes())
        return drawn

    monkeypatch.setattr(ring_verified, "discrete_gaussian", drawing)
    ring_function(lambda ops: ops.noise((3,), variance=SIGMA**2, f=24), n=4)
    known = [set(drawn) for drawn in seeds.values()]
    assert [len(drawn) for drawn in known] == [ring_verified.PAIRS_UNKNOWN] * 4
    pairs = [one & other for one, other in combinations(known, 2)]
    assert [len(both) for both in pairs] == [1] * 6 and len(set.union(*pairs)) == 6


@pytest.mark.parametrize("nodes", [3, 4])
def test_nothing_that_a_node_receives_of_noise_tells_it(nodes) -> None:
    taps = [Tap(transport) for transport in LocalMesh(nodes).transports]

    def work(transport):
        with np.errstate(over="ignore"):
            made = {3: three, 4: four}[nodes](transport)
            return made.noise((COUNT,), variance=SIGMA**2, f=24).words

    words = threads_of(work, taps)
    assert not [answer for answer in words if isinstance(answer, Exception)]
    for tap, own in zip(taps, words, strict=True):
        heard = [data[-8 * COUNT :] for _, seq, data in tap.seen if len(data) >= 8 * COUNT]
        assert heard and all(chi2(data) < 400 for data in heard)
        assert max(chi2(np.ascontiguousarray(word).tobytes()) for word in own) < 400


# ---- a round ------------------------------------------------------------------------------------


def noised_round(**changes):
    updates, blocks, params = test_logistic_round.federation(7, **changes)
    return test_logistic_round.encoded(updates, blocks), params, params | NOISE


def test_a_round_adds_noise_of_the_stated_size_and_evidence_is_of_that_model() -> None:
    values, params, asked = noised_round(rows=(40,), strata=0, bad=False)
    none = plain.run_plain(ROUND, values, asked, noise=lambda count, variance: np.zeros(count, int))
    told = []

    def given_noise(count, variance):
        told.append(variance)
        return np.arange(1, count + 1) << 22

    outcome = plain.run_plain(ROUND, values, asked, noise=given_noise)
    phi = outcome.openings["phi_milli"]
    assert none.openings["phi_milli"] == phi  # φ is found before, and is not covered
    assert told == [variance_of(asked, phi, params["features"] + 1)]
    moved = (outcome.result.words[0] - none.result.words[0]).astype(np.int64)
    np.testing.assert_array_equal(moved, np.arange(1, 7) << 22)
    assert outcome.openings["log_loss_milli"] != none.openings["log_loss_milli"]
    assert none.openings.keys() == plain.run_plain(ROUND, values, params).openings.keys()


def test_the_median_has_no_part_where_the_length_is_public() -> None:
    """How long one site's update is moves no other's; without a budget it does."""
    values, params, asked = noised_round(rows=(40,), strata=0, bad=False)
    ops = plain.Plain()

    def kept(own, given):
        updates = np.array([own, *values["update"][1:]])
        secret = plain.Shared((updates.astype(np.uint64),), 16)
        with np.errstate(over="ignore"):
            found = clipped(ops, secret, *lengths(ops, secret), bound_of(given))
        return plain.signed(found)[1:]

    short, long = values["update"][0] // 9, values["update"][0] * 9
    np.testing.assert_array_equal(kept(short, asked), kept(long, asked))
    assert np.any(kept(short, params) != kept(long, params))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 600),
    st.floats(-9, 6),
    st.sampled_from([100, 700, 2000, 64_000]),
    st.integers(0, 2**32),
)
def test_no_update_stays_longer_than_the_circuit_counts_with(size, log_length, clip, seed) -> None:
    """Of any length and shape, all 64s too: C' = C + (C + 1)·2^−8."""
    rng = np.random.default_rng(seed)
    updates = rng.normal(size=(3, size)) * 2.0**log_length
    updates[1] = 64
    words = np.rint(np.clip(updates, -64, 64) * 2**16).astype(np.int64)
    ops, secret = plain.Plain(), plain.Shared((words.astype(np.uint64),), 16)
    with np.errstate(over="ignore"):
        found = plain.signed(
            clipped(ops, secret, *lengths(ops, secret), bound_of({CLIP: clip, RHO: 1}))
        )
    bound = clip / 1000
    longest = np.linalg.norm(found / 2.0**MODEL_F, axis=1)
    assert np.all(longest <= bound + (bound + 1) * 2.0**-SLACK_BITS)
    before = np.linalg.norm(words / 2.0**16, axis=1)
    assert np.allclose(longest, np.minimum(before, bound), rtol=2e-3, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200),
    st.lists(st.integers(0, 1000), min_size=3, max_size=8).filter(lambda w: max(w) > 0),
    st.sampled_from([100, 700, 2000, 64_000]),
    st.integers(0, 2**32),
)
def test_no_other_update_of_one_site_moves_the_model_further_than_the_noise_is_made_for(
    size, phi, clip, seed
) -> None:
    """Δ, as the noise counts it, against two updates of the heaviest site at the same φ."""
    rng, params = np.random.default_rng(seed), {CLIP: clip, RHO: 500_000}  # σ = Δ
    scale = 2.0 ** rng.uniform(-6, 6, (len(phi), 1))
    one = rng.normal(size=(len(phi), size)) * scale
    other = one.copy()
    site = int(np.argmax(phi))
    other[site] = -one[site] if seed % 2 else 64 * np.sign(rng.normal(size=size))

    def model(updates):
        words = np.rint(np.clip(updates, -64, 64) * 2**16).astype(np.int64).astype(np.uint64)
        ops, secret = plain.Plain(), plain.Shared((words,), 16)
        with np.errstate(over="ignore"):
            kept = clipped(ops, secret, *lengths(ops, secret), bound_of(params))
            return plain.signed(aggregate(ops, kept, phi)).astype(float)

    moved = float(np.linalg.norm(model(one) - model(other)))
    assert moved**2 <= variance_of(params, phi, size)


@pytest.mark.parametrize("name", ["logistic", "linear"])
def test_a_round_with_noise_runs_on_every_engine(name) -> None:
    if name == "logistic":
        values, _, asked = noised_round(features=2, rows=(30,), strata=0, bad=False)
    else:
        *_, values, params = test_model_classes.federation(name, "taylor", rows=(30,))
        asked = params | NOISE
    circuit = CIRCUITS[CLASSES[name].round_id]
    still = plain.run_plain(
        circuit, values, asked, noise=lambda count, variance: np.zeros(count, int)
    )
    phi = np.array(still.openings["phi_milli"])
    shares = phi if name == "logistic" else phi > 0
    size = asked["features"] + 1
    sigma = np.sqrt(variance_of(asked, shares.astype(int).tolist(), size) * 2.0) / 2**MODEL_F
    base = decode(still.result.words[0], MODEL_F)
    made = [
        joined(three_processes(circuit, values, asked), "result"),
        joined(verified_threads(circuit, values, asked), "result"),
    ]
    for words in made:
        apart = np.abs(decode(words.astype(np.uint64), MODEL_F) - base)
        assert np.all(apart < 8 * sigma) and np.max(apart) > 1e-4 * sigma
    outcomes = run_threads(circuit, values, asked)
    assert np.max(np.abs(np.array(outcomes[0].openings["phi_milli"]) - phi)) <= 1


def test_a_solved_round_under_a_budget_is_the_mean_of_what_each_site_solves_alone() -> None:
    """Those with φ > 0 alike, each shortened to C; the last one's labels are turned."""
    *_, values, params = test_model_classes.federation("linear", "taylor")
    sites = test_model_classes.site_rows(test_model_classes.drawn(np.random.default_rng(3), 1)[1])
    clip, told = 0.7, []

    def silent(count, variance):
        told.append(variance)
        return np.zeros(count, int)

    asked = params | {CLIP: 700, RHO: 500_000}
    outcome = plain.run_plain(CIRCUITS["linear_round@1"], values, asked, noise=silent)
    phi = np.array(outcome.openings["phi_milli"])
    assert phi[-1] == 0 and (phi > 0).sum() == 4
    # each with its own number of rows, however many more than the others it says
    own = np.array([
        test_model_classes.solution([site], [len(site[1])]).reshape(-1) for site in sites
    ])  # fmt: skip
    length = np.linalg.norm(own, axis=1)
    assert (length > clip).any()
    kept = own * np.minimum(1, clip / length)[:, None]
    found = decode(outcome.result.words[0], MODEL_F)
    np.testing.assert_allclose(found, kept[phi > 0].mean(axis=0), atol=2e-3)
    assert told == [variance_of(asked, (phi > 0).astype(int).tolist(), params["features"] + 1)]


WORDS = st.sampled_from([
    lambda rng, size: rng.integers(-(2**63), 2**63 - 1, size),
    lambda rng, size: rng.integers(-(2**22), 2**22, size),
    lambda rng, size: np.rint(rng.normal(size=size) * 2**16).astype(np.int64),
    lambda rng, size: np.zeros(size, np.int64),
])  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), WORDS, WORDS, st.sampled_from([100, 700, 5000]), st.integers(0, 2**32))
def test_no_sums_of_one_site_move_a_solved_model_further_than_the_noise_is_made_for(
    features, one, other, clip, seed
) -> None:
    """Of any two updates: whatever one site sends as factor and number of rows, what the others
    solve stays the same to the bit, and the mean moves by less than Δ."""
    rng = np.random.default_rng(seed)
    params = {"features": features, CLIP: clip, RHO: 500_000}  # σ = Δ
    size, shares = least_squares.size(params), [1, 1, 1, 0]
    common = [
        encode(least_squares.factor_of(rng.normal(size=(n, features)), rng.normal(size=n)))
        for n in (12, 60, 900)
    ]

    def sent(own):
        ops = plain.Plain()
        words = np.stack([own.astype(np.uint64), *(each.astype(np.uint64) for each in common)])
        with np.errstate(over="ignore"):
            solved, *_ = least_squares.models(ops, plain.Shared((words,), 16), params)
            solved = ops.clamp(solved, -(64 << 16), 64 << 16)
            kept = clipped(ops, solved, *lengths(ops, solved), bound_of(params))
            return plain.signed(kept)[1:], plain.signed(aggregate(ops, kept, shares)).astype(float)

    (left, first), (right, second) = (sent(each(rng, size)) for each in (one, other))
    np.testing.assert_array_equal(left, right)
    moved = float(np.linalg.norm(first - second))
    assert moved**2 <= variance_of(params, shares, features + 1)


@pytest.mark.parametrize("name", [n for n, m in CLASSES.items() if m.noises and n != "logistic"])
def test_other_averaged_classes_get_it_too_and_stay_within_their_words(name) -> None:
    values, params = test_model_classes.federation(name, "taylor", rows=(40,))[-2:]
    limit = WEIGHT_LIMIT << MODEL_F
    outcome = plain.run_plain(
        CIRCUITS[CLASSES[name].round_id],
        values,
        params | NOISE,
        noise=lambda count, variance: np.full(count, 1 << 45),
    )
    found = plain.signed(outcome.result)
    if CLASSES[name].intercept:
        np.testing.assert_array_equal(found, limit)
    else:
        np.testing.assert_array_equal(found[:-1], limit)
        assert found[-1] == 0
