"""Embedded services for the length of a `with` block, without a supervisor."""

from __future__ import annotations

import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flai_site.stack.embedded import Postgres, Valkey, embedded, end_process, last_line, places
from flai_site.stack.layout import Home, StackError

READY_WITHIN_S = 30.0


@contextmanager
def embedded_services(home: Path, *, durable: bool = True) -> Iterator[tuple[str, str]]:
    """Run PostgreSQL and Valkey for `home`; yields (DATABASE_URL, VALKEY_URL).

    Raises StackError with the service's last line when one does not come up.
    """
    postgres, valkey = embedded(home, durable=durable)
    with ExitStack() as stack:
        for service in (postgres, valkey):
            stack.enter_context(_running(service, home / f"{type(service).__name__.lower()}.log"))
        yield postgres.url, valkey.url


@contextmanager
def throwaway(prefix: str, *, durable: bool = False) -> Iterator[tuple[Home, str, str]]:
    """(home, DATABASE_URL, VALKEY_URL) of a new, empty home that is gone afterwards."""
    home = Home(Path(tempfile.mkdtemp(prefix=prefix)))
    try:
        home.prepare()
        with embedded_services(home.root, durable=durable) as (database_url, valkey_url):
            yield home, database_url, valkey_url
    finally:
        remove(home.root)


def remove(root: Path) -> None:
    """Delete a home and what its services keep elsewhere."""
    _, data, sockets = places(root)
    for directory in {root, data, sockets}:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _running(service: Postgres | Valkey, log: Path) -> Iterator[None]:
    service.prepare()
    with open(log, "ab") as output:
        child = subprocess.Popen(
            service.command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=service.environment(),
            start_new_session=True,
        )
    try:
        _await_ready(service, child, log)
        yield
    finally:
        end_process(child.pid, service.stop_signal)
        child.wait()


def _await_ready(service: Postgres | Valkey, child: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with selectors.DefaultSelector() as pause:
        while not service.is_ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise StackError(
                    f"{type(service).__name__} did not start: {last_line(log.read_text())}"
                )
            pause.select(0.02)
