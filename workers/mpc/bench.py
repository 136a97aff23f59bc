"""`manage.py bench mpc`: circuits on three processes, from "nodes hold shares" to the outcome.

The processes are joined by Unix sockets, without TLS: this measures the engine, not the network.
A run includes the exchange of fresh keys. Latency is the median of REPEATS after a warm-up, at
the slowest member.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from apps.protocol.circuits import CIRCUITS, Circuit
from workers.mpc import replicated
from workers.mpc.engines.base import Word
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring import RingOutcome, run_ring
from workers.mpc.fixed import decode, encode
from workers.mpc.transport import SocketTransport, Transport, socket_pairs

REPEATS = 7
TIMEOUT_S = 120.0
Values = Mapping[str, list[Word]]


class _Numbered:
    """A transport whose runs do not share message numbers."""

    def __init__(self, inner: Transport, run: int) -> None:
        self._inner, self._base = inner, run << 20
        self.me, self.n = inner.me, inner.n

    def send(self, to: int, seq: int, data: bytes) -> None:
        self._inner.send(to, self._base + seq, data)

    def recv(self, frm: int, seq: int) -> bytes:
        return self._inner.recv(frm, self._base + seq)


def wave(*shape: int) -> Any:
    """Spread-out values in (-1, 1), the same in every run."""
    return np.sin(np.arange(1, int(np.prod(shape)) + 1) * 2.399963).reshape(shape)


def inference(rows: int, features: int = 30) -> tuple[Circuit, Values, dict[str, Any]]:
    values = {"model": [encode(wave(features + 1) * 2, 24)], "row": [encode(wave(rows, features))]}
    return CIRCUITS["logistic_infer@1"], values, {"features": features, "rows": rows}


def federated_round(
    sites: int, validators: int, rows: int, strata: int, features: int = 30
) -> tuple[Circuit, Values, dict[str, Any]]:
    truth = wave(features + 1)
    updates = [truth + wave(sites, features + 1)[site] * 0.3 for site in range(sites)]
    blocks = []
    for block in np.split(wave(validators * rows, features), validators):
        label = (block @ truth[:-1] + wave(rows) > 0).astype(float)
        group = np.eye(strata)[np.arange(rows) % strata]
        blocks.append(encode(np.column_stack([block, label, group])))
    params = {"features": features, "strata": strata, "rows": [rows] * validators, "min_cell": 5}
    values = {"update": [encode(update) for update in updates], "holdout": blocks}
    return CIRCUITS["logistic_round@1"], values, params


def _member(
    me: int, circuit: Circuit, shares: Any, params: Any, sockets: Any, pipe: Connection
) -> None:
    for other, theirs in enumerate(sockets):
        if other != me:
            for sock in theirs.values():
                sock.close()
    transport = SocketTransport(me, sockets[me], timeout_s=TIMEOUT_S)
    times = []
    for run in range(1 + REPEATS):
        start = time.perf_counter()
        outcome = run_ring(circuit, shares, params, _Numbered(transport, run))
        times.append((time.perf_counter() - start) * 1e3)
    pipe.send((times[1:], outcome))
    pipe.recv()
    transport.close()


def measure(
    circuit: Circuit, values: Values, params: dict[str, Any]
) -> tuple[float, list[RingOutcome]]:
    """(median ms at the slowest member, the last run's outcomes)."""
    context = multiprocessing.get_context("fork")
    words = {
        slot: [replicated.split(v, os.urandom(32), os.urandom(32)) for v in items]
        for slot, items in values.items()
    }
    sockets = socket_pairs()
    members, pipes = [], []
    for me in range(3):
        shares = {
            slot: [replicated.pair_of(me, dict(enumerate(item))) for item in items]
            for slot, items in words.items()
        }
        here, there = context.Pipe()
        member = context.Process(
            target=_member, args=(me, circuit, shares, params, sockets, there), daemon=True
        )
        member.start()
        there.close()
        members.append(member)
        pipes.append(here)
    for theirs in sockets:
        for sock in theirs.values():
            sock.close()
    answers = [pipe.recv() for pipe in pipes]
    for pipe, member in zip(pipes, members, strict=True):
        pipe.send(None)
        member.join()
    slowest = [max(times) for times in zip(*(times for times, _ in answers), strict=True)]
    return statistics.median(slowest), [outcome for _, outcome in answers]


def error_against_plain(
    outcomes: list[RingOutcome], circuit: Circuit, values: Values, params: dict[str, Any]
) -> float:
    """Largest difference of the secret outcome (bench data only: the words are put together)."""
    plain = run_plain(circuit, values, params)
    name = "sealed" if circuit.sealed else "result"
    reference: Any = getattr(plain, name)
    words: dict[int, Word] = {}
    for node, outcome in enumerate(outcomes):
        words.update(zip(replicated.held_by(node), getattr(outcome, name), strict=True))
    difference = replicated.join(words) - reference.words[0]
    return float(np.max(np.abs(decode(difference, reference.f))))


def run() -> Iterator[dict[str, Any]]:
    """Measurements as manage.py prints them."""
    for workload, job in (
        ("logistic_infer/30/b1", inference(1)),
        ("logistic_infer/30/b1000", inference(1000)),
        ("logistic_round/30/6x3x57", federated_round(6, 3, 57, 3)),
        ("logistic_round/30/6x3x333", federated_round(6, 3, 333, 3)),
    ):
        latency_ms, outcomes = measure(*job)
        sent = max(outcome.bytes_sent for outcome in outcomes)
        for metric, value, unit in (
            ("latency", round(latency_ms, 2), "ms"),
            ("rounds", outcomes[0].rounds, "rounds"),
            ("sent_per_node_max", sent, "bytes"),
            ("error_against_plain", error_against_plain(outcomes, *job), "value"),
        ):
            yield {
                "workload": workload,
                "engine": "ring",
                "metric": metric,
                "value": value,
                "unit": unit,
            }
