"""kill -9 of a client, the web, a worker or PostgreSQL; it is one of its own, durable as in use.

In a burst of payments what was acknowledged is there exactly once, the rest not at all. The clients
are processes that pay, hold and resolve through the services and note each answer in a file,
synced, before the next payment; an answer that is noted is a promise. After each death the same
payments are sent again with the same ids. The closing of an epoch goes on from the last whole
chunk, pays nobody twice and loses nobody.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from flai_site.stack.embedded import Postgres, end_process
from flai_site.stack.services import _running
from tests.support.web import Web

CLIENTS = 3
BURST = 25  # acknowledged payments that are waited for before the blow
CHUNKS = 9  # of a closing that are whole before the blow; there are some sixteen
LEDGER = Path(__file__).with_name("ledger_client.py")
EPOCH = Path(__file__).with_name("epoch_client.py")


def client(environment: dict[str, str], *command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def asked(environment: dict[str, str], *command: object) -> str:
    """The last line that it prints."""
    out, errors = client(environment, *command).communicate(timeout=120)
    assert out, errors
    return out.strip().splitlines()[-1]


def kill_postmaster(postgres: Postgres) -> None:
    pid = int((postgres.cluster / "postmaster.pid").read_text().splitlines()[0])
    end_process(pid, signal.SIGKILL)


def acknowledged(notes: list[Path]) -> dict[str, str]:
    """{id of a payment: id of its transfer} of every whole line."""
    lines = [line for n in notes if n.exists() for line in n.read_text().splitlines(True)]
    return dict(json.loads(line) for line in lines if line.endswith("\n"))


def wait_for(count: int, clients: list[subprocess.Popen[str]]) -> None:
    """Until they have noted so many payments together: each prints a line for one."""
    deadline = time.monotonic() + 60
    with selectors.DefaultSelector() as paid:
        for process in clients:
            paid.register(process.stdout.fileno(), selectors.EVENT_READ, process)
        while count > 0:
            told = paid.select(deadline - time.monotonic())
            assert told, "too few payments in a minute"
            for key, _ in told:
                lines = os.read(key.fd, 4096)
                assert lines, key.data.communicate()[1]
                count -= lines.count(b"\n")


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
        asked(environment, LEDGER, "prepare")
        burst = [
            client(environment, LEDGER, "burst", seed, note)
            for seed, note in zip(seeds, notes, strict=True)
        ]
        wait_for(BURST, burst)
        if victim == "client":
            for process in burst:
                process.kill()
        elif victim == "backend":
            os.kill(backend_of_a_client(postgres), signal.SIGKILL)
        else:
            kill_postmaster(postgres)
        for process in burst:
            process.communicate(timeout=60)
            assert process.returncode
    told = acknowledged(notes)
    assert len(told) >= BURST

    sent = [
        f"{seed}:{len(acknowledged([note])) + 1}" for seed, note in zip(seeds, notes, strict=True)
    ]
    with _running(postgres, tmp_path / "postgres.log"):
        found = json.loads(asked(environment, LEDGER, "again", *sent))
    before, after = found["before"], found["after"]
    assert before["violations"] == {}
    assert set(told.values()) <= set(before["transfers"])
    # Sent again with the same ids: the same transfers, each once, and no hold is stuck.
    assert told.items() <= found["answers"].items()
    assert after["violations"] == {} and after["holds"] == 0
    assert len(after["transfers"]) == len(set(after["transfers"]))
    assert after["paid_micro"] == len(found["answers"]) == len(told) + CLIENTS


def test_a_web_process_that_is_killed_in_a_burst_loses_no_payment_and_makes_none_twice(
    place, tmp_path
):
    """Over HTTP, as a program pays: the same Idempotency-Key is the same payment."""
    postgres, environment = place
    web, stop, told = Web(environment), threading.Event(), [{} for _ in range(CLIENTS)]
    acknowledged_one = threading.Semaphore(0)

    def pay(http: httpx.Client, seed: uuid.UUID, number: int) -> str:
        body = {"to": shop, "asset": "USDC", "amount_micro": "1"}
        headers = {"Idempotency-Key": str(uuid.uuid5(seed, str(number)))}
        answer = http.post("/api/v1/wallet/transfers/", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def burst(seed: uuid.UUID, known: dict[int, str]) -> None:
        with httpx.Client(**to_site) as http:
            try:
                for number in count():
                    known[number] = pay(http, seed, number)
                    acknowledged_one.release()
            except httpx.TransportError:
                assert stop.is_set()

    seeds = [uuid.uuid4() for _ in range(CLIENTS)]
    with _running(postgres, tmp_path / "postgres.log"):
        asked(environment, LEDGER, "prepare")
        made = json.loads(asked(environment, LEDGER, "key"))
        shop, bearer = made["shop"], {"Authorization": f"Bearer {made['key']}"}
        to_site = {"base_url": web.url, "headers": bearer, "timeout": 60}
        web.start()
        try:
            with ThreadPoolExecutor(CLIENTS) as threads:
                paying = [threads.submit(burst, s, known) for s, known in zip(seeds, told)]
                for _ in range(BURST):
                    assert acknowledged_one.acquire(timeout=60), paying
                stop.set()
                web.kill()
                for one in paying:
                    one.result()
            before = json.loads(asked(environment, LEDGER, "state"))
            web.start()
            with httpx.Client(**to_site) as http:
                for seed, known in zip(seeds, told, strict=True):
                    again = {n: pay(http, seed, n) for n in range(len(known) + 1)}
                    assert known.items() <= again.items()
        finally:
            web.kill()
        after = json.loads(asked(environment, LEDGER, "state"))
    assert before["violations"] == after["violations"] == {}
    assert {id_ for known in told for id_ in known.values()} <= set(before["transfers"])
    assert after["paid_micro"] == sum(map(len, told)) + CLIENTS


@pytest.mark.parametrize("victim", ["worker", "postmaster"])
def test_a_killed_closing_goes_on_and_pays_each_once(place, tmp_path, victim):
    postgres, environment = place
    with _running(postgres, tmp_path / "postgres.log"):
        epoch = asked(environment, EPOCH, "prepare")
        worker = client(environment, EPOCH, "close", epoch)
        assert worker.stdout is not None
        told = [worker.stdout.readline().strip() for _ in range(CHUNKS)]
        assert all(told) and "done" not in told
        if victim == "worker":
            worker.kill()
        else:
            kill_postmaster(postgres)
        worker.communicate(timeout=60)
        assert worker.returncode
    with _running(postgres, tmp_path / "postgres.log"):
        found = json.loads(asked(environment, EPOCH, "verify", epoch))
    assert found["violations"] == {} and found["step"] == "done" and found["root_is_right"]
    assert (found["owed"], found["unclaimed"], found["leaves"]) == (40, 0, 1)
    assert found["paid_micro"] == found["owed_micro"] and found["left_micro"] == 0
