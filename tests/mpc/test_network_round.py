"""A round of networks: the mean of what sites' steps changed, and who sent something else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.protocol import descent
from apps.protocol.circuits import CIRCUITS, CLASSES, network_round
from apps.protocol.circuits.declare import BadParams
from apps.protocol.circuits.layout import INPUT_F, MODEL_F
from apps.protocol.circuits.network_round import LENGTH_MAX, measured
from tests.support.ring import joined, ring_function, three_processes, verified_threads
from tests.support.shamir import run_threads, shamir_function
from workers.mpc.engines.plain import Plain, Shared, run_plain, signed
from workers.mpc.fixed import decode, encode
from workers.mpc.proving import prove

FEATURES, CLASS_COUNT, SITES = 4, 3, 5
UNITS = {"mlp": (6,), "mlp2": (6, 4)}


def labelled(rng, count):
    x = rng.normal(size=(count, FEATURES))
    return x, np.eye(CLASS_COUNT)[np.argmax(np.abs(x[:, :CLASS_COUNT]), axis=1)]


def federation(name, *, rows=(40, 36, 44), seed=1):
    """Sites that learn rows of their own, the last one's labels moved by one class."""
    rng, units = np.random.default_rng(seed), UNITS[name]
    start = descent.public_start([FEATURES, *units, CLASS_COUNT])
    changes = []
    for site in range(SITES):
        x, y = labelled(rng, 150)
        found = descent.learnt(x, np.roll(y, site == SITES - 1, axis=1), units, c=1.0)
        parts = [(new - old).reshape(-1) for new, old in zip(found, start, strict=True)]
        changes.append(np.concatenate(parts))
    holdouts = [labelled(rng, count) for count in rows]
    params = {
        **{"features": FEATURES, "classes": CLASS_COUNT, "strata": 0, "rows": list(rows)},
        **{"min_cell": 5, "scoring": "taylor"},
        **dict(zip(CLASSES[name].unit_names, units, strict=True)),
    }
    values = {
        "update": [encode(change).astype(np.int64) for change in changes],
        "holdout": [encode(np.column_stack(each)).astype(np.int64) for each in holdouts],
    }
    return np.array(changes), holdouts, values, params


def flat(layers):
    return np.concatenate([each.reshape(-1) for each in layers])


@pytest.mark.parametrize("name", UNITS)
def test_a_round_of_networks_follows_the_equations(name):
    """M-FL3: φ, the model and its evidence, of several validators by their median."""
    changes, holdouts, values, params = federation(name)
    outcome = run_plain(CIRCUITS[f"{name}_round@1"], values, params)
    scoring = [(x[::2], y[::2]) for x, y in holdouts]
    phi, _ = descent.averaged(changes, scoring, UNITS[name])
    opened = outcome.openings
    assert opened["phi_milli"] == pytest.approx(1000 * phi, abs=3)
    assert opened["phi_milli"][-1] == 0 and min(opened["phi_milli"][:-1]) > 0
    assert (opened["void"], opened["copies"]) == (0, [])

    given_phi = np.array(opened["phi_milli"]) / 1000
    length = np.linalg.norm(changes, axis=1)
    kept = changes * np.minimum(1, np.median(length) / length)[:, None]
    widths = [FEATURES, *UNITS[name], CLASS_COUNT]
    model = descent.moved(widths, given_phi @ kept / given_phi.sum())
    assert np.max(np.abs(decode(outcome.result.words[0], MODEL_F) - flat(model))) < 1e-4
    x, y = (np.concatenate(part) for part in zip(*((x[1::2], y[1::2]) for x, y in holdouts)))
    right = np.mean(np.argmax(descent.scores_of(model, x), axis=1) == np.argmax(y, axis=1))
    assert opened["support"] == [60] and right > 0.5
    assert opened["accuracy_milli"] == pytest.approx(1000 * right, abs=1)


@pytest.mark.parametrize("name", UNITS)
def test_every_engine_computes_the_same_round_of_networks(name, monkeypatch):
    _, _, values, params = federation(name, rows=(30,))
    values["update"][-1] = SPOILT["any words"](np.random.default_rng(2), values["update"][0].size)
    circuit = CIRCUITS[f"{name}_round@1"]
    plain = run_plain(circuit, values, params)
    assert plain.openings["phi_milli"][-1] == 0
    outcomes = three_processes(circuit, values, params), verified_threads(circuit, values, params)
    for found in outcomes:
        assert found[0].openings["copies"] == []
        assert found[0].openings["phi_milli"] == pytest.approx(plain.openings["phi_milli"], abs=2)
        apart = joined(found, "result").astype(np.int64) - plain.result.words[0].astype(np.int64)
        # φ that is opened may differ by a thousandth, and no weight changed by more than 2
        assert np.max(np.abs(apart)) < 2**MODEL_F / 250
    if name == "mlp":  # with fewer comparisons, which take their time on Shamir shares
        monkeypatch.setattr(network_round, "BUCKETS", 8)
        shamir = run_threads(circuit, values, params)
        assert shamir[0].openings["phi_milli"] == pytest.approx(plain.openings["phi_milli"], abs=2)


def test_a_copy_gets_nothing_more_and_counts_once():
    _, _, values, params = federation("mlp")
    values["update"][3] = values["update"][0] // 2
    opened = run_plain(CIRCUITS["mlp_round@1"], values, params).openings
    assert opened["copies"] == [[0, 3]] and opened["void"] == 0
    values["update"][2] = values["update"][1]
    assert run_plain(CIRCUITS["mlp_round@1"], values, params).openings["void"] == 1


SPOILT = {
    "any words": lambda rng, size: rng.integers(-(2**63), 2**63 - 1, size),
    "the top bit everywhere": lambda rng, size: np.full(size, -(2**63)),
    "the top bit once": lambda rng, size: np.eye(1, size, 3, dtype=np.int64)[0] << 63,
    "half a word in two places": lambda rng, size: (
        (np.arange(size) < 2).astype(np.int64) * -(2**62)
    ),
    "as long as may be, and a little more": lambda rng, size: np.full(
        size, round(1.01 * (LENGTH_MAX << INPUT_F) / size**0.5)
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_who_sends_what_is_no_update_sends_nothing_and_spoils_nothing(what):
    """M-FL7: garbage shares. The others' φ and model are those of a round with a zero there."""
    _, _, values, params = federation("mlp")
    circuit, size = CIRCUITS["mlp_round@1"], len(values["update"][2])
    spoilt = SPOILT[what](np.random.default_rng(5), size)
    both = []
    for given_words in (spoilt, np.zeros(size, np.int64)):
        values["update"][2] = given_words
        both.append(run_plain(circuit, values, params))
    assert both[0].openings == both[1].openings
    np.testing.assert_array_equal(both[0].result.words[0], both[1].result.words[0])


def test_who_sends_what_is_no_update_is_not_paid_where_most_go_uphill():
    """Nor counts among the three that a round needs."""
    _, _, values, params = federation("mlp")
    update = values["update"]
    values["update"] = [update[0], -update[1], -update[2], update[3], update[4]]
    values["update"][4] = SPOILT["the top bit everywhere"](None, len(update[0]))
    opened = run_plain(CIRCUITS["mlp_round@1"], values, params).openings
    assert opened["phi_milli"][4] == 0 and sum(map(bool, opened["phi_milli"])) == 2
    assert opened["void"] == 1


def test_a_node_takes_no_more_numbers_than_it_can_hold():
    circuit = CIRCUITS["mlp_round@1"]
    params = {"features": 1000, "hidden_1": 995, "classes": 4, "scoring": "taylor"}
    shape_of = circuit.slots["update"].shape
    assert shape_of(params, 32) == (999_979,)
    with pytest.raises(BadParams, match="33 custodians"):
        shape_of(params, 33)


def test_what_is_as_long_as_it_may_be_counts():
    size = 3000
    even = np.full(size, int((LENGTH_MAX << INPUT_F) / size**0.5))
    once = np.eye(1, size, 7, dtype=np.int64)[0] * (LENGTH_MAX << INPUT_F)
    ops, words = Plain(), np.stack([even, once, -once, 0 * once]).astype(np.uint64)
    for _ in range(20):
        with np.errstate(over="ignore"):
            good, gram = measured(ops, [Shared((each,), INPUT_F) for each in words])
        assert signed(good).tolist() == [1, 1, 1, 1]
        assert np.diag(signed(gram)).tolist() == [int(w @ w) for w in (even, once, once, 0 * once)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**32), st.integers(0, 63))
def test_no_words_pass_for_short_ones(size, seed, bits):
    """However few of them are large, and of which powers of two they are."""
    rng = np.random.default_rng(seed)
    words = np.zeros(size, np.int64)
    at = rng.integers(0, size, rng.integers(1, size + 1))
    words[at] = rng.integers(-(2**63), 2**63 - 1, len(at)) << np.int64(bits)
    ops = Plain()
    with np.errstate(over="ignore"):
        good, _ = measured(ops, [Shared((words.astype(np.uint64),), INPUT_F)] * 2)
    length = np.linalg.norm(words.astype(float)) / 2**INPUT_F
    assert signed(good).tolist() == [int(length <= LENGTH_MAX)] * 2


@pytest.mark.parametrize(
    "run", [ring_function, shamir_function, lambda f, *x: ring_function(f, *x, n=4)]
)
def test_random_sums_are_of_all_numbers_and_not_the_same_twice(run):
    """Each number in one bucket of each table, with one sign: squares of powers tell which."""
    given_words = np.array([1 << np.arange(0, 40, 2), np.ones(20, np.int64)])
    sums = run(lambda ops, a: ops.random_sums(a, 3, 4), (given_words, 0)).astype(np.int64)
    assert sums.shape == (2, 3, 4)
    assert np.array_equal(sums.sum(axis=2) % 2, [[1] * 3, [0] * 3])
    tables = set()
    for powers, ones in zip(sums[0], sums[1], strict=True):
        signs = np.zeros((4, 20), np.int64)
        for bucket, total in enumerate(powers.tolist()):
            for place in range(20):  # digits −1, 0 and 1 to base 4
                digit = (total + 1) % 4 - 1
                signs[bucket, place], total = digit, (total - digit) // 4
        assert np.array_equal(np.abs(signs).sum(axis=0), np.ones(20))
        assert np.array_equal(signs.sum(axis=1), ones)
        tables.add(signs.tobytes())
    assert len(tables) == 3


def test_a_network_of_a_million_weights_is_proved():
    """M-FL8: ten sites of 10^6 numbers."""
    params = {
        **{"features": 1000, "hidden_1": 995, "classes": 4, "strata": 0, "rows": [200]},
        **{"min_cell": 5, "scoring": "taylor"},
    }
    assert CLASSES["mlp"].weights(params) == 999_979
    prove(CIRCUITS["mlp_round@1"], params, {"update": 10})
