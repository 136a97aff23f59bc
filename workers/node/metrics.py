"""What a node counts of itself, as Prometheus text on a port of this machine alone.

Labels are circuits of this release, phases, and codes out of the node's own source: never an id, a
name, a key or anything else that came in. Counts and times of whole jobs say nothing of a value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from apps.protocol.circuits import CIRCUITS
from workers.node.errors import StartError

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)

JOBS = Counter(
    "flai_node_jobs", "Jobs and queries that ended here", ["circuit", "end"], registry=REGISTRY
)
PHASE_S = Histogram(
    "flai_node_phase_seconds",
    "How long jobs took to be admitted, computed and kept",
    ["circuit", "phase"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
ROUNDS = Counter(
    "flai_node_rounds", "Rounds of messages with the other nodes", ["circuit"], registry=REGISTRY
)
SENT_BYTES = Counter(
    "flai_node_sent_bytes", "Sent to the other nodes in jobs", ["circuit"], registry=REGISTRY
)
BITS_USED = Counter(
    "flai_node_bits_used",
    "Random bits that jobs had, made before they came or on the way",
    ["made"],
    registry=REGISTRY,
)
SHARES = Counter("flai_node_shares", "Shares stored", registry=REGISTRY)
REFUSED = Counter("flai_node_refused", "What this node said no to", ["code"], registry=REGISTRY)


def ended(circuit: str, end: str, jobs: int = 1) -> None:
    """So many jobs came to their end: computed, refused or failed."""
    JOBS.labels(_known(circuit), end).inc(jobs)


@contextmanager
def phase(circuit: str, name: str) -> Iterator[None]:
    """Measures what is done inside, also when it fails."""
    with PHASE_S.labels(_known(circuit), name).time():
        yield


def _known(circuit: str) -> str:
    """A job may name anything until it is admitted; a label never comes from outside."""
    return circuit if circuit in CIRCUITS else "unknown"


def watch(name: str, text: str, value: Callable[[], float]) -> None:
    """A gauge that is read when it is asked for."""
    Gauge(name, text, registry=REGISTRY).set_function(value)


def serve(port: int) -> None:
    """Answer GET on 127.0.0.1 for as long as the process lives. Raises: StartError."""
    try:
        start_http_server(port, addr="127.0.0.1", registry=REGISTRY)
    except OSError as error:
        raise StartError(f"metrics port {port} cannot be bound: {error.strerror}") from None
