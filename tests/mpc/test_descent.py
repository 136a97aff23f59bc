"""Gradient steps on secret rows: in the clear, on three processes, and on Shamir shares."""

from dataclasses import replace

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES, BadParams, query_hash
from apps.protocol.circuits.descent import sgd_circuit
from apps.protocol.circuits.network import size_of, start_of
from apps.protocol.contribution import phi_from_utilities
from apps.protocol.descent import descend, same_rows, scores_of
from tests.support.ring import joined, three_processes
from tests.support.shamir import run_threads
from workers.mpc.engines.plain import Plain, run_plain
from workers.mpc.fixed import decode, encode

FEATURES, CLASS_COUNT = 3, 3
LINEAR = ["logistic", "multinomial", "linear"]
NAMES = [*LINEAR, "mlp", "mlp2"]
SCHEDULE = {
    "epochs": 4,
    "steps": 5,
    "rate_ppm": 300_000,
    "momentum_ppm": 500_000,
    "l2_ppm": 1_000,
    "patience": 0,
    "curve": 0,
}


def targets_of(name, z, rng):
    if name == "logistic":
        return (z + rng.logistic(size=z.shape) > 0).astype(float)
    if CLASSES[name].label == "classes":
        return np.eye(CLASS_COUNT)[np.argmax(z + rng.gumbel(size=z.shape), axis=1)]
    return np.clip(z + 0.3 * rng.normal(size=z.shape), -2, 2)


def federation(name, *, seed=5, site_rows=(60, 45, 52, 40), rows=(40, 36), bad=True, **schedule):
    """Sites that draw from one model, the last with its targets turned round; holdouts from it.

    (sites, each validator's scoring half, words by slot, parameters).
    """
    rng = np.random.default_rng(seed)
    model = CLASSES[name]
    params = {
        "features": FEATURES,
        "strata": 2,
        "rows": list(rows),
        "min_cell": 5,
        "site_rows": list(site_rows),
        **SCHEDULE,
        **schedule,
        **({"classes": CLASS_COUNT} if model.extras else {}),
    }
    truth = rng.normal(size=(model.outputs(params), FEATURES + 1))

    def drawn(count, turned=False):
        x = rng.normal(size=(count, FEATURES))
        z = x @ truth[:, :-1].T + truth[:, -1]
        return x, targets_of(name, -z if turned else z, rng)

    last = len(site_rows) - 1
    sites = [drawn(count, bad and at == last) for at, count in enumerate(site_rows)]
    x, y = drawn(sum(rows))
    strata = np.eye(2)[rng.integers(0, 2, len(x))]
    blocks = np.split(np.column_stack([x, y, strata]), np.cumsum(rows)[:-1])
    values = {
        "rows": [words(np.column_stack(site)) for site in sites],
        "holdout": [words(block) for block in blocks],
    }
    judged = zip(np.split(x, np.cumsum(rows)[:-1]), np.split(y, np.cumsum(rows)[:-1]), strict=True)
    return sites, [(x[::2], y[::2]) for x, y in judged], values, params


def words(values, f=16):
    return encode(values, f).astype(np.int64)


def weights_of(outcome):
    return decode(outcome.result.words[0], 24)


def in_the_clear(name, sites, holdout, params, **more):
    return descend(sites, holdout, params, kind=name, hidden=CLASSES[name].hidden, **more)


def flat(layers):
    return np.concatenate([each.reshape(-1) for each in layers])


def layers_of(weights, name, params):
    """[out, in + 1] of each layer."""
    found = []
    for into, out in CLASSES[name].layers(params):
        size = out * (into + 1)
        found.append(weights[:size].reshape(out, -1))
        weights = weights[size:]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_steps_follow_the_equations_and_a_bad_site_drops_out(name):
    sites, holdout, values, params = federation(name, patience=2, curve=1)
    outcome = run_plain(CIRCUITS[CLASSES[name].sgd_id], values, params)
    opened = outcome.openings
    clear = in_the_clear(name, sites, holdout, params)
    # a hidden unit within rounding of 0 may be alive in one of the two
    least = 5e-3 if CLASSES[name].hidden else 1e-3
    assert np.max(np.abs(weights_of(outcome) - flat(clear.layers))) < least
    assert opened["phi_milli"] == pytest.approx(1000 * phi_from_utilities(clear.utilities), abs=3)
    assert opened["phi_milli"][-1] == 0 and min(opened["phi_milli"][:-1]) > 100
    assert opened["improved"] == clear.improved
    # the loss of logistic regression is a polynomial, within 0.0103 of the true one
    assert opened["curve_milli"] == pytest.approx([1000 * gain for gain in clear.gains], abs=12)


@pytest.mark.parametrize("name", NAMES)
def test_a_site_that_does_not_help_has_no_part_in_the_steps(name):
    # of an untrained network's features a site may look useful by chance: not of this one's
    sites, holdout, _, params = federation(name, seed=6)
    (x, y), found = sites[-1], []
    # but for the medians, and there what is over them by its place alone
    for longer in (4, 8):
        found.append(in_the_clear(name, [*sites[:-1], (longer * x, y)], holdout, params))
        assert found[-1].utilities[-1] < 0 < min(found[-1].utilities[:-1])
    np.testing.assert_allclose(*(flat(each.layers) for each in found), atol=1e-9)


def test_a_networks_sites_are_judged_by_rows_that_no_step_has_seen_yet():
    """In the first of two epochs: after it the validators' loss shows what was learnt."""
    _, _, values, params = federation("mlp", bad=False, epochs=2, steps=4, curve=1)
    circuit = CIRCUITS["mlp_sgd@1"]

    def opened():
        return run_plain(circuit, values, params).openings

    unseen = np.arange(len(values["rows"][3])) % 4 % 2 == 1
    first = opened()
    # this site's gradient is the shortest before and after, so nothing is cut otherwise
    values["rows"][3][unseen, :FEATURES] //= 2
    second = opened()
    assert first["phi_milli"] != second["phi_milli"]
    assert first["curve_milli"][0] == second["curve_milli"][0]
    values["rows"][3][~unseen, :FEATURES] //= 2
    assert opened()["curve_milli"][0] != second["curve_milli"][0]


@pytest.mark.parametrize("name", NAMES)
def test_three_processes_agree_with_plain(name):
    _, _, values, params = federation(name, patience=1, curve=1)
    circuit = CIRCUITS[CLASSES[name].sgd_id]
    outcomes = three_processes(circuit, values, params)
    assert all(outcome.openings == outcomes[0].openings for outcome in outcomes)
    plain = run_plain(circuit, values, params)
    agree(outcomes[0].openings, plain.openings)
    assert outcomes[0].result_f == circuit.result_f
    found = decode(joined(outcomes, "result").astype(np.uint64), 24)
    least = 5e-3 if CLASSES[name].hidden else 1e-4
    assert np.max(np.abs(found - decode(plain.result.words[0], 24))) < least


@pytest.mark.parametrize("name", NAMES)
def test_shamir_shares_agree_with_plain(name):
    _, _, values, params = federation(
        name, site_rows=(12, 10, 11), rows=(24,), bad=False, epochs=2, steps=2, patience=1
    )
    model = CLASSES[name]
    # comparisons are slow here: a few units show as much as many
    narrow = replace(model, hidden=tuple(3 for _ in model.hidden))
    circuit = sgd_circuit(narrow, goes_on=False)
    agree(
        run_threads(circuit, values, params)[0].openings,
        run_plain(circuit, values, params).openings,
    )


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_from_a_shared_model(name):
    sites, holdout, values, params = federation(name, bad=False)
    first = run_plain(CIRCUITS[CLASSES[name].sgd_id], values, params)
    model = CLASSES[name].sgd_on_id
    assert model in CIRCUITS[CLASSES[name].round_id].result_allows
    assert model in CIRCUITS[model].result_allows
    values["model"] = [first.result.words[0].astype(np.int64)]
    named = params | {"patience": 1, "normalisation": "ab" * 32}
    outcome = run_plain(CIRCUITS[model], values, named)
    start = layers_of(weights_of(first), name, params)
    clear = in_the_clear(name, sites, holdout, params | {"patience": 1}, start=start)
    assert outcome.openings["improved"] == clear.improved
    least = 5e-3 if CLASSES[name].hidden else 1e-3
    assert np.max(np.abs(weights_of(outcome) - flat(clear.layers))) < least


def test_from_a_model_of_zeros_the_steps_are_those_from_zero():
    _, _, values, params = federation("logistic", patience=1)
    fresh = run_plain(CIRCUITS["logistic_sgd@1"], values, params)
    values["model"] = [np.zeros(FEATURES + 1, np.int64)]
    named = params | {"normalisation": "ab" * 32}
    agree(run_plain(CIRCUITS["logistic_sgd_on@1"], values, named).openings, fresh.openings)


def test_training_stops_when_the_validators_loss_falls_no_more_and_the_best_epoch_counts():
    sites, holdout, values, params = federation(
        "logistic",
        site_rows=(12, 12, 12),
        bad=False,
        epochs=40,
        steps=1,
        rate_ppm=1_000_000,
        l2_ppm=0,
        patience=2,
    )
    outcome = run_plain(CIRCUITS["logistic_sgd@1"], values, params)
    told = outcome.openings["improved"]
    assert 3 < len(told) < 40 and told[-2:] == [0, 0]
    assert outcome.openings["curve_milli"] == []
    best = max(at for at, bit in enumerate(told) if bit) + 1
    clear = in_the_clear("logistic", sites, holdout, params | {"epochs": best, "patience": 0})
    assert np.max(np.abs(weights_of(outcome) - flat(clear.layers))) < 2e-3
    silent = run_plain(CIRCUITS["logistic_sgd@1"], values, params | {"patience": 0}).openings
    assert silent["improved"] == silent["curve_milli"] == []


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_a_validator_who_lies_decides_nothing_among_three(name):
    """Flipped labels of one of three: sites, and when to stop, are judged as without it."""
    sites, holdouts, values, params = federation(name, rows=(60, 56, 64), patience=2, curve=1)
    model, (x, y) = CLASSES[name], holdouts[2]
    lying = 1 - y if model.targets(params) == 1 else np.roll(y, 1, axis=1)
    held, width = values["holdout"][2], model.targets(params)
    targets = held[:, FEATURES : FEATURES + width]
    held[:, FEATURES : FEATURES + width] = (
        (1 << 16) - targets if width == 1 else np.roll(targets, 1, axis=1)
    )
    opened = run_plain(CIRCUITS[model.sgd_id], values, params).openings
    clear = in_the_clear(name, sites, [*holdouts[:2], (x, lying)], params)
    assert opened["phi_milli"] == pytest.approx(1000 * phi_from_utilities(clear.utilities), abs=3)
    assert opened["phi_milli"][-1] == 0 and min(opened["phi_milli"][:-1]) > 100
    assert opened["improved"] == clear.improved and opened["improved"][0] == 1
    assert opened["curve_milli"] == pytest.approx([1000 * gain for gain in clear.gains], abs=12)
    # who weighs more than the others without it decides, and no weight of half is accepted
    heavy = params | {"weights": [1, 1, 5]}
    with pytest.raises(BadParams, match="half of the weight"):
        CIRCUITS[model.sgd_id].validate(heavy)


def copied(site_rows=(60, 45, 52, 40)):
    """A federation whose last site has the first one's rows, in another order and relabelled, and
    some of its own; the second repeats what it has itself."""
    _, holdouts, values, params = federation("logistic", site_rows=site_rows, bad=False)
    first, last = values["rows"][0], values["rows"][-1]
    taken = 3 * len(last) // 4
    last[:taken] = first[::-1][:taken]
    last[:taken:5, -1] = (1 << 16) - last[:taken:5, -1]
    values["rows"][1][1::2] = values["rows"][1][::2][: len(values["rows"][1][1::2])]
    found = [
        (rows[:, :FEATURES] / 2.0**16, rows[:, FEATURES:] / 2.0**16) for rows in values["rows"]
    ]
    return found, holdouts, values, params


def test_who_shares_anothers_rows_is_found_and_both_count_half():
    sites, holdouts, values, params = copied()
    circuit = CIRCUITS["logistic_sgd@1"]
    outcome = run_plain(circuit, values, params)
    clear = in_the_clear("logistic", sites, holdouts, params)
    assert outcome.openings["copies"] == [[0, 3]] and clear.pairs == [(0, 3)]
    assert np.max(np.abs(weights_of(outcome) - flat(clear.layers))) < 1e-3
    assert outcome.openings["void"] == 0
    agree(three_processes(circuit, values, params)[0].openings, outcome.openings)
    *_, few, small = copied(site_rows=(12, 10, 11))
    small |= {"epochs": 1, "steps": 1}
    on_shamir, on_plain = (run(circuit, few, small) for run in (run_threads, run_plain))
    assert on_plain.openings["copies"] == [[0, 2]] and on_plain.openings["void"] == 1
    agree(on_shamir[0].openings, on_plain.openings)


def test_rows_that_many_have_make_nobody_a_copy():
    """Three binary features: each site has every row that another one has."""
    rng = np.random.default_rng(3)
    sites = [rng.integers(0, 2, (80, 3)).astype(float) for _ in range(4)]
    assert same_rows(sites) == []
    assert same_rows([*sites, *(rng.normal(size=(80, 3)) for _ in range(4))]) == []
    near = rng.normal(size=(80, 3))
    assert same_rows([near, near + rng.normal(0, 0.005, near.shape), *sites]) == [(0, 1)]
    assert same_rows([near, near + rng.normal(0, 0.05, near.shape), *sites]) == []


def test_no_model_where_fewer_than_three_sites_help():
    _, _, values, params = federation("logistic", site_rows=(60, 60, 60))
    outcome = run_plain(CIRCUITS["logistic_sgd@1"], values, params)
    assert outcome.openings["void"] == 1 and outcome.result is None
    assert sum(phi > 0 for phi in outcome.openings["phi_milli"]) < 3
    assert "auc_milli" not in outcome.openings


@pytest.mark.parametrize("name", NAMES)
def test_garbage_of_a_site_and_a_validator_leaves_everything_sane(name):
    _, _, values, params = federation(name, patience=2, curve=1)
    rng = np.random.default_rng(0)
    for slot in ("rows", "holdout"):
        values[slot][1] = rng.integers(-(2**63), 2**63 - 1, values[slot][1].shape)
    outcome = run_plain(CIRCUITS[CLASSES[name].sgd_id], values, params)
    assert all(0 <= phi <= 1000 for phi in outcome.openings["phi_milli"])
    if outcome.result is not None:
        assert np.max(np.abs(weights_of(outcome))) <= 64


@pytest.mark.parametrize("name", NAMES)
def test_extreme_inputs_and_schedules_stay_in_the_word(name):
    """The plain engine raises where an intermediate leaves it."""
    _, _, values, params = federation(
        name,
        site_rows=(200,) * 3,
        rows=(2000, 2000),
        epochs=8,
        rate_ppm=1_000_000,
        momentum_ppm=950_000,
        l2_ppm=1_000_000,
    )
    for at, block in enumerate((*values["rows"], *values["holdout"])):
        block[:, :FEATURES] = (16 if at % 2 else -16) << 16
        block[:, FEATURES : FEATURES + 1] = 1 << 30
    opened = run_plain(CIRCUITS[CLASSES[name].sgd_id], values, params).openings
    assert all(0 <= phi <= 1000 for phi in opened["phi_milli"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"rate_ppm": 1_000_001}, "rate_ppm"),
        ({"momentum_ppm": 999_999}, "momentum_ppm"),
        ({"curve": 2}, "curve"),
        ({"site_rows": [60, 45, 4, 40]}, "one for each step"),
        ({"site_rows": [60, "45", 52, 40]}, "one for each step"),
        ({"site_rows": []}, "site_rows"),
        ({"site_rows": [9000, 9000, 9000]}, "20000"),
        ({"rows": [1]}, "2 rows"),
        ({"scoring": "taylor"}, "exactly"),
    ],
)
def test_schedules_out_of_bounds_are_refused(change, says):
    *_, params = federation("logistic")
    with pytest.raises(BadParams, match=says):
        CIRCUITS["logistic_sgd@1"].validate({**params, **change})


@pytest.mark.parametrize("name", ["mlp", "mlp2"])
def test_a_network_answers_what_its_layers_say(name):
    rng = np.random.default_rng(1)
    sizes = {"features": FEATURES, "classes": CLASS_COUNT}
    weights = start_of(CLASSES[name].layers(sizes)) + rng.integers(-(2**20), 2**20, 1)
    rows = rng.normal(0, 3, (20, FEATURES))
    rows[0] = 1000  # clamped to 16
    values = {"model": [weights.astype(np.int64)], "row": [words(rows)]}
    circuit = CIRCUITS[CLASSES[name].infer_id("logit")]
    outcomes = three_processes(circuit, values, sizes | {"rows": 20})
    found = decode(joined(outcomes, "sealed").astype(np.uint64), 16).reshape(20, -1)
    layers = layers_of(weights / 2.0**24, name, sizes)
    np.testing.assert_allclose(found, scores_of(layers, np.clip(rows, -16, 16)), atol=2e-3)


def test_a_networks_scores_may_be_large_and_its_residuals_stay_true():
    """A softmax of scores that are cut to ±8 each would take 18 and 10 for equals."""
    z = np.random.default_rng(2).normal(0, 15, (200, 5))
    z[0] = [18, 10, 0, -20, 4]
    ops, model = Plain(), CLASSES["mlp"]
    scores = model.settle(ops, ops.public(words(z, 20), 20))
    found = model.residuals(ops, scores, ops.public(np.zeros(z.shape, np.int64), 0))
    each = np.exp(z - z.max(axis=1, keepdims=True))
    truth = -each / each.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decode(ops.open(found).astype(np.uint64), 20), truth, atol=1e-4)


@pytest.mark.parametrize(("name", "units"), [("mlp", (5,)), ("mlp2", (4, 70))])
def test_a_network_has_the_units_that_its_parameters_name(name, units):
    """More than 64, too, whose residuals flow back with fewer bits."""
    model, rng = CLASSES[name], np.random.default_rng(4)
    sites, holdouts, values, params = federation(name, bad=False, epochs=2)
    sizes = dict(zip(model.unit_names, units, strict=True))
    outcome = run_plain(CIRCUITS[model.sgd_id], values, params | sizes)
    clear = descend(sites, holdouts, params, kind=name, hidden=units)
    assert [len(each) for each in clear.layers[:-1]] == list(units)
    assert np.max(np.abs(weights_of(outcome) - flat(clear.layers))) < 5e-3
    on = {"model": [outcome.result.words[0].astype(np.int64)], "normalisation": "ab" * 32}
    more = run_plain(
        CIRCUITS[model.sgd_on_id],
        values | {"model": on["model"]},
        params | sizes | {"normalisation": on["normalisation"]},
    )
    assert len(more.result.words[0]) == len(outcome.result.words[0])
    rows = rng.normal(size=(9, FEATURES))
    asked = {"model": on["model"], "row": [words(rows)]}
    infer = CIRCUITS[model.infer_id("logit")]
    given = {"features": FEATURES, "classes": CLASS_COUNT, "rows": 9}
    answer = three_processes(infer, asked, given | sizes)
    found = decode(joined(answer, "sealed").astype(np.uint64), 16).reshape(9, -1)
    np.testing.assert_allclose(found, scores_of(clear.layers, rows), atol=2e-2)
    made = {"features": FEATURES, "classes": CLASS_COUNT}
    assert query_hash(infer.id, made | sizes) != query_hash(infer.id, made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_1": 4}, "hidden_2"),
        ({"hidden_1": 1025, "hidden_2": 4}, "hidden_1"),
        ({"hidden_1": 4, "hidden_2": True}, "hidden_2"),
        ({"hidden_1": 256, "hidden_2": 4, "features": 1000}, "steps are taken of .* weights"),
        ({"hidden_1": 1024, "hidden_2": 1024, "features": 1000}, "a network has .* weights"),
        ({"hidden_1": 256, "hidden_2": 4, "site_rows": [6000] * 3}, "16384 rows"),
    ],
)
def test_hidden_layers_out_of_bounds_are_refused(change, says):
    *_, params = federation("mlp2")
    with pytest.raises(BadParams, match=says):
        CIRCUITS["mlp2_sgd@1"].validate({**params, **change})
    with pytest.raises(BadParams, match="exactly"):
        CIRCUITS["mlp_sgd@1"].validate({**params, "hidden_2": 4})


def test_a_network_may_be_asked_and_trained_on_however_it_was_made():
    for name in ("mlp", "mlp2"):
        infers = tuple(CLASSES[name].infer_id(of) for of in CLASSES[name].resolutions)
        for made in (f"{name}_round@1", f"{name}_sgd@1"):
            assert CIRCUITS[made].result_allows == (*infers, f"{name}_sgd_on@1")


def test_a_networks_start_is_public_and_spread():
    layers = CLASSES["mlp2"].layers({"features": 9, "classes": 3})
    first = start_of(layers)
    assert np.array_equal(first, start_of(layers)) and first.shape == (size_of(layers),)
    into, out = layers[0]
    drawn = first[: out * (into + 1)].reshape(out, -1) / 2**24
    bound = np.sqrt(6 / (into + out))
    assert np.all(drawn[:, -1] == 0) and 0.9 * bound < np.abs(drawn).max() <= bound
    assert abs(drawn[:, :-1].mean()) < 0.1 * bound


def test_counts_have_no_steps_whose_words_would_overflow():
    assert not any(name.startswith("poisson_sgd") for name in CIRCUITS)
    infers = ("poisson_infer_band@1", "poisson_infer_rounded@1", "poisson_infer@1")
    assert CIRCUITS["poisson_round@1"].result_allows == infers


def agree(one, other):
    """Equal up to two units of rounding, wherever a number stands; decisions exactly."""
    assert set(one) == set(other)
    assert (one["void"], one["improved"]) == (other["void"], other["improved"])
    for name, value in one.items():
        flat, wanted = (np.array(_numbers(x), float) for x in (value, other[name]))
        np.testing.assert_allclose(flat, wanted, atol=2, err_msg=name)


def _numbers(value):
    if isinstance(value, list):
        return [n for item in value for n in _numbers(item)]
    return [-1e6 if value is None else value]
