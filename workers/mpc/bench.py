"""`manage.py bench mpc`: circuits on three processes, from "nodes hold shares" to the outcome.

The processes are joined by the nodes' own mesh: mutual TLS 1.3 on loopback. A run includes the
exchange of fresh keys. "ring/4" and "ring/5" are the last three of four and five nodes, one and two
others dead: they fold first. "ring/4 verified": all four compute, so that a cheat is found, beside
"ring/4" on the same inputs. "5 ms one way": whatever one node sends another comes so much later.
Latency is the median of REPEATS after a warm-up, at the slowest member. Tickets, stores and the
control port are not in it; `bench api` measures a query with all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol import descent, identity, uploads, wire
from apps.protocol.circuits import CIRCUITS, CLASSES
from apps.protocol.circuits.declare import Outcome
from apps.protocol.circuits.descent import defaults_of
from apps.protocol.circuits.games import SCORINGS
from apps.protocol.circuits.least_squares import factor_of
from apps.protocol.jobs import NODE_DOMAIN
from apps.protocol.tickets import QUARTET
from workers.mpc import replicated, sealing, shamir_shares
from workers.mpc.delaying import DelayingProxy
from workers.mpc.engines import shamir_stock
from workers.mpc.engines.base import Word
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring import RingOutcome, run_ring
from workers.mpc.engines.ring_verified import run_verified
from workers.mpc.engines.shamir import ShamirOutcome, make_blocks, run_shamir
from workers.mpc.engines.shamir_reserve import BLOCK, Reserve
from workers.mpc.fixed import decode, encode
from workers.mpc.keys import hpke_public_hex
from workers.mpc.mesh import Mesh, Peer
from workers.mpc.transport import Roles
from workers.mpc.workloads import Workload, aggregation, all_workloads, wave

MEMBERS = 3
VERIFIED = "verified"
UNPREPARED = "shamir, bits on the way"
SHAMIR_ENGINES = ("shamir", UNPREPARED)
REPEATS = 9
TIMEOUT_S = 120.0

AnyOutcome = RingOutcome | ShamirOutcome
# (ms of the run, ms of making the random bits that it uses, outcome)
Run = tuple[float, float, AnyOutcome]
Once = Callable[..., Run]
Work = Callable[[Once, int], Any]
# What the general engine does in reasonable time.
SHAMIR_WORKLOADS = ("W1/b1/accurate", "W1/b1/3-segment", "W2/b1", "W4", "W5/1e5/integer", "W6")


# What folding could slow down: few values, many, large ones.
FOLDED_WORKLOADS = (
    *("W1/b1/accurate", "W1/b1000/accurate", "W1/b1/3-segment", "W1/b1000/3-segment"),
    *("W2/b1", "W2/b1000", "W3/b1", "W3/b128", "W4", "W5/1e6/integer"),
)
# One way, between every two nodes.
DELAYS_MS = (5, 20)
DELAYED_WORKLOADS = ("W1/b1/accurate", "W1/b1/3-segment")
AT_ONCE = 40
MANY = 10_000
MANY_WARM_UP = 500


class Members:
    """Three processes joined by the mesh, each computing with its shares of a workload."""

    def __init__(
        self,
        workload: Workload,
        *,
        repeats: int = REPEATS,
        engine: str = "ring",
        delay_ms: int = 0,
        work: Work | None = None,
    ) -> None:
        context = multiprocessing.get_context("fork")
        n, computing = _nodes_of(engine)
        keys = [Ed25519PrivateKey.generate() for _ in range(n)]
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
        addresses = [listener.getsockname() for listener in listeners]
        self._proxy = DelayingProxy(addresses, delay_ms) if delay_ms else None
        if self._proxy is not None:
            addresses = self._proxy.addresses
        held = {
            slot: [_held_by_node(item, engine, n) for item in items]
            for slot, items in workload.values.items()
        }
        self._pipes, self._processes = [], []
        for me in computing:
            shares = {slot: [item[me] for item in items] for slot, items in held.items()}
            here, there = context.Pipe()
            process = context.Process(
                target=_member,
                args=(
                    *(me, workload, engine, shares, keys, listeners, addresses, repeats),
                    *(work or _repeated, there),
                ),
                daemon=True,
            )
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for listener in listeners:
            listener.close()

    def answers(self) -> list[Any]:
        """What each member's work gave, `_repeated` its runs; ends the processes."""
        answers = [pipe.recv() for pipe in self._pipes]
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()
        if self._proxy is not None:
            self._proxy.close()
        return answers


def _member(
    me: int,
    workload: Workload,
    engine: str,
    shares: Any,
    keys: list[Ed25519PrivateKey],
    listeners: list[socket.socket],
    addresses: list[tuple[str, int]],
    repeats: int,
    work: Work,
    pipe: Connection,
) -> None:
    pems = [identity.certificate_pem(key, f"bench-{i}") for i, key in enumerate(keys)]
    peers = [
        Peer(i, addresses[i], identity.certificate_der(pems[i], sign_key=wire.public_hex(keys[i])))
        for i in range(len(keys))
        if i != me
    ]
    _, computing = _nodes_of(engine)
    mesh = Mesh(
        me=me,
        listener=listeners[me],
        peers=peers,
        certificate=pems[me],
        private_key=identity.private_pem(keys[me]),
    )
    mesh.start()
    end = time.monotonic() + TIMEOUT_S
    while not set(computing) <= {me, *mesh.peers_up()}:
        if time.monotonic() > end:
            raise TimeoutError("the members did not find each other")
        threading.Event().wait(0.01)

    def once(run: int, known: Any = None) -> Run:
        if engine in SHAMIR_ENGINES:
            return _run_shamir(mesh, run, workload, shares, known, engine != UNPREPARED)
        return _run_ring(mesh, run, workload, shares, computing)

    pipe.send(work(once, repeats))
    pipe.recv()
    mesh.close()


def _repeated(once: Once, repeats: int) -> list[Run]:
    """One after the other, after a warm-up."""
    runs: list[Run] = []
    for run in range(1 + repeats):
        runs.append(once(run, runs[-1][2] if runs else None))
    return runs[1:]


def _at_once(once: Once, repeats: int) -> tuple[float, list[AnyOutcome]]:
    """(ms until the last is done, outcomes) of so many runs, all begun together."""
    once(repeats)  # a warm-up
    start = time.perf_counter()
    with ThreadPoolExecutor(repeats) as threads:
        runs = list(threads.map(once, range(repeats)))
    return (time.perf_counter() - start) * 1e3, [run[2] for run in runs]


def _many(once: Once, repeats: int) -> tuple[int, int]:
    """Resident memory before and after so many runs, bytes."""
    for run in range(MANY_WARM_UP):
        once(run)
    before = _resident_bytes()
    for run in range(repeats):
        once(MANY_WARM_UP + run)
    return before, _resident_bytes()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _held_by_node(item: Any, engine: str, n: int) -> list[Any]:
    if engine in SHAMIR_ENGINES:
        return shamir_shares.split(item, n=MEMBERS, t=1)
    words = dict(enumerate(replicated.split(item, *(os.urandom(32) for _ in range(n - 1)))))
    return [{j: words[j] for j in replicated.held_by(me, n)} for me in range(n)]


def _nodes_of(engine: str) -> tuple[int, tuple[int, ...]]:
    """(how many there are, which compute)."""
    count, _, mode = engine.partition("/")[2].partition(" ")
    n = int(count or MEMBERS)
    return n, tuple(range(n))[-QUARTET if mode == VERIFIED else -MEMBERS :]


def _run_ring(
    mesh: Mesh, run: int, workload: Workload, shares: Any, computing: tuple[int, ...]
) -> Run:
    sid, deadline = run.to_bytes(16), time.monotonic() + TIMEOUT_S
    session = mesh.open(sid, deadline=deadline, members=computing)
    transport = session if mesh.n == len(computing) else Roles(session, computing)
    run_engine = run_verified if len(computing) == QUARTET else run_ring
    start = time.perf_counter()
    folded: Any = {
        slot: [tuple(replicated.fold(mesh.me, item, computing, mesh.n)) for item in items]
        for slot, items in shares.items()
    }
    outcome = run_engine(workload.circuit, folded, workload.params, transport)
    elapsed_ms = (time.perf_counter() - start) * 1e3
    session.close()
    return elapsed_ms, 0.0, outcome


def _run_shamir(
    mesh: Mesh, run: int, workload: Workload, shares: Any, known: Any, prepared: bool
) -> Run:
    """With its random bits made before, as many as the warm-up took, or all of them on the way."""
    members, reserve = range(MEMBERS), Reserve()
    start = time.perf_counter()
    if prepared and known is not None and known.bits_used:
        name, blocks = (2**64 + run).to_bytes(16), -(-known.bits_used // BLOCK)
        session = mesh.open(name, deadline=time.monotonic() + TIMEOUT_S)
        make_blocks(session, reserve, name, blocks, t=1, members=members)
        session.close()
    made_ms = (time.perf_counter() - start) * 1e3
    session = mesh.open(run.to_bytes(16), deadline=time.monotonic() + TIMEOUT_S)
    start = time.perf_counter()
    outcome = run_shamir(
        workload.circuit, shares, workload.params, session, t=1, members=members, reserve=reserve
    )
    elapsed_ms = (time.perf_counter() - start) * 1e3
    session.close()
    return elapsed_ms, made_ms, outcome


def measure(
    workload: Workload, *, repeats: int = REPEATS, engine: str = "ring"
) -> tuple[float, list[AnyOutcome]]:
    """(median ms at the slowest member, the last run's outcomes)."""
    latency_ms, _, outcomes = measure_with_bits(workload, repeats=repeats, engine=engine)
    return latency_ms, outcomes


def measure_with_bits(
    workload: Workload, *, repeats: int = REPEATS, engine: str = "ring", delay_ms: int = 0
) -> tuple[float, float, list[AnyOutcome]]:
    """(median ms of the run, of making its random bits, outcomes), at the slowest member."""
    members = Members(workload, repeats=repeats, engine=engine, delay_ms=delay_ms)
    by_run = list(zip(*members.answers(), strict=True))
    latency_ms = statistics.median(max(run[0] for run in runs) for runs in by_run)
    made_ms = statistics.median(max(run[1] for run in runs) for runs in by_run)
    return latency_ms, made_ms, [run[2] for run in by_run[-1]]


def error_against_plain(outcomes: list[AnyOutcome], workload: Workload) -> float:
    """Largest difference from the oracle (bench data only: a secret outcome is put together)."""
    plain = run_plain(workload.circuit, workload.values, workload.params)
    if plain.openings.get("value") is not None:
        found, wanted = outcomes[0].openings["value"], plain.openings["value"]
        return float(np.max(np.abs(np.asarray(found) - np.asarray(wanted))))
    return _difference(outcomes, plain, "sealed" if workload.circuit.sealed else "result")


def _difference(outcomes: list[AnyOutcome], plain: Outcome, name: str) -> float:
    reference: Any = getattr(plain, name)
    if isinstance(outcomes[0], ShamirOutcome):
        shares = {node: getattr(outcome, name) for node, outcome in enumerate(outcomes)}
        difference = shamir_shares.join(shares).reshape(-1) - reference.words[0].reshape(-1)
        return float(np.max(np.abs(decode(difference, reference.f))))
    words: dict[int, Word] = {}
    for node, outcome in enumerate(outcomes):
        held = replicated.held_by(node, len(outcomes))
        words.update(zip(held, getattr(outcome, name), strict=True))
    difference = replicated.join(words) - reference.words[0]
    return float(np.max(np.abs(decode(difference, reference.f))))


def inference(rows: int, features: int = 30) -> Workload:
    """The product's own query circuit."""
    values = {"model": [encode(wave(features + 1) * 2, 24)], "row": [encode(wave(rows, features))]}
    return Workload(CIRCUITS["logistic_infer@1"], values, {"features": features, "rows": rows})


def federated_round(
    sites: int,
    validators: int,
    rows: int,
    strata: int,
    features: int = 30,
    scoring: str = "taylor",
) -> Workload:
    """The product's own training round."""
    truth = wave(features + 1)
    updates = [truth + wave(sites, features + 1)[site] * 0.3 for site in range(sites)]
    blocks = []
    for block in np.split(wave(validators * rows, features), validators):
        label = (block @ truth[:-1] + wave(rows) > 0).astype(float)
        group = np.eye(strata)[np.arange(rows) % strata]
        blocks.append(encode(np.column_stack([block, label, group])))
    params = {
        "features": features,
        "strata": strata,
        "rows": [rows] * validators,
        "min_cell": 5,
        "scoring": scoring,
    }
    values = {"update": [encode(update) for update in updates], "holdout": blocks}
    return Workload(CIRCUITS["logistic_round@1"], values, params)


def other_round(name: str, sites: int = 8, rows: int = 1000, features: int = 30) -> Workload:
    """A round of linear regression, solved from its sites' sums, or of Cox's hazards."""
    truth, held = wave(features) / features, wave(rows, features)
    score = held @ truth
    if name == "linear":
        target, order = score[:, None], np.arange(rows)
        each = np.eye(features)[np.arange(rows) % features]
        blocks = [
            wave((site + 2) * rows, features)[-rows:] + each * (1 + site / sites)
            for site in range(sites)
        ]
        updates = [factor_of(block, block @ truth + wave(rows) / 9) for block in blocks]
    else:
        times = np.exp(wave(rows) - score) / 2
        target = np.column_stack([np.minimum(times, 1.0), times < 1.0])
        order = np.argsort(target[:, 0])
        updates = [
            np.append(truth, 0) + wave(site + 2, features + 1)[-1] / 99 for site in range(sites)
        ]
    params = {"features": features, "strata": 1, "rows": [rows], "min_cell": 5, "scoring": "taylor"}
    holdout = np.column_stack([held, target, np.ones(rows)])[order]
    values = {"update": [encode(update) for update in updates], "holdout": [encode(holdout)]}
    return Workload(CIRCUITS[f"{name}_round@1"], values, params)


def secure_sgd(sites: int = 5, rows: int = 400, features: int = 30) -> Workload:
    """The product's own training on shared rows: 5 epochs of 10 steps, early stopping on."""
    truth = wave(features + 1)

    def labelled(start: int) -> Any:
        block = wave((start + 1) * rows, features)[-rows:]
        return np.column_stack([block, block @ truth[:-1] + wave(rows) > 0])

    params = {
        "features": features,
        "strata": 0,
        "rows": [rows],
        "min_cell": 5,
        "site_rows": [rows] * sites,
        "epochs": 5,
        "steps": 10,
        "rate_ppm": 500_000,
        "momentum_ppm": 900_000,
        "l2_ppm": 1_000,
        "patience": 3,
        "curve": 0,
    }
    values = {
        "rows": [encode(labelled(site)) for site in range(sites)],
        "holdout": [encode(labelled(sites))],
    }
    return Workload(CIRCUITS["logistic_sgd@1"], values, params)


def network_sgd(sites: int = 5, rows: int = 200, features: int = 64, classes: int = 10) -> Workload:
    """The same for a network 64-32-10: one epoch of its 20 steps."""

    def labelled(start: int) -> Any:
        block = wave((start + 1) * rows, features)[-rows:]
        return np.column_stack([block, np.eye(classes)[np.arange(rows) * classes // rows]])

    values = {
        "rows": [encode(labelled(site)) for site in range(sites)],
        "holdout": [encode(labelled(sites))],
    }
    params = {
        "features": features,
        "strata": 0,
        "rows": [rows],
        "min_cell": 5,
        "site_rows": [rows] * sites,
        "classes": classes,
        **defaults_of(CLASSES["mlp"]),
        "epochs": 1,
    }
    return Workload(CIRCUITS["mlp_sgd@1"], values, params)


def network_round(
    sites: int, *, features: int, units: tuple[int, int], classes: int, rows: int
) -> Workload:
    """The product's own round of a network: each site has taken one step on rows of its own."""
    start = descent.public_start([features, *units, classes])

    def labelled(place: int, count: int) -> tuple[Any, Any]:
        block = wave((place + 1) * count, features)[-count:]
        return block, np.eye(classes)[np.argmax(block[:, :classes], axis=1)]

    def change(site: int) -> Any:
        x, y = labelled(site, 40)
        inputs = np.column_stack([x, np.ones(len(x))])
        each = descent.gradients(start, inputs, y, descent.RESIDUALS["mlp2"])
        return np.concatenate([one.reshape(-1) for one in each]) / len(x)

    params = {
        **{"features": features, "hidden_1": units[0], "hidden_2": units[1], "classes": classes},
        **{"strata": 0, "rows": [rows], "min_cell": 5, "scoring": "taylor"},
    }
    values = {
        "update": [encode(change(site)) for site in range(sites)],
        "holdout": [encode(np.column_stack(labelled(sites, rows)))],
    }
    return Workload(CIRCUITS["mlp2_round@1"], values, params)


def scoring_rounds() -> Iterator[tuple[str, Workload]]:
    """Rounds on 1 000 holdout rows by each scoring, and how Shapley values grow.

    Half of the rows score, the other half is the evidence (AUC by all pairs)."""
    for scoring in SCORINGS:
        yield f"scoring/{scoring}/8x1000", federated_round(8, 1, 1000, 1, scoring=scoring)
    for sites in (3, 6, 12, 16, 32):
        yield f"scoring/shapley/{sites}x1000", federated_round(sites, 1, 1000, 1, scoring="shapley")
    for rows in (250, 500, 2000):
        yield f"scoring/shapley/8x{rows}", federated_round(8, 1, rows, 1, scoring="shapley")


def run() -> Iterator[dict[str, Any]]:
    """Measurements as manage.py prints them."""
    workloads = dict(all_workloads())
    for name, workload in (
        *workloads.items(),
        ("logistic_infer/30/b1", inference(1)),
        ("logistic_round/30/6x3x57", federated_round(6, 3, 57, 3)),
        ("logistic_round/30/6x3x333", federated_round(6, 3, 333, 3)),
        *scoring_rounds(),
        *((f"{name}_round/8x1000", other_round(name)) for name in ("linear", "cox")),
        *((f"secure_sgd/{5 * n}x30/50", secure_sgd(rows=n)) for n in (200, 400, 800, 1600)),
        ("secure_sgd/mlp/1000x64/20", network_sgd()),
    ):
        yield from _measured(name, workload, "ring")
    yield from client("W5/1e5", 100_000)
    yield from client("W5/1e6", 1_000_000)
    for engine in ("ring/4", f"ring/4 {VERIFIED}", "ring/5"):
        for name in FOLDED_WORKLOADS:
            yield from _measured(name, workloads[name], engine)
    for delay_ms in DELAYS_MS:
        for name in DELAYED_WORKLOADS:
            for engine in ("ring", f"ring/4 {VERIFIED}"):
                yield from _measured(name, workloads[name], engine, delay_ms=delay_ms)
    yield from at_once("W1/b1/3-segment", workloads["W1/b1/3-segment"], AT_ONCE)
    yield from memory("W5/4/integer", aggregation(4, weights="integer"), MANY)
    for name in SHAMIR_WORKLOADS:
        for engine in SHAMIR_ENGINES:
            yield from _measured(name, workloads[name], engine)
    yield from shamir_stock.run()


def client(name: str, words: int) -> Iterator[dict[str, Any]]:
    """What a site does with an update of so many words before it sends: share, commit, seal, sign.

    Processor time is that of all its threads; bytes are those of the frame that leaves."""
    signing, described = Ed25519PrivateKey.generate(), [_described(i) for i in range(MEMBERS)]
    now, values = int(time.time()), encode(wave(words)).astype(np.int64)
    fields: dict[str, Any] = {
        **{"scope": "round:bench", "slot": "update", "circuits": ["logistic_round@1"]},
        **{"circuits_hash": "0" * 64, "params": {}, "f": 16, "roster": "0" * 64, "model": None},
        **{"resolution": None, "issued_at": now, "expires_at": now + 3600},
    }
    clocks, spent, size = [], [], 0
    for _ in range(1 + REPEATS):
        start = (time.perf_counter(), time.process_time())
        upload = sealing.make_upload(values, fields, signing, described, binary=True)
        clocks.append((time.perf_counter() - start[0]) * 1e3)
        spent.append((time.process_time() - start[1]) * 1e3)
        size = len(uploads.head_line(uploads.head_of(upload))) + len(upload["correction"])
    yield _line(name, "client", "latency", round(statistics.median(clocks[1:]), 2), "ms")
    yield _line(name, "client", "processor", round(statistics.median(spent[1:]), 2), "ms")
    yield _line(name, "client", "upload", size, "bytes")


def _described(index: int) -> dict[str, Any]:
    """A node's descriptor, signed by it."""
    key = Ed25519PrivateKey.generate()
    body = {
        **{"v": 1, "index": index, "name": f"bench-{index}", "sign_key": wire.public_hex(key)},
        **{"hpke_key": hpke_public_hex(X25519PrivateKey.generate()), "tls_cert": "-"},
        **{"control": "127.0.0.1:1", "mesh": "127.0.0.1:2", "engines": ["ring"]},
        **{"circuits_hash": "0" * 64, "release": "0"},
    }
    return body | {"signature": wire.sign(key, NODE_DOMAIN, body)}


def at_once(name: str, workload: Workload, jobs: int) -> Iterator[dict[str, Any]]:
    """So many jobs begun together at three nodes: how many of them were wrong, how long it took."""
    answers = Members(workload, repeats=jobs, work=_at_once).answers()
    wanted = np.asarray(
        run_plain(workload.circuit, workload.values, workload.params).openings["value"]
    )
    wrong = sum(
        not np.allclose(np.asarray(outcome.openings["value"]), wanted, atol=1e-4)
        for _, outcomes in answers
        for outcome in outcomes
    )
    yield _line(name, "ring", f"at_once_{jobs}", round(max(ms for ms, _ in answers), 2), "ms")
    yield _line(name, "ring", f"at_once_{jobs}_wrong", wrong, "outcomes")


def memory(name: str, workload: Workload, jobs: int) -> Iterator[dict[str, Any]]:
    """Resident memory of the largest member before and after so many jobs, one after the other."""
    before, after = max(Members(workload, repeats=jobs, work=_many).answers(), key=lambda m: m[1])
    yield _line(name, "ring", "resident_before", before, "bytes")
    yield _line(name, "ring", f"resident_after_{jobs}_jobs", after, "bytes")


def _line(workload: str, engine: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": engine,
        "metric": metric,
        "value": value,
        "unit": unit,
    }


def _measured(
    name: str, workload: Workload, engine: str, *, delay_ms: int = 0
) -> Iterator[dict[str, Any]]:
    latency_ms, made_ms, outcomes = measure_with_bits(workload, engine=engine, delay_ms=delay_ms)
    shown = f"{engine}, {delay_ms} ms one way" if delay_ms else engine
    sent = max(outcome.bytes_sent for outcome in outcomes)
    lines: list[tuple[str, float, str]] = [
        ("latency", round(latency_ms, 2), "ms"),
        ("rounds", outcomes[0].rounds, "rounds"),
        ("sent_per_node_max", sent, "bytes"),
        ("error_against_plain", error_against_plain(outcomes, workload), "value"),
    ]
    if isinstance(outcomes[0], ShamirOutcome):
        lines.insert(1, ("bits", outcomes[0].bits_used, "bits"))
        if engine != UNPREPARED:
            lines.insert(1, ("making_bits", round(made_ms, 2), "ms"))
    for metric, value, unit in lines:
        yield _line(name, shown, metric, value, unit)
