"""Every circuit on the Shamir engine against plain: three nodes, five, five with two dead."""

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS
from tests.mpc.test_logistic_round import check_openings, encoded, equations, federation
from tests.support.shamir import SETTINGS, SURVIVORS, THREE, joined, run_processes, run_threads
from workers.mpc import bench
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@every_setting
def test_moments_agree_with_plain(setting):
    sums = [encode(bench.wave(7) * 2.0**site, 20) for site in range(4)]
    params = {"features": 3}
    outcomes = run_threads(CIRCUITS["moments@1"], {"sums": sums}, params, setting)
    plain = run_plain(CIRCUITS["moments@1"], {"sums": sums}, params)
    assert all(outcome.openings == plain.openings for outcome in outcomes)
    assert all(outcome.result is None and outcome.sealed is None for outcome in outcomes)


@every_setting
def test_inference_agrees_with_plain(setting):
    work = bench.inference(3, features=5)
    row = work.values["row"][0].astype(np.int64).reshape(-1)
    row[:3] = [2**62, -(2**62), 2**61]
    values = {**work.values, "row": [row]}
    outcomes = run_processes(work.circuit, values, work.params, setting)
    plain = run_plain(work.circuit, values, work.params)
    difference = joined(outcomes, "sealed", setting) - plain.sealed.words[0].astype(np.int64)
    assert np.max(np.abs(difference)) <= 1
    assert outcomes[0].sealed_f == plain.sealed.f and outcomes[0].sealed_shape == (3,)


@pytest.mark.parametrize("setting", [THREE, SETTINGS[1], SURVIVORS], ids=str)
def test_a_round_on_processes_agrees_with_plain_and_with_the_equations(setting):
    circuit = CIRCUITS["logistic_round@1"]
    updates, blocks, params = federation(7, sites=5, features=3, rows=(30, 24), strata=2)
    values = encoded(updates, blocks)
    outcomes = run_processes(circuit, values, params, setting)
    openings = outcomes[0].openings
    assert all(outcome.openings == openings for outcome in outcomes)
    plain = run_plain(circuit, values, params)
    assert openings["support"] == plain.openings["support"]
    difference = np.array(openings["phi_milli"]) - np.array(plain.openings["phi_milli"])
    assert np.max(np.abs(difference)) <= 1
    phi, model, found, support = equations(updates, blocks, params, openings["phi_milli"])
    check_openings(openings, phi, found, support)
    secret = joined(outcomes, "result", setting)
    assert outcomes[0].result_f == circuit.result_f
    assert np.max(np.abs(decode(secret.astype(np.uint64), 24) - model)) < 3e-5


@pytest.mark.parametrize("scoring", ["shapley", "leave_one_out"])
def test_games_agree_with_plain(scoring):
    circuit = CIRCUITS["logistic_round@1"]
    updates, blocks, params = federation(
        7, sites=4, features=3, rows=(30,), strata=0, scoring=scoring, bad=False
    )
    values = encoded(updates, blocks)
    outcomes = run_threads(circuit, values, params)
    plain = run_plain(circuit, values, params).openings
    difference = np.array(outcomes[0].openings["phi_milli"]) - np.array(plain["phi_milli"])
    assert np.max(np.abs(difference)) <= 1


def test_fewer_than_three_contributions_make_no_model():
    circuit = CIRCUITS["logistic_round@1"]
    updates, blocks, params = federation(5, bad=False, features=3, rows=(30,), strata=1)
    opposed = np.stack([updates[0], updates[0], -updates[0], -updates[0]])
    outcomes = run_threads(circuit, encoded(opposed, blocks), params)
    assert outcomes[0].openings == {
        "copies": [[0, 1], [2, 3]],
        "phi_milli": [1000, 1000, 0, 0],
        "void": 1,
    }
    assert all(outcome.result is None for outcome in outcomes)


@pytest.mark.parametrize("name", ["W4", "W6"])
def test_workloads_of_the_bench_agree_with_plain(name):
    work = dict(bench.all_workloads())[name]
    outcomes = run_threads(work.circuit, work.values, work.params)
    # correlations at f = 24 come out of roots of relative error 2e-5 and a truncation each
    assert bench.error_against_plain(outcomes, work) <= (0 if name == "W4" else 1e-4)
