"""Rounds and queries of every model class: in the clear, on three processes, and on Shamir."""

from dataclasses import replace

import numpy as np
import pytest

from apps.protocol import aggregation, contribution
from apps.protocol.circuits import CIRCUITS, CLASSES, by_name
from apps.protocol.circuits.games import coalitions
from apps.protocol.circuits.least_squares import factor_of
from apps.protocol.metrics import c_index, r_squared, r_squared_spread, ratio_spread, skill
from tests.support.ring import joined, three_processes
from tests.support.shamir import run_threads
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode

SITES, FEATURES, CLASS_COUNT = 5, 3, 4
NEW = ["multinomial", "linear", "forecaster", "poisson", "cox"]
SOLVED = ("linear", "forecaster")


def loss(name, z, y):
    """[…] mean loss of scores z [o, m] on targets y; a survival time is −t where it is censored."""
    if name == "cox":  # rows in the order of their times
        z, later = z[..., 0, :], np.flip(np.exp(z[..., 0, :]), -1)
        return np.mean((y > 0) * (np.log(np.flip(np.cumsum(later, -1), -1)) - z), -1)
    if name == "multinomial":
        return np.mean(
            np.log(np.exp(z).sum(-2)) - np.take_along_axis(z, y[None], -2)[..., 0, :], -1
        )
    if name in SOLVED:
        return np.mean((y - z[..., 0, :]) ** 2, -1) / 2
    return np.mean(np.exp(z[..., 0, :]) - y * z[..., 0, :], -1)


def drawn(rng, outputs):
    """(true weights, those of the sites), the last site's turned round."""
    truth = rng.normal(size=(outputs, FEATURES + 1)) * 0.5
    updates = truth + rng.normal(size=(SITES, outputs, FEATURES + 1)) * 0.2
    updates[-1] = -truth
    return truth, updates


def federation(name, scoring, *, seed=3, rows=(40, 36, 44)):
    """Updates near a true model, the last one turned round; holdouts drawn from it."""
    rng = np.random.default_rng(seed)
    model = CLASSES[name]
    params = {
        "features": FEATURES,
        "strata": 2,
        "rows": list(rows),
        "min_cell": 5,
        "scoring": scoring,
        **({"classes": CLASS_COUNT} if model.extras else {}),
    }
    outputs = model.outputs(params)
    truth, updates = drawn(rng, outputs)
    shared = updates.reshape(SITES, -1).copy()
    if name == "cox":  # the likelihood has no intercept, so that what sites send there is dropped
        updates[..., -1] = 0
    if name in SOLVED:
        sites = site_rows(updates)
        shared = [factor_of(x, t) for x, t in sites]
        updates = np.array([solution([site], [s]) for site, s in zip(sites, rows_of(sites))])
    x = rng.normal(size=(sum(rows), FEATURES))
    z = x @ truth[:, :-1].T + truth[:, -1]
    if name == "multinomial":
        y = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
        columns = np.eye(CLASS_COUNT)[y]
    elif name == "cox":
        born, watched = rng.exponential(np.exp(-z[:, 0])), rng.exponential(1.5, len(x))
        y = np.where(born <= watched, born, -watched).clip(-2, 1.999)
        order = np.lexsort((np.abs(y), np.repeat(np.arange(len(rows)), rows)))
        x, y, z = x[order], y[order], z[order]
        columns = np.column_stack([np.abs(y), y > 0])
    else:
        y = z[:, 0] + rng.normal(size=len(x)) * 0.3 if name in SOLVED else None
        y = np.clip(y, -2, 2) if name in SOLVED else rng.poisson(np.exp(z[:, 0])).astype(float)
        columns = y[:, None]
        if name == "forecaster":
            columns = np.column_stack([y, naive_of(x)])
    groups = np.eye(2)[rng.integers(0, 2, len(x))]
    blocks = np.split(np.column_stack([x, columns, groups]), np.cumsum(rows)[:-1])
    values = {
        "update": [encode(u).astype(np.int64) for u in shared],
        "holdout": [encode(block).astype(np.int64) for block in blocks],
    }
    halves = [np.concatenate([np.arange(n) % 2 == half for n in rows]) for half in (0, 1)]
    return updates, x, y, groups, halves, values, params


def naive_of(x):
    """What a site says the naive forecast is: half of the first feature."""
    return np.clip(x[:, 0] / 2, -2, 2)


def site_rows(weights):
    """Rows of sites whose own models are about these; the largest counts as two median ones."""
    rng = np.random.default_rng(8)
    rows = [rng.normal(size=(count, FEATURES)) for count in (12, 40, 55, 300, 25)]
    return [
        (x, x @ w[0, :-1] + w[0, -1] + rng.normal(size=len(x)) * 0.2)
        for x, w in zip(rows, weights, strict=True)
    ]


def gram(x, t):
    """Mean of the rows' products, [d + 2, d + 2]."""
    rows = np.column_stack([x, np.ones(len(x)), t])
    return rows.T @ rows / len(rows)


def counted(sites):
    """How many rows of each site count in the model."""
    rows = rows_of(sites)
    lengths = [np.linalg.norm(np.triu(gram(x, t))) for x, t in sites]
    return np.minimum(rows, 2 * np.median(rows * lengths) / lengths)


def rows_of(sites):
    rows = [len(t) for _, t in sites]
    return np.minimum(rows, 2 * np.median(rows))


def solution(sites, shares):
    """[1, d + 1] of (Σ s_k G_k/n_k + I)·w = Σ s_k h_k/n_k, s_k the rows that count."""
    total, side = np.zeros((FEATURES + 1, FEATURES + 2)), FEATURES + 1
    for (x, t), s in zip(sites, shares, strict=True):
        total += gram(x, t)[:-1] * s
    penalty = np.diag([1.0] * FEATURES + [0.0])
    return np.linalg.solve(total[:, :side] + penalty, total[:, side])[None, :]


def model_of(name, flat, phi):
    """The round's model in real numbers."""
    if name not in SOLVED:
        return aggregation.aggregate(flat, phi)
    sites = site_rows(drawn(np.random.default_rng(3), 1)[1])
    return solution(sites, counted(sites) * (np.array(phi) > 0)).reshape(-1)


def equations(name, updates, x, y, half, rows, scoring):
    """φ of the same game in real numbers, the validators combined by their median."""
    flat = contribution.clip_to_median_norm(updates.reshape(SITES, -1))
    judge = np.repeat(np.arange(len(rows)), rows)
    said = [
        utilities(name, flat, x, y, half & (judge == place), scoring) for place in range(len(rows))
    ]
    return flat, contribution.phi_from_utilities(contribution.upper_median(said, [1] * len(rows)))


def utilities(name, flat, x, y, half, scoring):
    inputs = np.column_stack([x, np.ones(len(x))])[half]

    def loss_of(weights):
        z = weights.reshape(*weights.shape[:-1], -1, FEATURES + 1) @ inputs.T
        return loss(name, z, np.broadcast_to(y[half], z.shape[:-2] + (half.sum(),)))

    if scoring == "taylor":
        point, step = contribution.SCORING_POINT * flat.mean(0), 1e-5
        way = step * (flat - point)
        return (loss_of(point - way) - loss_of(point + way)) / 2 / step
    members, shares = coalitions(scoring, SITES)
    means = members / members.sum(1)[:, None] @ flat
    return (loss_of(np.zeros_like(flat[:1])) - loss_of(means)) @ shares


def test_two_classes_of_one_name_are_refused():
    one = CLASSES["linear"]
    assert by_name([one, one]) == {"linear": one}
    with pytest.raises(ValueError, match="same name"):
        by_name([one, replace(one, title="Another")])


CASES = [(name, scoring) for name in NEW for scoring in CLASSES[name].scorings]


@pytest.mark.parametrize(("name", "scoring"), CASES)
def test_a_round_follows_the_equations_and_its_evidence_is_true(name, scoring):
    updates, x, y, groups, halves, values, params = federation(name, scoring)
    outcome = run_plain(CIRCUITS[CLASSES[name].round_id], values, params)
    opened = outcome.openings
    flat, phi = equations(name, updates, x, y, halves[0], params["rows"], scoring)
    assert opened["phi_milli"] == pytest.approx(1000 * phi, abs=3)
    assert opened["phi_milli"][-1] == 0
    model = model_of(name, flat, opened["phi_milli"])
    assert np.max(np.abs(decode(outcome.result.words[0], 24) - model)) < 3e-5

    weights = model.reshape(-1, FEATURES + 1)
    z = x[halves[1]] @ weights[:, :-1].T + weights[:, -1]
    truth, member = y[halves[1]], groups[halves[1]] == 1
    naive = naive_of(x[halves[1]])
    cells = [np.ones(len(z), bool), member[:, 0], member[:, 1]]
    kinds = [[int(cell.sum()), int((cell & (truth > 0)).sum())] for cell in cells]
    assert opened["support"] == (kinds if name == "cox" else [rows for rows, _ in kinds])
    for at, cell in enumerate(cells):
        clear = metrics_of(name, z[cell], truth[cell], naive[cell])
        for metric, value in clear.items():
            found = [opened[f"{metric}_milli"], *opened[f"{metric}_strata_milli"]]
            assert found[at] == pytest.approx(1000 * value, abs=2)
    every = metrics_of(name, z, truth, naive)
    assert set(CLASSES[name].metrics) == {metric for metric in every if "spread" not in metric}
    if name == "multinomial":
        for label, found in enumerate(opened["classes"]):
            rows = truth == label
            right = np.mean(np.argmax(z[rows], axis=1) == label) if rows.any() else 0
            assert found is None or found == [rows.sum(), pytest.approx(1000 * right, abs=1)]


def metrics_of(name, z, y, naive):
    if name == "multinomial":
        each = np.array([loss(name, row[:, None], np.array([label])) for row, label in zip(z, y)])
        right = np.mean(np.argmax(z, axis=1) == y)
        return {"accuracy": right, "log_loss": each.mean(), "log_loss_spread": each.std()}
    if name == "cox":
        return {"c_index": c_index(z[:, 0], np.abs(y), y > 0)}
    found = np.exp(z[:, 0]) if name == "poisson" else z[:, 0]
    r2 = {"r2": r_squared(found, y), "r2_spread": r_squared_spread(found, y)}
    if name != "forecaster":
        return r2
    squared, absolute = skill(y, found, naive)
    spread = ratio_spread((y - found) ** 2, (y - naive) ** 2)
    return r2 | {"skill": squared, "skill_spread": spread, "mae_skill": absolute}


@pytest.mark.parametrize(("name", "scoring"), CASES)
def test_a_round_on_three_processes_agrees_with_plain(name, scoring):
    *_, values, params = federation(name, scoring)
    circuit = CIRCUITS[CLASSES[name].round_id]
    outcomes = three_processes(circuit, values, params)
    assert all(outcome.openings == outcomes[0].openings for outcome in outcomes)
    agree(outcomes[0].openings, run_plain(circuit, values, params).openings)


@pytest.mark.parametrize("name", NEW)
def test_a_round_on_shamir_shares_agrees_with_plain(name):
    *_, values, params = federation(name, "taylor", rows=(24,))
    circuit = CIRCUITS[CLASSES[name].round_id]
    agree(
        run_threads(circuit, values, params)[0].openings,
        run_plain(circuit, values, params).openings,
    )


def agree(one, other):
    """Equal up to a unit of rounding, wherever a number stands."""
    assert set(one) == set(other)
    for name, value in one.items():
        flat, wanted = (np.array(_numbers(x), float) for x in (value, other[name]))
        np.testing.assert_allclose(flat, wanted, atol=1, err_msg=name)


def _numbers(value):
    if isinstance(value, list):
        return [n for item in value for n in _numbers(item)]
    return [-1e6 if value is None else value]


@pytest.mark.parametrize("name", NEW)
def test_a_query_answers_all_scores_of_a_row(name):
    model = CLASSES[name]
    extras = {"classes": CLASS_COUNT} if model.extras else {}
    params = {"features": FEATURES, "rows": 6, **extras}
    outputs = model.outputs(params)
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=(outputs, FEATURES + 1)), rng.normal(size=(6, FEATURES))
    values = {
        "model": [encode(weights.reshape(-1), 24).astype(np.int64)],
        "row": [encode(x).astype(np.int64)],
    }
    outcomes = three_processes(CIRCUITS[model.infer_id("logit")], values, params)
    scores = decode(joined(outcomes, "sealed").astype(np.uint64), 16).reshape(6, outputs)
    expected = x @ weights[:, :-1].T + weights[:, -1]
    assert np.max(np.abs(scores - expected)) < 1e-3
    answers = model.answer(scores)
    assert answers.shape == (6, outputs)
    if name == "multinomial":
        assert np.allclose(answers.sum(axis=1), 1)


@pytest.mark.parametrize("name", NEW)
def test_garbage_of_a_site_and_a_validator_leaves_scores_and_metrics_sane(name):
    *_, values, params = federation(name, "taylor")
    rng = np.random.default_rng(0)
    values["update"][1] = rng.integers(-(2**63), 2**63 - 1, values["update"][1].shape)
    values["holdout"][1] = rng.integers(-(2**63), 2**63 - 1, values["holdout"][1].shape)
    opened = run_plain(CIRCUITS[CLASSES[name].round_id], values, params).openings
    assert all(0 <= phi <= 1000 for phi in opened["phi_milli"])
    for metric in CLASSES[name].metrics if not opened["void"] else ():
        assert -1000 <= opened[f"{metric}_milli"] <= 20_000


@pytest.mark.parametrize("name", NEW)
def test_extreme_inputs_stay_in_the_word(name):
    """The plain engine raises where an intermediate leaves it."""
    for scoring in CLASSES[name].scorings:
        *_, values, params = federation(name, scoring, rows=(2000, 2000))
        for at, update in enumerate(values["update"]):
            update[:] = (64 if at % 2 else -64) << 16
        for block in values["holdout"]:
            block[:, :FEATURES] = 16 << 16
            block[:, FEATURES : FEATURES + 1] = 1 << 30
        opened = run_plain(CIRCUITS[CLASSES[name].round_id], values, params).openings
        assert all(0 <= phi <= 1000 for phi in opened["phi_milli"])
