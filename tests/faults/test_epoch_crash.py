"""kill -9 of the worker or of PostgreSQL in the middle of closing an epoch.

It goes on from the last whole chunk, pays nobody twice and loses nobody.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flai_site.stack.embedded import end_process
from flai_site.stack.services import _running
from tests.faults.test_ledger_crash import place  # noqa: F401

CLIENT = Path(__file__).with_name("epoch_client.py")
CHUNKS = 9  # that are whole before the blow; there are some thirty


def started(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CLIENT), *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def asked(environment: dict[str, str], *arguments: str) -> str:
    out, errors = started(environment, *arguments).communicate(timeout=120)
    assert out, errors
    return out.strip().splitlines()[-1]


@pytest.mark.parametrize("victim", ["worker", "postmaster"])
def test_a_killed_closing_goes_on_and_pays_each_once(place, tmp_path, victim):  # noqa: F811
    postgres, environment = place
    with _running(postgres, tmp_path / "postgres.log"):
        epoch = asked(environment, "prepare")
        worker = started(environment, "close", epoch)
        assert worker.stdout is not None
        told = [worker.stdout.readline().strip() for _ in range(CHUNKS)]
        assert all(told) and "done" not in told
        if victim == "worker":
            worker.kill()
        else:
            pid = int((postgres.cluster / "postmaster.pid").read_text().splitlines()[0])
            end_process(pid, signal.SIGKILL)
        worker.communicate(timeout=60)
        assert worker.returncode
    with _running(postgres, tmp_path / "postgres.log"):
        found = json.loads(asked(environment, "verify", epoch))
    assert found["violations"] == {} and found["step"] == "done" and found["root_is_right"]
    assert (found["owed"], found["unclaimed"], found["leaves"]) == (40, 0, 1)
    assert found["paid_micro"] == found["owed_micro"] and found["left_micro"] == 0
