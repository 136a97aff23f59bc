"""The stack of `manage.py up`: what runs, in which order, with which environment."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flai_site.stack.embedded import Postgres, Valkey, child_command, embedded, last_line
from flai_site.stack.layout import (
    ROOT,
    Home,
    Ports,
    StackError,
    node_limits,
    site_environment,
    write_json,
)
from flai_site.stack.supervisor import Service, Supervisor

HOST = "127.0.0.1"
EXIT_PORT_TAKEN = 2
DEMO_ROWS_PER_EPOCH = "20000"


class Stack:
    """One home, its ports and its services."""

    def __init__(self, home: Home, ports: Ports, *, faucet: bool = True) -> None:
        self.home, self.ports = home, ports
        self.url = os.environ.get("FLAI_URL") or f"http://{HOST}:{ports.web}"
        self.postgres, self.valkey = embedded(home.root)
        self.database_url = os.environ.get("DATABASE_URL") or self.postgres.url
        self.valkey_url = os.environ.get("VALKEY_URL") or self.valkey.url
        self.site = site_environment(
            home,
            database_url=self.database_url,
            valkey_url=self.valkey_url,
            url=self.url,
            faucet=faucet,
        )
        if faucet:  # a demonstration answers requests of 10 000 rows, more than one a day
            rows = os.environ.get("FLAI_ROWS_PER_EPOCH") or DEMO_ROWS_PER_EPOCH
            self.site["FLAI_ROWS_PER_EPOCH"] = rows

    def services(self) -> list[Service]:
        """All of them; a database or broker named by the environment is not started here."""
        own = [service for service in self._stores() if service is not None]
        stores = tuple(service.name for service in own)
        nodes = tuple(f"node-{i}" for i in range(len(self.ports.control)))
        return [
            *own,
            Service("node keys", prepare=self.introduce_nodes),
            self._migrate(stores),
            *[self._node(i) for i in range(len(nodes))],
            self._web((*stores, "migrate", "node keys")),
            self._site("worker", self._celery_worker, (*stores, "migrate", *nodes), r"\bready\.$"),
            self._site(
                "beat", self._celery_beat, (*stores, "migrate"), r"beat: Starting|maxinterval"
            ),
        ]

    def web_only(self) -> list[Service]:
        """Enough to read the site: what an audit needs."""
        own = [service for service in self._stores() if service is not None]
        stores = tuple(service.name for service in own)
        return [*own, self._migrate(stores), self._web((*stores, "migrate"))]

    def _stores(self) -> tuple[Service | None, Service | None]:
        return (
            None if os.environ.get("DATABASE_URL") else _embedded("postgres", self.postgres),
            None if os.environ.get("VALKEY_URL") else _embedded("valkey", self.valkey),
        )

    def _migrate(self, needs: tuple[str, ...]) -> Service:
        command = python("-m", "django", "migrate", "--noinput", "-v", "1")
        return Service(
            "migrate", lambda: command, needs, None, environment=self.environment(pool_max=0)
        )

    def _web(self, needs: tuple[str, ...]) -> Service:
        command = python(
            *("-m", "uvicorn", "flai_site.asgi:application", "--ws", "websockets-sansio"),
            *("--lifespan", "off", "--host", HOST, "--port", str(self.ports.web)),
            *("--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "2"),
        )
        # Long polls hold a connection each while they wait.
        return Service(
            *("web", lambda: command, needs, r"Uvicorn running on"),
            environment=self.environment(pool_max=24),
        )

    def _site(
        self, name: str, command: Callable[[], Sequence[str]], needs: tuple[str, ...], ready: str
    ) -> Service:
        return Service(name, command, needs, ready, environment=self.environment(pool_max=16))

    def _celery_worker(self) -> list[str]:
        return python(
            *("-m", "celery", "-A", "flai_site", "worker", "-P", "threads", "-c", "4"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"),
        )

    def _celery_beat(self) -> list[str]:
        return python(
            *("-m", "celery", "-A", "flai_site", "beat", "-l", "INFO", "--pidfile="),
            *("-s", str(self.home.root / "beat.db")),
        )

    def _node(self, index: int) -> Service:
        command = python("-m", "workers.node", "--home", str(self.home.node(index)))
        return Service(
            *(f"node-{index}", lambda: command, ("node keys",), r'"ready": ?true'),
            environment=_plain_environment(),
        )

    def introduce_nodes(self) -> None:
        """Let each node make its keys, then tell each who the others and the coordinator are.

        On machines of different owners this is what their operators do for one another by hand.
        Raises StackError with the node's own last line.
        """
        starting = []
        for index, (control, mesh) in enumerate(zip(self.ports.control, self.ports.mesh)):
            command = python(
                *("-m", "workers.node", "--home", str(self.home.node(index)), "init"),
                *("--index", str(index), "--name", f"node-{index}"),
                *("--control", f"{HOST}:{control}", "--mesh", f"{HOST}:{mesh}"),
            )
            starting.append(
                subprocess.Popen(
                    child_command(command, die_with=signal.SIGKILL),
                    cwd=ROOT,
                    env=_plain_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        for index, child in enumerate(starting):
            _, errors = child.communicate()
            if child.returncode:
                raise StackError(f"node-{index}: {last_line(errors)}")
        descriptors = [
            _read_json(self.home.node(i) / "descriptor.json") for i in range(len(starting))
        ]
        coordinator = self.home.public("coordinator").read_text().strip()
        limits = node_limits(self.site)
        for index in range(len(starting)):
            policy = self.home.node(index) / "policy.json"
            if limits and not policy.exists():  # its operator's, once it is there
                write_json(policy, limits)
            write_json(
                self.home.node(index) / "peers.json",
                {
                    "coordinator": coordinator,
                    "coordinator_cert": self.home.coordinator_certificate.read_text(),
                    "nodes": descriptors,
                    "mesh": [f"{HOST}:{port}" for port in self.ports.mesh],
                },
            )
        write_json(
            self.home.nodes_file,
            {
                "nodes": descriptors,
                "control_urls": [f"https://{HOST}:{port}" for port in self.ports.control],
            },
        )

    def environment(self, *, pool_max: int) -> dict[str, str]:
        """What a process of the site gets: ours, and nothing that would change its libraries."""
        return _plain_environment() | self.site | {"FLAI_DB_POOL": str(pool_max)}

    def wipe(self) -> None:
        """Back to an empty home; the caller holds its lock."""
        also = None if self.postgres.data == self.home.root else self.postgres.data
        self.home.wipe(also)

    def record(self) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "url": self.url,
            "ports": {
                "web": self.ports.web,
                "control": list(self.ports.control),
                "mesh": list(self.ports.mesh),
            },
            "environment": self.site,
        }


def run_stack(
    stack: Stack,
    *,
    services: list[Service] | None = None,
    story: Service | None = None,
    stay: bool = True,
    fresh: bool = False,
    verbose: bool = False,
    say: Callable[[str], None] = print,
    banner: Callable[[], None] | None = None,
) -> int:
    """Run a stack in this process until its story ends or it is asked to stop.

    Raises StackError when it runs already, a port is taken or a service does not start.
    """
    home = stack.home
    home.root.mkdir(parents=True, exist_ok=True) if fresh else None
    home.prepare()
    with home.lock():
        check_ports_free(stack.ports)
        if fresh:
            stack.wipe()
            home.prepare()
        home.write_stack(stack.record())
        began = time.monotonic()

        def ready() -> None:
            say(f"running at {stack.url} after {time.monotonic() - began:.1f} s")
            if banner:
                banner()

        supervisor = Supervisor(
            stack.services() if services is None else services,
            logs=home.logs,
            say=say,
            verbose=verbose,
        )
        try:
            return asyncio.run(supervisor.run(on_ready=ready, story=story, stay=stay))
        finally:
            home.stack_file.unlink(missing_ok=True)


def check_ports_free(ports: Ports) -> None:
    """Raises StackError (exit code 2) naming the first taken port and the variable to move it."""
    for port, purpose, variable in ports.named():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise StackError(
                    f"Port {port}, meant for {purpose}, is in use by another program.\n"
                    f"Stop that program, or choose another: {variable}={port + 1000} "
                    f"python3 manage.py {' '.join(sys.argv[1:]) or 'up'}",
                    EXIT_PORT_TAKEN,
                ) from None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses at this moment, for a program that binds them later.

    They lie below the range from which the kernel serves outgoing connections: a port of that
    range may be somebody's the next moment, and again while its program is down.
    """
    found: dict[int, socket.socket] = {}
    with ExitStack() as held:
        while len(found) < count:
            port = 10_000 + secrets.randbelow(_first_outgoing_port() - 10_000)
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((HOST, port))
                found[port] = probe
    return list(found)


def _first_outgoing_port() -> int:
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32_768  # Linux's default
    return low if low > 12_000 else 65_536  # no room below: nothing better than any port


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _embedded(name: str, service: Postgres | Valkey) -> Service:
    base = Service(name, service.command, (), service.is_ready, service.prepare, wrapped=True)
    return replace(base, environment=service.environment(), stop_signal=service.stop_signal)


def _plain_environment() -> dict[str, str]:
    """Unbuffered output; one BLAS thread each, because a dozen processes share the cores."""
    ours = {"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    drop = ("PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS")
    return {k: v for k, v in os.environ.items() if k not in drop} | ours


def _read_json(path):
    import json

    return json.loads(path.read_text())
