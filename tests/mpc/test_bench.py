"""The bench runs and its figures belong to right answers."""

from itertools import pairwise

import pytest

from apps.protocol.circuits.network import WEIGHTS_MAX
from flai_site.bench import rounds
from workers.mpc import bench, workloads
from workers.mpc.engines import shamir_stock


@pytest.mark.parametrize("engine", ["ring", "ring/4 verified", "shamir"])
def test_bench_measures_a_right_answer(engine):
    job = bench.inference(2, features=4)
    latency_ms, bits_ms, outcomes = bench.measure_with_bits(job, repeats=1, engine=engine)
    assert latency_ms > 0
    # bits are made before the run, and stated beside it
    assert (bits_ms > 0) == (engine == "shamir")
    assert bench.error_against_plain(outcomes, job) <= 2 / 2**16


def test_a_benchs_round_of_networks_makes_a_model():
    job = bench.network_round(4, features=6, units=(5, 4), classes=3, rows=40)
    _, outcomes = bench.measure(job, repeats=1)
    assert outcomes[0].openings["void"] == 0
    # as far as φ, that is opened in thousandths, says the same of both
    assert bench.error_against_plain(outcomes, job) <= 1 / 2**10
    sizes = rounds.SIZES["features"], *rounds.SIZES["units"], rounds.SIZES["classes"]
    weights = sum(out * (into + 1) for into, out in pairwise(sizes))
    assert 10**6 <= weights <= WEIGHTS_MAX


def test_a_delay_costs_each_round_so_much():
    """The circuit needs 10 rounds; each waits for at least one message."""
    job = workloads.logistic(1, sigmoid="hard", features=4)
    latency_ms, _, outcomes = bench.measure_with_bits(job, repeats=1, delay_ms=10)
    assert outcomes[0].rounds == 10 and latency_ms >= 10 * 10
    assert bench.error_against_plain(outcomes, job) <= 2 / 2**16


def test_an_update_leaves_in_eight_bytes_a_value():
    clock, processor, size = bench.client("small", 10_000)
    assert clock["value"] > 0 and processor["value"] > 0
    assert 80_000 < size["value"] < 85_000


def test_forty_jobs_at_once_are_all_right():
    job = workloads.logistic(1, sigmoid="hard", features=4)
    took, wrong = bench.at_once("small", job, bench.AT_ONCE)
    assert took["value"] > 0 and wrong["value"] == 0


def test_many_jobs_leave_no_memory_behind():
    job = workloads.aggregation(4, weights="integer", sites=3)
    before, after = bench.memory("small", job, 1000)
    assert 0 < before["value"] <= after["value"] < before["value"] + 4_000_000


def test_the_yardstick_gives_the_right_answer():
    """It raises when stock MPyC's counts are not those of the plain engine."""
    (line,) = shamir_stock.run(rows=4)
    assert line["engine"] == "mpyc" and line["value"] > 0
