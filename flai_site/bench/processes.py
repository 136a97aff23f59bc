"""Processor time of a stack's services, which hardly changes with what else the machine does."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

TICKS_S = os.sysconf("SC_CLK_TCK")
# What a service's command line holds, and what it is called here; the three nodes are one.
KINDS = {
    "uvicorn": "web",
    "worker": "worker",
    "beat": "beat",
    "workers.node": "nodes",
    "postgres": "postgres",
    "valkey-server": "valkey",
}


def spent_s(supervisor: int) -> dict[str, float]:
    """Processor time of each kind of service under this supervisor, in user and kernel, with that
    of the processes that they have made."""
    total: dict[str, float] = dict.fromkeys(KINDS.values(), 0.0)
    children = _children()
    for service in children[supervisor]:
        kind = _kind(service)
        if kind is not None:
            total[kind] += sum(_ticks(pid) for pid in _tree(service, children)) / TICKS_S
    return total


def processor_s(pids: Iterable[int]) -> float:
    """What these processes have spent in user and kernel, with their children that have ended."""
    return sum(map(_ticks, pids)) / TICKS_S


def nodes(supervisor: int) -> list[int]:
    """The processes of the nodes that run, in the order of their homes."""
    found = [pid for pid in _children()[supervisor] if _kind(pid) == "nodes"]
    return sorted(found, key=_arguments)


def _children() -> dict[int, list[int]]:
    children = defaultdict(list)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            facts = _facts(int(process.name))
        except OSError:  # it has ended since
            continue
        children[int(facts[1])].append(int(process.name))
    return children


def _tree(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children[pid]:
        yield from _tree(child, children)


def _kind(pid: int) -> str | None:
    arguments = _arguments(pid)
    names = {*arguments, arguments[0].rpartition("/")[2]}
    return next((kind for word, kind in KINDS.items() if word in names), None)


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return [""]


def _ticks(pid: int) -> int:
    """Its own, and of those of its children that have ended."""
    try:
        return sum(map(int, _facts(pid)[11:15]))
    except OSError:
        return 0


def _facts(pid: int) -> list[str]:
    """/proc/…/stat after the name."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
