"""One node, running: store, mesh, control port, and a graceful end."""

from __future__ import annotations

import asyncio
import asyncio.constants
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.protocol import successions
from workers.mpc.jsonlines import JsonLines
from workers.node import home as homes
from workers.node import storekey
from workers.node.errors import NodeError, StartError

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

PURGE_EVERY_S = 300
STOP_TIMEOUT_S = 3
KEEP_ALIVE_S = 60
HANDSHAKE_S = 15.0  # a busy node's own part of it may take seconds
GOODBYE_S = 0.2
# Containers made before the youngest are looked at: a bundle of queries makes thousands, and none
# of them is garbage before its answer has left.
YOUNG_MAX = 10_000

log = logging.getLogger("flai.node")


def run(home: Path, *, metrics_port: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, with metrics on a port of this machine where one is given.

    Raises: StartError before anything is served.
    """
    log_as_json()
    node = homes.load(home)
    lock = homes.lock(home)
    peers = homes.load_peers(node)
    _say_what_does_not_count(peers)
    limits = homes.load_limits(home)
    control_socket = listen(node.control, "control")
    mesh_socket = listen(node.mesh, "mesh")

    # heavy imports only after what can be refused has been refused
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from workers.node import metrics
    from workers.node.control import Control
    from workers.node.copies import Copies
    from workers.node.heads import Heads
    from workers.node.idle import QUESTION, Idle
    from workers.node.jobs import Jobs
    from workers.node.refreshing import Refreshing
    from workers.node.shares import Shares

    if metrics_port is not None:
        metrics.serve(metrics_port)
    store = storekey.open_store(node)
    mesh = _mesh(node, peers, mesh_socket)
    copies = Copies(node=node, sets=peers.sets, store=store, mesh=mesh)
    idle = Idle(mesh)

    def answer(asker: int, question: bytes) -> bytes:
        about_bits = question.startswith(QUESTION)
        return (idle if about_bits else copies).answer(asker, question)

    mesh.answer, mesh.lost = answer, idle.lose
    mesh.start()
    refreshing = Refreshing(node=node, peers=peers, store=store, mesh=mesh, copies=copies)
    shares = Shares(node=node, peers=peers, store=store, limits=limits)
    jobs = Jobs(
        node=node,
        peers=peers,
        limits=limits,
        store=store,
        shares=shares,
        mesh=mesh,
        copies=copies,
        refreshing=refreshing,
        idle=idle,
    )
    heads = Heads(node=node, store=store)
    control = Control(node=node, shares=shares, jobs=jobs, heads=heads, refreshing=refreshing)
    stopping = threading.Event()
    threading.Thread(target=_purge, args=(store, stopping), name="purge", daemon=True).start()
    for name, watched in (("refreshing", refreshing.watch), ("idle", idle.watch)):
        threading.Thread(target=watched, args=(stopping,), name=name, daemon=True).start()
    _watch(home=home, store=store, jobs=jobs, mesh=mesh, heads=heads, idle=idle)
    gc.freeze()  # what is loaded stays
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
    try:
        _serve(control.application(), control_socket, node, peers)
    finally:
        stopping.set()
        refreshing.stop()
        idle.stop()
        mesh.close()  # whatever still runs ends with PeerLost, here and there
        control.job_pool.close()
        control.share_pool.close()
        control.refusal_pool.close()
        log.info("stopped")
        lock.close()


def _watch(*, home: Path, store: Any, jobs: Any, mesh: Mesh, heads: Any, idle: Any) -> None:
    """What is read when somebody asks for the metrics."""
    from workers.node import metrics

    def store_bytes() -> int:
        return sum(path.stat().st_size for path in home.glob("store.sqlite*"))

    metrics.watch("flai_node_running", "Jobs on their way", lambda: jobs.running)
    metrics.watch("flai_node_bits", "Random bits kept for jobs to come", lambda: len(idle.reserve))
    metrics.watch("flai_node_peers_up", "Other nodes connected", lambda: len(mesh.peers_up()))
    metrics.watch("flai_node_store_bytes", "The share store on disk", store_bytes)
    metrics.watch(
        "flai_node_models_damaged",
        "Stored models that do not open, until they are copied from the others",
        lambda: len(store.damaged),
    )
    metrics.watch("flai_node_head_size", "Log entries last signed", lambda: heads.last()["size"])
    metrics.watch("flai_node_head_seconds", "When the last signed head was made", heads.made_at_s)


def recover(home: Path, *, wait_s: float) -> tuple[list[str], list[str]]:
    """Fill the empty store of a stopped node from the others; the models that it has again, and
    those that it could not have.

    Enough others must be connected within `wait_s`. Raises: StartError.
    """
    log_as_json()
    node = homes.load(home)
    lock = homes.lock(home)
    peers = homes.load_peers(node)
    _say_what_does_not_count(peers)
    from workers.node.copies import Copies, sources_needed
    from workers.node.refreshing import Refreshing

    n = len(peers.nodes)
    mesh = _mesh(node, peers, listen(node.mesh, "mesh"))
    store = storekey.open_store(node)
    copies = Copies(node=node, sets=peers.sets, store=store, mesh=mesh)
    mesh.start()
    try:
        mesh.wait_for(n - 1, seconds=wait_s, least=sources_needed(n))
        recovered = copies.recover()
        Refreshing(node=node, peers=peers, store=store, mesh=mesh, copies=copies).catch_up()
        return recovered
    except NodeError as error:
        raise StartError(f"{home} cannot be recovered: {error.text}") from None
    finally:
        mesh.close()
        store.close()
        lock.close()


def _mesh(node: homes.Node, peers: homes.Peers, sock: socket.socket) -> Mesh:
    from apps.protocol import identity
    from workers.mpc.mesh import Mesh, Peer

    return Mesh(
        me=node.index,
        listener=sock,
        peers=[
            Peer(
                index=d["index"],
                address=homes.address(d["mesh"]),
                certificate=identity.certificate_der(d["tls_cert"], sign_key=d["sign_key"]),
            )
            for d in peers.nodes
            if d["index"] != node.index
        ],
        certificate=node.certificate,
        private_key=identity.private_pem(node.sign_key),
    )


def _serve(application: Any, sock: socket.socket, node: homes.Node, peers: homes.Peers) -> None:
    """Answer the coordinator, and nobody who does not hold its key."""
    import uvicorn

    from apps.protocol import identity
    from workers.mpc.tls import mutual_context

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn would raise the signal again after its own shutdown and cut ours short
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            ready = {
                "ready": True,
                "index": node.index,
                "fingerprint": node.fingerprint,
                "control": "{}:{}".format(*node.control),
                "mesh": "{}:{}".format(*node.mesh),
            }
            print(json.dumps(ready), flush=True)
            log.info("listening", extra={"index": node.index, "control": ready["control"]})

    config = uvicorn.Config(
        application,
        loop="asyncio",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    # A silent stranger may not hold a descriptor for long, nor an idle client our end.
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HANDSHAKE_S  # type: ignore[attr-defined]
    asyncio.constants.SSL_SHUTDOWN_TIMEOUT = GOODBYE_S  # type: ignore[attr-defined]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config.load()
    # set after `load`: uvicorn itself would read key and certificate from files
    config.ssl = mutual_context(
        ssl.PROTOCOL_TLS_SERVER,
        node.certificate,
        identity.private_pem(node.sign_key),
        peers.coordinator_cert,
    )
    Server(config).run(sockets=[sock])


def listen(address: tuple[str, int], what: str) -> socket.socket:
    """A bound socket. Raises: StartError when the port is taken."""
    host, port = address
    try:
        family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise StartError(f"{what} port {host}:{port}: there is no such host") from None
    # asyncio switches Nagle off (40 ms a request) only where the protocol is named
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(where)
        sock.listen(64)  # now, so that a second node fails here and not later
    except OSError as error:
        sock.close()
        reason = error.strerror or "not possible"
        raise StartError(f"{what} port {host}:{port} cannot be bound: {reason}") from None
    return sock


def log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _say_what_does_not_count(peers: homes.Peers) -> None:
    """An earlier release asked for fewer signatures: the models of that set wait for the rest."""
    for signed in successions.carried(peers.nodes):
        if more := successions.lacking(signed):
            said = signed["statement"]
            facts = {"old": said["old"], "new": said["new"], "signatures_missing": more}
            log.error("a succession does not count: the old set's models are refused", extra=facts)


def _purge(store: Any, stopping: threading.Event) -> None:
    while not stopping.wait(PURGE_EVERY_S):
        try:
            store.purge(now=int(time.time()))
        except Exception as error:
            log.error("purge failed", extra={"kind": type(error).__name__})
