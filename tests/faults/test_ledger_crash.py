"""kill -9 in a burst of payments: what was acknowledged is there exactly once, the rest not at all.

PostgreSQL of its own, durable as in operation. The clients are processes that pay, hold and resolve
through the services and note each answer in a file, synced, before the next payment; an answer that
is noted is a promise. After each death the same payments are sent again with the same ids.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flai_site.stack.embedded import Postgres, embedded, end_process
from flai_site.stack.layout import Home, site_environment
from flai_site.stack.services import _running, remove

CLIENTS = 3
BURST = 25  # acknowledged payments that are waited for before the blow
CLIENT = Path(__file__).with_name("ledger_client.py")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Postgres, dict[str, str]]]:
    """A durable server's settings and a site's environment on it; the test starts the server."""
    home = Home(tmp_path / "home")
    home.prepare()
    postgres, _ = embedded(home.root, durable=True)
    environment = site_environment(
        home, database_url=postgres.url, valkey_url="unix:///nowhere", url="http://x", faucet=True
    )
    drop = ("FLAI_TEST_HOME", "DJANGO_SETTINGS_MODULE", "FLAI_DB_POOL")
    kept = {k: v for k, v in os.environ.items() if k not in drop}
    try:
        yield postgres, kept | environment | {"DJANGO_SETTINGS_MODULE": "flai_site.settings"}
    finally:
        remove(home.root)


def client(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(CLIENT), *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def asked(environment: dict[str, str], *arguments: object) -> str:
    out, errors = client(environment, *arguments).communicate(timeout=120)
    assert out, errors
    return out


def acknowledged(notes: list[Path]) -> dict[str, str]:
    """{id of a payment: id of its transfer} of every whole line."""
    lines = [line for n in notes if n.exists() for line in n.read_text().splitlines(True)]
    return dict(json.loads(line) for line in lines if line.endswith("\n"))


def wait_for(notes: list[Path], count: int, clients: list[subprocess.Popen[str]]) -> None:
    deadline = time.monotonic() + 60
    while len(acknowledged(notes)) < count:
        for process in clients:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        os.sched_yield()


def backend_of_a_client(postgres: Postgres) -> int:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() LIMIT 1"
        ).fetchone()
    assert row
    return int(row[0])


@pytest.mark.parametrize("victim", ["client", "backend", "postmaster"])
def test_every_acknowledged_payment_survives_a_kill_exactly_once(place, tmp_path, victim):
    postgres, environment = place
    notes = [tmp_path / f"notes-{i}" for i in range(CLIENTS)]
    seeds = [uuid.uuid4() for _ in range(CLIENTS)]
    with _running(postgres, tmp_path / "postgres.log"):
        asked(environment, "prepare")
        burst = [
            client(environment, "burst", seed, note)
            for seed, note in zip(seeds, notes, strict=True)
        ]
        wait_for(notes, BURST, burst)
        if victim == "client":
            for process in burst:
                process.kill()
        elif victim == "backend":
            os.kill(backend_of_a_client(postgres), signal.SIGKILL)
        else:
            pid = int((postgres.cluster / "postmaster.pid").read_text().splitlines()[0])
            end_process(pid, signal.SIGKILL)
        for process in burst:
            process.communicate(timeout=60)
            assert process.returncode
    told = acknowledged(notes)
    assert len(told) >= BURST

    with _running(postgres, tmp_path / "postgres.log"):
        found = json.loads(asked(environment, "verify"))
        assert found["violations"] == {}
        assert set(told.values()) <= set(found["transfers"])
        # Sent again with the same ids: the same transfers, each once, and no hold is stuck.
        for seed, note in zip(seeds, notes, strict=True):
            sent = len(acknowledged([note])) + 1
            again = json.loads(asked(environment, "again", seed, sent))
            assert {k: again[k] for k in acknowledged([note])} == acknowledged([note])
        after = json.loads(asked(environment, "verify"))
    assert after["violations"] == {} and after["holds"] == 0
    assert len(after["transfers"]) == len(set(after["transfers"]))
    assert after["paid_micro"] == sum(len(acknowledged([note])) + 1 for note in notes)
