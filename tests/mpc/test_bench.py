"""The bench runs and its figures belong to right answers."""

from workers.mpc import bench


def test_bench_measures_a_right_answer():
    job = bench.inference(2, features=4)
    latency_ms, outcomes = bench.measure(job, repeats=1)
    assert latency_ms > 0
    assert bench.error_against_plain(outcomes, job) <= 2 / 2**16
