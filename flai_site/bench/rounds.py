"""`bench mpc`: the engines alone (workers/mpc/bench.py), then a whole round of 10^6 parameters.

The product's own round of a network with two hidden layers, on three node processes with their
stores and control ports; ten sites and a validator share, seal and sign what they send, two at a
time, as many as there are cores here. From the first byte that is sealed to the model that all
nodes have stored, its evidence opened. The web site's part between them (head, parts in the
database, worker) is not in it: docs/performance.md has what that costs.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, jobs, tickets, uploads, wire
from apps.protocol.circuits import circuits_hash
from apps.protocol.circuits.resolution import LOGIT
from flai_site.bench.processes import processor_s
from flai_site.stack.layout import StackError
from flai_site.stack.up import free_ports
from workers.mpc import bench, sealing
from workers.mpc.tls import mutual_context
from workers.mpc.workloads import Workload
from workers.node import home as homes

NODES, SITES = 3, 10
# 201 · 1 000 + 1 001 · 796 + 797 · 4 = 1 000 984 weights: as large as a request may ask for
SIZES: dict[str, Any] = {"features": 200, "units": (1000, 796), "classes": 4, "rows": 200}
AT_ONCE = 2
REPEATS = 3
STAGES = ("taking_shares", "computing", "storing")
DEADLINE_S = 60


def run() -> Iterator[dict[str, Any]]:
    """Measurements as manage.py prints them."""
    yield from bench.run()
    yield from over_nodes(f"round/{SITES}x1e6", bench.network_round(SITES, **SIZES), REPEATS)


def over_nodes(name: str, workload: Workload, repeats: int) -> Iterator[dict[str, Any]]:
    """The median round of so many after a warm-up, what its stages took on the clock, and what the
    nodes together of processor time, which hardly changes with what else the machine does."""
    with TemporaryDirectory() as directory, Nodes(Path(directory)) as nodes:
        rounds = [_round(nodes, workload) for _ in range(1 + repeats)][1:]
    took = sorted(rounds, key=lambda each: each.ms[-1])[len(rounds) // 2]
    yield _line(name, "latency", round(took.ms[-1], 2), "ms")
    for stage, (before, after) in zip(STAGES, pairwise((0.0, *took.ms)), strict=True):
        yield _line(name, stage, round(after - before, 2), "ms")
    for stage, (before, after) in zip(STAGES, pairwise((0.0, *took.nodes_ms)), strict=True):
        yield _line(name, f"{stage}_nodes_processor", round(after - before, 2), "ms")
    yield _line(name, "sealing_processor", round(took.sealing_ms, 2), "ms")
    yield _line(name, "sent_per_site", took.sent_bytes, "bytes")


def _line(name: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"workload": name, "engine": "ring", "metric": metric, "value": value, "unit": unit}


@dataclass(frozen=True)
class Took:
    """Since the first byte was sealed, at the end of each stage: time on the clock, processor time
    of all nodes. sealing: processor time of all sites, who do it before they send."""

    ms: tuple[float, ...]
    nodes_ms: tuple[float, ...]
    sealing_ms: float
    sent_bytes: int


class Nodes:
    """Three node processes, and calls to their control ports."""

    def __init__(self, directory: Path) -> None:
        coordinator = Ed25519PrivateKey.generate()
        ports = free_ports(2 * NODES)
        self._homes = [directory / str(index) for index in range(NODES)]
        for index, home in enumerate(self._homes):
            control, mesh = (f"127.0.0.1:{ports[2 * index + at]}" for at in (0, 1))
            homes.init(home, index=index, name=f"bench-{index}", control=control, mesh=mesh)
        self._urls = [f"https://127.0.0.1:{port}" for port in ports[::2]]
        self.descriptors = [json.loads((h / "descriptor.json").read_text()) for h in self._homes]
        certificate = identity.certificate_pem(coordinator, identity.COORDINATOR)
        peers = {"coordinator": wire.public_hex(coordinator), "coordinator_cert": certificate}
        for home in self._homes:
            (home / "peers.json").write_text(json.dumps(peers | {"nodes": self.descriptors}))
        pinned = "".join(each["tls_cert"] for each in self.descriptors)
        key = identity.private_pem(coordinator)
        context = mutual_context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, pinned)
        self._http = httpx.Client(timeout=DEADLINE_S, verify=context)
        self._threads = ThreadPoolExecutor(AT_ONCE * NODES)
        self._processes: list[subprocess.Popen[str]] = []
        self.coordinator = coordinator

    def __enter__(self) -> Nodes:
        for home in self._homes:
            command = [sys.executable, "-m", "workers.node", "--home", str(home)]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for process in self._processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise StackError("A node of the bench did not start.")
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self._threads.shutdown()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def processor_s(self) -> float:
        return processor_s(process.pid for process in self._processes)

    def post(self, path: str, **body: Any) -> list[Any]:
        """What each of them answers. Raises: StackError."""
        asked = [self._threads.submit(self._http.post, url + path, **body) for url in self._urls]
        answers = [each.result() for each in asked]
        for answer in answers:
            if answer.status_code >= 300:
                raise StackError(f"A node refused: {answer.text}")
        return [answer.json() for answer in answers]


def _round(nodes: Nodes, workload: Workload) -> Took:
    scope, circuit = str(uuid.uuid4()), workload.circuit
    sending = [(slot, words) for slot, given in workload.values.items() for words in given]
    keys = sorted((Ed25519PrivateKey.generate() for _ in sending), key=wire.public_hex)
    members = [
        {"key": wire.public_hex(key), "role": circuit.slots[slot].role, "name": "site"}
        for key, (slot, _) in zip(keys, sending, strict=True)
    ]
    roster = tickets.roster_of(round_id=scope, members=members)
    now = int(time.time())
    fields = {
        "scope": f"round:{scope}",
        "circuits": [circuit.id],
        "circuits_hash": circuits_hash(),
        "params": workload.params,
        "roster": tickets.check_roster(roster),
        "resolution": LOGIT,
        "issued_at": now,
        "expires_at": now + 3600,
    }

    def share(place: int) -> tuple[str, float, int]:
        """(the share's id, ms of making it, bytes that leave the site)."""
        slot, words = sending[place]
        own = fields | {"slot": slot, "f": circuit.slots[slot].f}
        before = time.thread_time()
        made = sealing.make_upload(
            words.astype("int64"), own, keys[place], nodes.descriptors, binary=True
        )
        frame = uploads.head_line(uploads.head_of(made)) + made["correction"]
        took_ms = (time.thread_time() - before) * 1e3
        nodes.post("/shares", content=frame, headers={"content-type": uploads.MEDIA_TYPE})
        return made["ticket"]["share_id"], took_ms, len(frame)

    clock, spent = [time.perf_counter()], [nodes.processor_s()]

    def staged() -> None:
        clock.append(time.perf_counter())
        spent.append(nodes.processor_s())

    with ThreadPoolExecutor(AT_ONCE) as sites:
        shares = list(sites.map(share, range(len(keys))))
    staged()
    inputs: dict[str, list[str]] = {slot: [] for slot in workload.values}
    for (slot, _), (share_id, _, _) in zip(sending, shares, strict=True):
        inputs[slot].append(share_id)
    receipts = _computed(nodes, workload, roster, inputs)
    staged()
    job_id = receipts[0]["receipt"]["job_id"]
    stored = nodes.post(f"/jobs/{job_id}/commit", json={"receipts": receipts})
    staged()
    if not stored[0]["model"] or any(each["model"] != stored[0]["model"] for each in stored):
        raise StackError("The nodes stored no model, or not the same.")
    return Took(
        ms=tuple((at - clock[0]) * 1e3 for at in clock[1:]),
        nodes_ms=tuple((at - spent[0]) * 1e3 for at in spent[1:]),
        sealing_ms=sum(ms for _, ms, _ in shares),
        sent_bytes=max(sent for _, _, sent in shares),
    )


def _computed(
    nodes: Nodes, workload: Workload, roster: dict[str, Any], inputs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    job = {
        "v": 1,
        "job_id": uuid.uuid4().hex,
        "attempt": 1,
        "circuit": workload.circuit.id,
        "circuits_hash": circuits_hash(),
        "engine": tickets.RING,
        "nodes": [jobs.fingerprint(each) for each in nodes.descriptors],
        "scope": f"round:{roster['scope_of']}",
        "roster": roster,
        "inputs": dict(inputs),
        "model": None,
        "deadline_s": DEADLINE_S,
    }
    signature = wire.sign(nodes.coordinator, jobs.JOB_DOMAIN, job)
    answers = nodes.post("/jobs", json={"descriptor": job, "signature": signature})
    return [{name: each[name] for name in ("receipt", "signature")} for each in answers]
