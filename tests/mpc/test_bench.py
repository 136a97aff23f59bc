"""The bench runs and its figures belong to right answers."""

import pytest

from workers.mpc import bench
from workers.mpc.engines import shamir_stock


@pytest.mark.parametrize("engine", ["ring", "shamir"])
def test_bench_measures_a_right_answer(engine):
    job = bench.inference(2, features=4)
    latency_ms, bits_ms, outcomes = bench.measure_with_bits(job, repeats=1, engine=engine)
    assert latency_ms > 0
    # bits are made before the run, and stated beside it
    assert (bits_ms > 0) == (engine == "shamir")
    assert bench.error_against_plain(outcomes, job) <= 2 / 2**16


def test_the_yardstick_gives_the_right_answer():
    """It raises when stock MPyC's counts are not those of the plain engine."""
    (line,) = shamir_stock.run(rows=4)
    assert line["engine"] == "mpyc" and line["value"] > 0
