"""The yardstick of the Shamir engine: workload W4 on MPyC as it comes, three processes on loopback.

Its own runtime, secure fixed-point arrays, field of 2^89 − 1, no TLS. A run includes the making of
random bits, which MPyC does on the way. The processes are its own (`-M3`), started by `run`; each
exits with its runtime.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.mpc.engines.plain import run_plain
from workers.mpc.workloads import F, right_answers

MEMBERS = 3
REPEATS = 3
TIMEOUT_S = 120.0
ROOT = Path(__file__).resolve().parents[3]


def run(rows: int = 200) -> Iterator[dict[str, Any]]:
    """One line as `bench` prints them. Raises: ArithmeticError when the answer is not plain's."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "workers.mpc.engines.shamir_stock", str(rows)]
    members = subprocess.Popen(
        [*command, f"-M{MEMBERS}", f"-B{port}", "--no-log"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        told, _ = members.communicate(timeout=TIMEOUT_S)
    finally:
        # the first process starts the others, which would wait for it for ever
        try:
            os.killpg(members.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    answer = json.loads(told.splitlines()[-1])
    workload = right_answers(rows=rows)
    plain = run_plain(workload.circuit, workload.values, workload.params)
    if answer["counts"] != plain.openings["value"]:
        raise ArithmeticError("the yardstick gives a wrong answer")
    yield {
        "workload": "W4",
        "engine": "mpyc",
        "metric": "latency",
        "value": round(answer["latency_ms"], 2),
        "unit": "ms",
    }


async def _member(rows: int) -> None:
    import numpy as np
    from mpyc.runtime import mpc  # type: ignore[import-untyped]

    from workers.mpc.engines.field89 import P
    from workers.mpc.fixed import decode

    workload = right_answers(rows=rows)
    await mpc.start()
    fixed = mpc.SecFxp(32, F, p=P)

    def entered(slot: str, f: int, *shape: int) -> Any:
        values = decode(workload.values[slot][0], f).reshape(shape)
        return mpc.input(fixed.array(values, integral=False), senders=0)

    models = 8
    ones = fixed.array(np.ones((rows, 1)), integral=False)
    row = mpc.np_hstack((entered("row", F, rows, 30), ones))
    weights = entered("models", F, 31, models)
    label = entered("label", 0, rows, 1)
    times_ms = []
    for _ in range(1 + REPEATS):
        await mpc.barrier()
        start = time.perf_counter()
        below = row @ weights < 0
        wrong = below + label - 2 * below * label
        counts = await mpc.output(mpc.np_sum(wrong, axis=0))
        times_ms.append((time.perf_counter() - start) * 1e3)
    if mpc.pid == 0:
        found = {"counts": [float(value) for value in counts]}
        print(json.dumps({**found, "latency_ms": statistics.median(times_ms[1:])}), flush=True)
    await mpc.shutdown()


if __name__ == "__main__":
    import asyncio

    # MPyC takes its own arguments out of sys.argv, once it is imported
    asyncio.run(_member(int(sys.argv[1])))
