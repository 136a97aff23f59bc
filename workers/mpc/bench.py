"""`manage.py bench mpc`: circuits on three processes, from "nodes hold shares" to the outcome.

The processes are joined by the nodes' own mesh: mutual TLS 1.3 on loopback. A run includes the
exchange of fresh keys. Latency is the median of REPEATS after a warm-up, at the slowest member.
Tickets, stores and the control port are not in it; `bench api` measures a query with all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, wire
from apps.protocol.circuits import CIRCUITS
from apps.protocol.circuits.declare import Outcome
from workers.mpc import replicated
from workers.mpc.engines.base import Word
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring import RingOutcome, run_ring
from workers.mpc.fixed import decode, encode
from workers.mpc.mesh import Mesh, Peer
from workers.mpc.workloads import Workload, all_workloads, wave

MEMBERS = 3
REPEATS = 9
TIMEOUT_S = 120.0


class Members:
    """Three processes joined by the mesh, each computing with its shares of a workload."""

    def __init__(self, workload: Workload, *, repeats: int = REPEATS) -> None:
        context = multiprocessing.get_context("fork")
        keys = [Ed25519PrivateKey.generate() for _ in range(MEMBERS)]
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(MEMBERS)]
        addresses = [listener.getsockname() for listener in listeners]
        words = {
            slot: [replicated.split(v, os.urandom(32), os.urandom(32)) for v in items]
            for slot, items in workload.values.items()
        }
        self._pipes, self._processes = [], []
        for me in range(MEMBERS):
            shares = {
                slot: [replicated.pair_of(me, dict(enumerate(item))) for item in items]
                for slot, items in words.items()
            }
            here, there = context.Pipe()
            process = context.Process(
                target=_member,
                args=(me, workload, shares, keys, listeners, addresses, repeats, there),
                daemon=True,
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for listener in listeners:
            listener.close()

    def answers(self) -> list[tuple[list[float], RingOutcome]]:
        """(ms per run, the last run's outcome) of each member; ends the processes."""
        answers = [pipe.recv() for pipe in self._pipes]
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()
        return answers


def _member(
    me: int,
    workload: Workload,
    shares: Any,
    keys: list[Ed25519PrivateKey],
    listeners: list[socket.socket],
    addresses: list[tuple[str, int]],
    repeats: int,
    pipe: Connection,
) -> None:
    pems = [identity.certificate_pem(key, f"bench-{i}") for i, key in enumerate(keys)]
    peers = [
        Peer(i, addresses[i], identity.certificate_der(pems[i], sign_key=wire.public_hex(keys[i])))
        for i in range(MEMBERS)
        if i != me
    ]
    mesh = Mesh(
        me=me,
        listener=listeners[me],
        peers=peers,
        certificate=pems[me],
        private_key=identity.private_pem(keys[me]),
    )
    mesh.start()
    end = time.monotonic() + TIMEOUT_S
    while len(mesh.peers_up()) < len(peers):
        if time.monotonic() > end:
            raise TimeoutError("the members did not find each other")
        threading.Event().wait(0.01)
    times = []
    for run in range(1 + repeats):
        session = mesh.open(run.to_bytes(16), deadline=time.monotonic() + TIMEOUT_S)
        start = time.perf_counter()
        outcome = run_ring(workload.circuit, shares, workload.params, session)
        times.append((time.perf_counter() - start) * 1e3)
        session.close()
    pipe.send((times[1:], outcome))
    pipe.recv()
    mesh.close()


def measure(workload: Workload, *, repeats: int = REPEATS) -> tuple[float, list[RingOutcome]]:
    """(median ms at the slowest member, the last run's outcomes)."""
    answers = Members(workload, repeats=repeats).answers()
    slowest = [max(times) for times in zip(*(times for times, _ in answers), strict=True)]
    return statistics.median(slowest), [outcome for _, outcome in answers]


def error_against_plain(outcomes: list[RingOutcome], workload: Workload) -> float:
    """Largest difference from the oracle (bench data only: a secret outcome is put together)."""
    plain = run_plain(workload.circuit, workload.values, workload.params)
    if plain.openings.get("value") is not None:
        found, wanted = outcomes[0].openings["value"], plain.openings["value"]
        return float(np.max(np.abs(np.asarray(found) - np.asarray(wanted))))
    return _difference(outcomes, plain, "sealed" if workload.circuit.sealed else "result")


def _difference(outcomes: list[RingOutcome], plain: Outcome, name: str) -> float:
    reference: Any = getattr(plain, name)
    words: dict[int, Word] = {}
    for node, outcome in enumerate(outcomes):
        words.update(zip(replicated.held_by(node), getattr(outcome, name), strict=True))
    difference = replicated.join(words) - reference.words[0]
    return float(np.max(np.abs(decode(difference, reference.f))))


def inference(rows: int, features: int = 30) -> Workload:
    """The product's own query circuit."""
    values = {"model": [encode(wave(features + 1) * 2, 24)], "row": [encode(wave(rows, features))]}
    return Workload(CIRCUITS["logistic_infer@1"], values, {"features": features, "rows": rows})


def federated_round(
    sites: int, validators: int, rows: int, strata: int, features: int = 30
) -> Workload:
    """The product's own training round."""
    truth = wave(features + 1)
    updates = [truth + wave(sites, features + 1)[site] * 0.3 for site in range(sites)]
    blocks = []
    for block in np.split(wave(validators * rows, features), validators):
        label = (block @ truth[:-1] + wave(rows) > 0).astype(float)
        group = np.eye(strata)[np.arange(rows) % strata]
        blocks.append(encode(np.column_stack([block, label, group])))
    params = {"features": features, "strata": strata, "rows": [rows] * validators, "min_cell": 5}
    values = {"update": [encode(update) for update in updates], "holdout": blocks}
    return Workload(CIRCUITS["logistic_round@1"], values, params)


def run() -> Iterator[dict[str, Any]]:
    """Measurements as manage.py prints them."""
    for name, workload in (
        *all_workloads(),
        ("logistic_infer/30/b1", inference(1)),
        ("logistic_round/30/6x3x57", federated_round(6, 3, 57, 3)),
        ("logistic_round/30/6x3x333", federated_round(6, 3, 333, 3)),
    ):
        latency_ms, outcomes = measure(workload)
        sent = max(outcome.bytes_sent for outcome in outcomes)
        for metric, value, unit in (
            ("latency", round(latency_ms, 2), "ms"),
            ("rounds", outcomes[0].rounds, "rounds"),
            ("sent_per_node_max", sent, "bytes"),
            ("error_against_plain", error_against_plain(outcomes, workload), "value"),
        ):
            yield {
                "workload": name,
                "engine": "ring",
                "metric": metric,
                "value": value,
                "unit": unit,
            }
