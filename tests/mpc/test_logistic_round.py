"""A federated round on three processes against the plain engine and the equations."""

import numpy as np
import pytest

from apps.protocol import aggregation, contribution, metrics
from apps.protocol.circuits import CIRCUITS
from tests.support.ring import joined, three_processes
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode

ROUND, INFER = CIRCUITS["logistic_round@1"], CIRCUITS["logistic_infer@1"]
MIN_CELL = 5


def federation(seed, *, sites=6, features=5, rows=(40, 37, 44), strata=3, bad=True):
    """Updates near a true model; with `bad`, one is noise and one is flipped and scaled."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=features + 1)
    updates = truth + rng.normal(size=(sites, features + 1)) * 0.3
    if bad:
        updates[1] = rng.normal(size=features + 1) * 2
        updates[4] = -truth * 10
    x = rng.normal(size=(sum(rows), features))
    z = x @ truth[:-1] + truth[-1] + rng.logistic(size=len(x))
    y = (z > 0).astype(float)
    groups = np.eye(strata)[rng.integers(0, strata, len(x))]
    blocks = np.split(np.column_stack([x, y, groups]), np.cumsum(rows)[:-1])
    params = {"features": features, "strata": strata, "rows": list(rows), "min_cell": MIN_CELL}
    return updates, blocks, params


def encoded(updates, blocks):
    return {
        "update": [encode(u).astype(np.int64) for u in updates],
        "holdout": [encode(block).astype(np.int64) for block in blocks],
    }


def equations(updates, blocks, params, phi_opened):
    """The same round in real numbers, with the φ that was opened."""
    d = params["features"]
    scoring = np.concatenate([block[0::2] for block in blocks])
    proving = np.concatenate([block[1::2] for block in blocks])
    clipped = contribution.clip_to_median_norm(updates)
    scores = contribution.taylor_scores(clipped, scoring[:, :d], scoring[:, d])
    phi = contribution.phi_from_utilities(scores)
    model = aggregation.aggregate(clipped, phi_opened)
    logits = proving[:, :d] @ model[:-1] + model[-1]
    cells = [np.ones(len(proving), bool)]
    cells += [proving[:, d + 1 + r] == 1 for r in range(params["strata"])]
    aucs = [metrics.auc(logits[cell], proving[cell, d]) for cell in cells]
    right = [metrics.accuracy(logits[cell], proving[cell, d]) for cell in cells]
    support = [[int(cell.sum()), int(proving[cell, d].sum())] for cell in cells]
    return phi, model, aucs, right, support


def check_openings(openings, phi, aucs, right, support):
    assert np.max(np.abs(np.array(openings["phi_milli"]) - 1000 * phi)) <= 2
    assert openings["support"] == support
    measured = [openings["auc_milli"], *openings["auc_strata_milli"]]
    for value, exact, (total, positives) in zip(measured, aucs, support, strict=True):
        if min(positives, total - positives) < MIN_CELL:
            assert value is None
        else:
            assert abs(value - 1000 * exact) <= 1
    measured = [openings["accuracy_milli"], *openings["accuracy_strata_milli"]]
    for value, exact in zip(measured, right, strict=True):
        assert abs(value - 1000 * exact) <= 1


def test_round_on_three_processes_agrees_with_plain_and_with_the_equations():
    updates, blocks, params = federation(7)
    values = encoded(updates, blocks)
    outcomes = three_processes(ROUND, values, params)
    openings = outcomes[0].openings
    assert all(outcome.openings == openings for outcome in outcomes)
    plain = run_plain(ROUND, values, params)
    assert openings["support"] == plain.openings["support"]
    difference = np.array(openings["phi_milli"]) - np.array(plain.openings["phi_milli"])
    assert np.max(np.abs(difference)) <= 1
    assert abs(openings["auc_milli"] - plain.openings["auc_milli"]) <= 1

    phi, model, aucs, right, support = equations(updates, blocks, params, openings["phi_milli"])
    check_openings(openings, phi, aucs, right, support)
    assert openings["phi_milli"][1] <= 100
    assert openings["phi_milli"][4] == 0
    secret = joined(outcomes, "result")
    assert outcomes[0].result_f == ROUND.result_f == INFER.slots["model"].f
    assert np.max(np.abs(decode(secret.astype(np.uint64), 24) - model)) < 3e-5


@pytest.mark.parametrize("seed", range(4))
def test_round_in_the_clear_follows_the_equations(seed):
    updates, blocks, params = federation(seed, sites=5 + seed, features=3 + 9 * seed)
    outcome = run_plain(ROUND, encoded(updates, blocks), params)
    phi, model, aucs, right, support = equations(
        updates, blocks, params, outcome.openings["phi_milli"]
    )
    check_openings(outcome.openings, phi, aucs, right, support)
    assert np.max(np.abs(decode(outcome.result.words[0], 24) - model)) < 3e-5


def test_honest_sites_all_count():
    updates, blocks, params = federation(3, bad=False)
    outcome = run_plain(ROUND, encoded(updates, blocks), params)
    phi, *_ = equations(updates, blocks, params, outcome.openings["phi_milli"])
    assert np.max(np.abs(np.array(outcome.openings["phi_milli"]) - 1000 * phi)) <= 2


def test_fewer_than_three_contributions_make_no_model():
    """Two sites pull one way, two the other: the mean is 0 and only two can gain."""
    updates, blocks, params = federation(5, bad=False)
    opposed = np.stack([updates[0], updates[0], -updates[0], -updates[0]])
    outcomes = three_processes(ROUND, encoded(opposed, blocks), params)
    assert outcomes[0].openings == {"phi_milli": [1000, 1000, 0, 0], "void": 1}
    assert all(outcome.result is None for outcome in outcomes)


def test_small_cells_open_nothing():
    updates, blocks, params = federation(2)
    for block in blocks:
        block[:, -3:] = 0
        block[:, -3] = 1
    blocks[0][:6, -3:] = [0, 0, 1]
    openings = run_plain(ROUND, encoded(updates, blocks), params).openings
    assert openings["auc_milli"] is not None
    assert openings["auc_strata_milli"][1:] == [None, None]
    assert openings["accuracy_strata_milli"][1:] == [None, None]
    assert openings["support"][2] == [0, 0]


def test_garbage_words_of_one_site_do_no_more_than_a_clamped_update():
    updates, blocks, params = federation(11)
    values = encoded(updates, blocks)
    extremes = np.array([2**63 - 1, -(2**63), 2**62, -(2**62), 2**50, -1], np.int64)
    values["update"][2] = extremes
    outcomes = three_processes(ROUND, values, params)
    # garbage beyond ±2^62 lands on a bound; which one does not matter
    like = updates.copy()
    landed = run_plain(ROUND, values, params).openings
    assert np.max(np.abs(np.subtract(outcomes[0].openings["phi_milli"], landed["phi_milli"]))) <= 1
    like[2] = np.clip(extremes / 65536, -64, 64)
    model = aggregation.aggregate(
        contribution.clip_to_median_norm(like), outcomes[0].openings["phi_milli"]
    )
    secret = decode(joined(outcomes, "result").astype(np.uint64), 24)
    assert np.max(np.abs(secret)) <= 64
    if outcomes[0].openings["phi_milli"][2] == 0:
        assert np.max(np.abs(secret - model)) < 1e-3


def test_garbage_rows_of_one_validator_leave_counts_and_metrics_sane():
    updates, blocks, params = federation(12)
    values = encoded(updates, blocks)
    rng = np.random.default_rng(0)
    block = values["holdout"][1]
    block[1::2] = rng.integers(-(2**63), 2**63 - 1, block[1::2].shape)
    openings = run_plain(ROUND, values, params).openings
    ring = three_processes(ROUND, values, params)[0].openings
    assert ring["support"] == openings["support"]
    assert 0 <= ring["auc_milli"] <= 1000
    assert 0 <= ring["accuracy_milli"] <= 1000
    assert all(0 <= phi <= 1000 for phi in ring["phi_milli"])


@pytest.mark.parametrize("rows", [1, 33])
def test_inference_on_three_processes_is_sealed_and_accurate(rows):
    rng = np.random.default_rng(rows)
    model, x = rng.normal(size=31) * 3, rng.normal(size=(rows, 30)) * 3
    x[0, 0] = 400.0
    values = {"model": [encode(model, 24).astype(np.int64)], "row": [encode(x).astype(np.int64)]}
    params = {"features": 30, "rows": rows}
    outcomes = three_processes(INFER, values, params)
    assert all(outcome.openings == {} and outcome.result is None for outcome in outcomes)
    logits = decode(joined(outcomes, "sealed").astype(np.uint64), 16)
    expected = np.clip(x, -16, 16) @ model[:-1] + model[-1]
    assert np.max(np.abs(logits - expected)) < 2e-3
    plain = run_plain(INFER, values, params).sealed.words[0].astype(np.int64) / 65536
    assert np.max(np.abs(logits - plain)) <= 2 / 65536


def test_moments_open_only_the_total_and_normalise_like_pooled_rows():
    from apps.protocol.normalise import normalisation

    rng = np.random.default_rng(4)
    sites = [rng.normal(loc=3, scale=[1, 50, 1e-7], size=(count, 3)) for count in (20, 31, 7)]
    values = {
        "sums": [encode([len(x), *x.sum(0), *(x**2).sum(0)], 20).astype(np.int64) for x in sites]
    }
    outcomes = three_processes(CIRCUITS["moments@1"], values, {"features": 3})
    mean, std = normalisation(outcomes[1].openings["sums"], 3)
    pooled = np.concatenate(sites)
    assert np.allclose(mean, pooled.mean(0), atol=1e-5)
    assert np.allclose(std[:2], pooled.std(0, ddof=1)[:2], atol=1e-4)
    assert std[2] == 1.0
