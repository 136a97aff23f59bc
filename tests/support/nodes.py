"""Real nodes in processes of their own, and the parties that use them.

`three_nodes` is one running set for a whole session. A test that kills one of them takes `mortal`,
which starts it again; one that spoils its store makes a NodeSet of its own.
The tests hold the coordinator's key, as a curious server would.
"""

from __future__ import annotations

import copy
import ctypes
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol import identity, jobs, refreshes, successions, tickets, uploads, wire
from apps.protocol.circuits import CLASSES, INFERS, circuits_hash, query_hash
from apps.protocol.circuits.descent import DEFAULTS
from flai_site.stack.up import free_ports
from workers.mpc import keys, sealing
from workers.mpc.tls import mutual_context
from workers.node import home as homes

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0


NODE = "workers.node"


def node_command(home: Path, *arguments: str, module: str = NODE) -> list[str]:
    return [sys.executable, "-m", module, "--home", str(home), *arguments]


def _die_with_the_tests() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class NodeSet:
    """n nodes: homes, processes, and calls to their control ports."""

    def __init__(
        self, directory: Path, limits: Mapping[str, Any] | None = None, *, n: int = 3
    ) -> None:
        self.n = n
        self.directory = directory
        self.coordinator = Ed25519PrivateKey.generate()
        self.homes = [directory / str(i) for i in range(n)]
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.releases: dict[int, Path] = {}  # where a node's code is, if not here
        self.modules: dict[int, str] = {}  # what a node runs, if not what nodes do
        ports = free_ports(3 * n)
        self.metrics_ports = ports[2 * n :]
        self.control = [f"https://127.0.0.1:{p}" for p in ports[:n]]
        for i, home in enumerate(self.homes):
            addresses = [f"127.0.0.1:{port}" for port in (ports[i], ports[n + i])]
            homes.init(home, index=i, name=f"node-{i}", control=addresses[0], mesh=addresses[1])
        self.know([json.loads((h / "descriptor.json").read_text()) for h in self.homes])
        self.coordinator_cert = identity.certificate_pem(self.coordinator, identity.COORDINATOR)
        peers = {
            "coordinator": wire.public_hex(self.coordinator),
            "coordinator_cert": self.coordinator_cert,
            "nodes": self.descriptors,
        }
        for home in self.homes:
            (home / "peers.json").write_text(json.dumps(peers))
            if limits is not None:
                (home / "policy.json").write_text(json.dumps(limits))
        self.know_again(self.descriptors)
        self._threads = ThreadPoolExecutor(12)

    def know(self, descriptors: list[dict[str, Any]]) -> None:
        self.descriptors = descriptors
        self.fingerprints = [jobs.fingerprint(d) for d in descriptors]

    def become(self, descriptors: list[dict[str, Any]]) -> None:
        """These are the nodes from now on: all are restarted as a set of so many."""
        for i in list(self.processes):
            self.kill(i)
        self.n = len(descriptors)
        for home in self.homes[: self.n]:
            peers = json.loads((home / "peers.json").read_text())
            (home / "peers.json").write_text(json.dumps(peers | {"nodes": descriptors}))
        self.know_again(descriptors)
        self.start()

    def know_again(self, descriptors: list[dict[str, Any]]) -> None:
        """These are the nodes from now on, for the coordinator too."""
        self.know(descriptors)
        self.http = httpx.Client(timeout=90, verify=self.tls())

    def __deepcopy__(self, memo: dict[int, Any]) -> NodeSet:
        return self  # processes are there once

    def tls(self) -> ssl.SSLContext:
        """As the coordinator, to any of these nodes."""
        pinned = "".join(d["tls_cert"] for d in self.descriptors)
        key = identity.private_pem(self.coordinator)
        return mutual_context(ssl.PROTOCOL_TLS_CLIENT, self.coordinator_cert, key, pinned)

    # ---- processes ----------------------------------------------------------------------------

    def start(self, *indices: int) -> None:
        for i in indices or range(self.n):
            with (self.homes[i] / "log").open("a") as log:
                self.processes[i] = subprocess.Popen(
                    node_command(
                        *(self.homes[i], "--metrics", str(self.metrics_ports[i])),
                        module=self.modules.get(i, NODE),
                    ),
                    cwd=self.releases.get(i, REPOSITORY),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    preexec_fn=_die_with_the_tests,
                )
        for i in indices or range(self.n):
            timer = threading.Timer(START_TIMEOUT_S, self.processes[i].kill)
            timer.start()
            line = self.processes[i].stdout.readline()  # type: ignore[union-attr]
            timer.cancel()
            assert line and json.loads(line)["ready"], (self.homes[i] / "log").read_text()

    def revive(self) -> None:
        """Start those that are down, as whoever killed them left them or by themselves."""
        up = {i for i, process in self.processes.items() if process.poll() is None}
        if down := set(range(self.n)) - up:
            self.start(*down)

    def kill(self, i: int) -> None:
        process = self.processes.pop(i)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            assert process.wait(60) == 0
            process.stdout.close()  # type: ignore[union-attr]
        self.processes.clear()
        self.http.close()
        self._threads.shutdown()

    # ---- calls --------------------------------------------------------------------------------

    def post(self, i: int, path: str, body: Any) -> httpx.Response:
        """JSON; an upload for /shares as the frame that it is there."""
        if path != "/shares":
            return self.http.post(self.control[i] + path, json=body)
        headers = {"content-type": uploads.MEDIA_TYPE}
        return self.http.post(self.control[i] + path, content=frame_of(body), headers=headers)

    def post_all(self, path: str, body: Any, nodes: Sequence[int] | None = None) -> list[Any]:
        nodes = range(self.n) if nodes is None else nodes
        return list(self._threads.map(lambda i: self.post(i, path, body), nodes))

    def put(self, *uploads: dict[str, Any], nodes: Sequence[int] | None = None) -> None:
        for upload in uploads:
            for answer in self.post_all("/shares", upload, nodes):
                assert answer.status_code == 201, answer.text

    def signed(self, job: dict[str, Any], **extra: Any) -> dict[str, Any]:
        signature = wire.sign(self.coordinator, jobs.JOB_DOMAIN, job)
        return {"descriptor": job, "signature": signature, **extra}

    def signed_bundle(self, asked: Sequence[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
        """Jobs with their uploads, signed for as a whole."""
        bundle = jobs.bundle_of([jobs.job_digest(job) for job, _upload in asked])
        return {
            "jobs": [{"descriptor": job, "upload": upload} for job, upload in asked],
            "signature": wire.sign(self.coordinator, jobs.BUNDLE_DOMAIN, bundle),
        }

    def ask(
        self, job: dict[str, Any], nodes: Sequence[int] | None = None, **extra: Any
    ) -> list[Any]:
        """The answers of these nodes, without which of all members."""
        nodes = jobs.members_of(job) if nodes is None and job.get("nodes") else nodes
        return self.post_all("/jobs", self.signed(job, **extra), nodes)

    def begin(self, job: dict[str, Any], i: int, **extra: Any) -> Any:
        """The answer of one node, to come."""
        return self._threads.submit(self.post, i, "/jobs", self.signed(job, **extra))

    def refreshed(self, i: int) -> int:
        """How many refreshes that node has seen."""
        return int(self.http.get(self.control[i] + "/refresh").json()["number"])

    def refresh(
        self, members: Sequence[int], asked_of: Sequence[int] | None = None, **changes: Any
    ) -> list[Any]:
        """What these members, or some of them, say to the next refresh of what they keep."""
        asked_of = asked_of or members
        refresh = refreshes.refresh_of(
            id_=secrets.token_hex(16),
            after=self.refreshed(asked_of[0]),
            nodes=self.fingerprints,
            members=members,
            deadline_s=30,
        )
        refresh |= changes
        signature = wire.sign(self.coordinator, refreshes.REFRESH_DOMAIN, refresh)
        body = {"refresh": refresh, "signature": signature}
        return self.post_all("/refresh", body, asked_of)

    def commit(self, answers: list[Any], nodes: Sequence[int] | None = None) -> list[Any]:
        """Without `nodes`, at those that answered."""
        receipts = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
        job_id = receipts[0]["receipt"]["job_id"]
        if nodes is None:
            nodes = [self.fingerprints.index(r["receipt"]["node"]) for r in receipts]
        return self.post_all(f"/jobs/{job_id}/commit", {"receipts": receipts}, nodes)

    def show(self, i: int, job: dict[str, Any], answers: list[Any]) -> Any:
        """Commit at a node that was not there, with the job that the receipts are about."""
        receipts = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
        body = {"receipts": receipts, "descriptor": job}
        return self.post(i, f"/jobs/{job['job_id']}/commit", body)

    def state(self, i: int, job_id: str) -> dict[str, Any]:
        return self.http.get(f"{self.control[i]}/jobs/{job_id}").json()

    def wait_for_state(self, i: int, job_id: str, state: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while self.state(i, job_id)["state"] != state:
            assert time.monotonic() < end, self.state(i, job_id)
            threading.Event().wait(0.01)

    def metrics(self, i: int) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_ports[i]}/metrics").text

    def counted(self, i: int, name: str) -> float:
        """A metric by its name and labels; 0 before the first."""
        return counted(self.metrics(i), name)

    def logs(self) -> str:
        return "".join((h / "log").read_text() for h in self.homes)

    # ---- what parties make --------------------------------------------------------------------

    def upload(
        self,
        key: Ed25519PrivateKey,
        values: Any,
        *,
        reply: X25519PrivateKey | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Fixed-point values shared and sealed to these nodes."""
        now = int(time.time())
        hashed = hash_of(fields["circuits"][0], fields["params"])
        base = {"circuits_hash": hashed, "issued_at": now, "expires_at": now + 3600}
        return sealing.make_upload(
            np.asarray(values, dtype=np.int64), base | fields, key, self.descriptors, reply=reply
        )

    def job(
        self, circuit: str, scope: str, inputs: dict[str, list[str]], **more: Any
    ) -> dict[str, Any]:
        base = {
            "v": 1,
            "job_id": secrets.token_hex(16),
            "attempt": 1,
            "circuit": circuit,
            "circuits_hash": hash_of(circuit, {"features": Round.FEATURES}),
            "engine": "ring",
            "nodes": self.fingerprints,
            "scope": scope,
            "roster": None,
            "inputs": inputs,
            "model": None,
            "deadline_s": 20,
        }
        if self.n > 3:
            base |= {"computing": [0, 1, 2], "holding": []}
        return base | more


def consents_of(
    makers: Sequence[Ed25519PrivateKey], *, days: int | None = 1, **what: Any
) -> list[dict[str, Any]]:
    """What these sign so that a model goes to other nodes; without `days` as earlier releases."""
    end = {} if days is None else {"expires_at": int(time.time()) + 86_400 * days}
    said = refreshes.consent_of(**({"expires_at": None} | end), **what)
    return [
        {"key": wire.public_hex(k), "signature": wire.sign(k, refreshes.CONSENT_DOMAIN, said)} | end
        for k in makers
    ]


def counted(metrics: str, name: str) -> float:
    """The sample of that name and labels; 0 before the first."""
    found = [line for line in metrics.splitlines() if line.startswith(name + " ")]
    assert len(found) <= 1
    return float(found[0].rpartition(" ")[2]) if found else 0.0


def hash_of(circuit: str, made: Mapping[str, Any]) -> str:
    """What tickets and jobs for this circuit name as its hash."""
    return query_hash(circuit, made) if circuit in INFERS else circuits_hash()


def frame_of(upload: Any) -> bytes:
    """An upload as a node takes it; one that a test has spoilt as it comes out."""
    head = {name: value for name, value in upload.items() if name != "correction"}
    try:
        correction = wire.unb64(upload["correction"])
    except (KeyError, ValueError):
        correction = str(upload.get("correction")).encode()
    return json.dumps(head).encode() + b"\n" + correction


def fixed(values: Any, f: int = 16) -> np.ndarray:
    return np.rint(np.asarray(values, dtype=float) * 2**f).astype(np.int64)


class Round:
    """A small logistic round: its parties, uploads and job, ready to be spoiled by a test."""

    FEATURES = 2
    TRUE = np.array([1.5, -1.0, 0.25])

    def __init__(
        self,
        nodes: NodeSet,
        *,
        custodians: int = 5,
        rows: int = 24,
        seed: int = 1,
        resolution: str = "logit",
        engine: str = "ring",
        params: Mapping[str, Any] | None = None,
        access: Mapping[str, Any] | None = None,
    ) -> None:
        self.nodes = nodes
        self.access = {"access": access} if access else {}
        self.engine = engine
        self.resolution = resolution
        self.id = str(uuid.uuid4())
        self.scope = f"round:{self.id}"
        self.custodians = _sorted_keys(custodians)
        self.validators = _sorted_keys(1)
        self.roster = tickets.roster_of(
            round_id=self.id,
            members=[
                {"key": wire.public_hex(k), "role": role, "name": role}
                for role, held in (("custodian", self.custodians), ("validator", self.validators))
                for k in held
            ],
        )
        self.params = {
            "features": self.FEATURES,
            "strata": 1,
            "rows": [rows],
            "min_cell": 3,
            "scoring": "taylor",
            **(params or {}),
        }
        rng = np.random.default_rng(seed)
        # all but one have learnt the same thing: the last one's labels are flipped
        signs = [1] * (custodians - 1) + [-1]
        self.weights = [s * (self.TRUE + rng.normal(0, 0.1, 3)) for s in signs]
        x = rng.normal(0, 1, (rows, self.FEATURES))
        y = (x @ self.TRUE[:2] + self.TRUE[2] > 0).astype(float)
        self.holdout = np.column_stack([x, y, np.ones(rows)])
        self.uploads = self.make_uploads()

    def fields(self, slot: str, **changes: Any) -> dict[str, Any]:
        base = {
            "scope": self.scope,
            "slot": slot,
            "circuits": ["logistic_round@1"],
            "params": self.params,
            "f": 16,
            "roster": tickets.check_roster(self.roster),
            "resolution": self.resolution,
            "engine": self.engine,
            **self.access,
        }
        return base | changes

    def make_uploads(self) -> dict[str, list[dict[str, Any]]]:
        update, holdout = self.fields("update"), self.fields("holdout")
        return {
            "update": [
                self.nodes.upload(k, fixed(w), **update)
                for k, w in zip(self.custodians, self.weights)
            ],
            "holdout": [
                self.nodes.upload(k, fixed(self.holdout), **holdout) for k in self.validators
            ],
        }

    def put(self, nodes: Sequence[int] | None = None) -> Round:
        self.nodes.put(*self.uploads["update"], *self.uploads["holdout"], nodes=nodes)
        return self

    def next(self, **changes: Any) -> Any:
        """The same parties' next round; nothing is sent yet."""
        other = copy.copy(self)
        vars(other).update(changes)
        other.id = str(uuid.uuid4())
        other.scope = f"round:{other.id}"
        other.roster = {**self.roster, "scope_of": other.id}
        other.uploads = other.make_uploads()
        return other

    def kept(
        self, came: dict[str, Any], key: Ed25519PrivateKey, *, slot: str = "holdout", **changes: Any
    ) -> dict[str, Any]:
        """A ticket that brings what nodes keep into this round, from where it lies."""
        now = int(time.time())
        times = {"issued_at": now, "expires_at": now + 3600, "circuits_hash": circuits_hash()}
        fields = self.fields(slot, **changes)
        made = sealing.kept_upload(came["ticket"], times | fields, key)
        return made | {"correction": ""}

    def job(self, **changes: Any) -> dict[str, Any]:
        inputs = {
            slot: [u["ticket"]["share_id"] for u in listed] for slot, listed in self.uploads.items()
        }
        base: dict[str, Any] = {"roster": self.roster, "inputs": inputs}
        circuit = changes.pop("circuit", "logistic_round@1")
        return self.nodes.job(circuit, self.scope, **(base | changes))


class RowsRound(Round):
    """The same parties, who share rows to make steps on, from zero or from a model."""

    SITE_ROWS = 30

    def __init__(self, nodes: NodeSet, *, model: str | None = None, **more: Any) -> None:
        self.model = model
        self.circuit = "logistic_sgd_on@1" if model else "logistic_sgd@1"
        super().__init__(nodes, **more)

    def again(self, model: str) -> Any:
        """The same parties' next round, which goes on from a model."""
        return self.next(model=model, circuit="logistic_sgd_on@1")

    def fields(self, slot: str, **changes: Any) -> dict[str, Any]:
        return super().fields(slot, circuits=[self.circuit], model=self.model, **changes)

    def make_uploads(self) -> dict[str, list[dict[str, Any]]]:
        count = len(self.custodians)
        self.params.pop("scoring", None)
        self.params |= {**DEFAULTS, "epochs": 2, "steps": 5, "site_rows": [self.SITE_ROWS] * count}
        self.params["normalisation"] = "ab" * 32
        rng = np.random.default_rng(11)
        self.rows = []
        for turned in [1] * (count - 1) + [-1]:
            x = rng.normal(0, 1, (self.SITE_ROWS, self.FEATURES))
            y = (turned * (x @ self.TRUE[:2] + self.TRUE[2]) > 0).astype(float)
            self.rows.append(np.column_stack([x, y]))
        rows, holdout = self.fields("rows"), self.fields("holdout")
        return {
            "rows": [
                self.nodes.upload(k, fixed(block), **rows)
                for k, block in zip(self.custodians, self.rows)
            ],
            "holdout": [
                self.nodes.upload(k, fixed(self.holdout), **holdout) for k in self.validators
            ],
        }

    def put(self, nodes: Sequence[int] | None = None) -> RowsRound:
        self.nodes.put(*self.uploads["rows"], *self.uploads["holdout"], nodes=nodes)
        return self

    def job(self, **changes: Any) -> dict[str, Any]:
        base = {"circuit": self.circuit, "model": self.model, "deadline_s": 60}
        return super().job(**(base | changes))


class Buyer:
    """Someone who asks a committed model about rows."""

    def __init__(
        self, nodes: NodeSet, model: str, *, resolution: str = "logit", normalisation: str = ""
    ) -> None:
        self.nodes = nodes
        self.named = {"normalisation": normalisation} if normalisation else {}
        self.model = model
        self.resolution = resolution
        self.circuit = CLASSES["logistic"].infer_id(resolution)
        self.key = Ed25519PrivateKey.generate()
        self.reply = X25519PrivateKey.generate()

    def query(self, rows: Any, **changes: Any) -> dict[str, Any]:
        values = fixed(rows)
        base = {
            "scope": f"query:{uuid.uuid4().hex}",
            "slot": "row",
            "circuits": [self.circuit],
            "params": {"features": values.shape[1], "rows": values.shape[0], **self.named},
            "f": 16,
            "model": self.model,
            "price_micro": "500000",
            "resolution": self.resolution,
        }
        return self.nodes.upload(self.key, values, reply=self.reply, **(base | changes))

    def job(self, upload: dict[str, Any], **changes: Any) -> dict[str, Any]:
        ticket = upload["ticket"]
        inputs = {"row": [ticket["share_id"]]}
        base = {"model": ticket["model"], "inputs": inputs}
        circuit = changes.pop("circuit", self.circuit)
        return self.nodes.job(circuit, ticket["scope"], **(base | changes))

    def open(
        self, upload: dict[str, Any], answers: list[Any], computing: Sequence[int] = (0, 1, 2)
    ) -> np.ndarray:
        return self.open_sealed(upload, [a.json()["sealed"] for a in answers], computing)

    def open_sealed(
        self, upload: dict[str, Any], blobs: list[str], computing: Sequence[int] = (0, 1, 2)
    ) -> np.ndarray:
        values, f = sealing.open_outputs(
            blobs, upload["ticket"], self.reply, self.nodes.descriptors, computing=computing
        )
        return values / 2**f


def trained_model(nodes: NodeSet, **how: Any) -> str:
    """The id of a model that the nodes have made and committed in such a `Round`."""
    engine = how.get("engine", tickets.RING)
    named = {"engine": engine, "deadline_s": 60} if engine in tickets.SHAMIR else {}
    answers = nodes.ask(Round(nodes, **how).put().job(**named))
    assert all(a.status_code == 200 for a in answers), [a.text for a in answers]
    committed = nodes.commit(answers)
    assert all(c.status_code == 200 for c in committed), [c.text for c in committed]
    return str(committed[0].json()["model"])


def _sorted_keys(count: int) -> list[Ed25519PrivateKey]:
    made = [Ed25519PrivateKey.generate() for _ in range(count)]
    return sorted(made, key=wire.public_hex)


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three nodes that run for the whole session."""
    assert not os.environ.get("FLAI_STORE_KEY")
    limits = {"rows_per_epoch": 1_000_000}
    nodes = NodeSet(tmp_path_factory.mktemp("nodes"), limits)
    nodes.start()
    yield nodes
    nodes.stop()


@pytest.fixture
def mortal(three_nodes: NodeSet) -> Any:
    """The same three, one of which may be killed."""
    yield three_nodes
    three_nodes.revive()


@pytest.fixture(scope="session")
def model(three_nodes: NodeSet) -> str:
    return trained_model(three_nodes)


def succeeded(nodes: NodeSet, index: int, *, by: Sequence[int]) -> list[dict[str, Any]]:
    """The descriptors of these nodes once another key has the place of one of them, as those with
    the indices `by` signed. No such node runs."""
    new, old = Ed25519PrivateKey.generate(), nodes.descriptors[index]
    body = old | {
        "sign_key": wire.public_hex(new),
        "tls_cert": identity.certificate_pem(new, "new"),
    }
    del body["signature"]
    said = successions.statement_of(
        old=nodes.fingerprints[index], new=jobs.fingerprint(body), nodes=nodes.fingerprints
    )
    signed = []
    for i in by:
        key = keys.signing_key(keys.load(nodes.homes[i] / "sign.key"))
        public = {k: nodes.descriptors[i][k] for k in ("sign_key", "hpke_key")}
        signature = wire.sign(key, successions.SUCCESSION_DOMAIN, said)
        signed.append(public | {"signature": signature})
    body["succeeds"] = [{"statement": said, "signatures": signed}]
    body["signature"] = wire.sign(new, jobs.NODE_DOMAIN, body)
    return [*nodes.descriptors[:index], body, *nodes.descriptors[index + 1 :]]


def cosigned_anew(nodes: Any) -> None:
    """This test's log is another one than the last test's: the nodes sign it from here on."""
    from apps.compute import cosigning
    from apps.core.clock import now
    from apps.wallets import log
    from workers.node.__main__ import forget_log

    for home in nodes.homes:
        forget_log(home)
    log.sequence(now=now())
    cosigning.collect()
