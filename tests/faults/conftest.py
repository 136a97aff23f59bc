"""Durable databases and nodes to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flai_site.stack.embedded import Postgres, embedded
from flai_site.stack.layout import ROOT, Home, site_environment
from flai_site.stack.services import _running, remove
from tests.support.nodes import NodeSet

Place = tuple[Postgres, dict[str, str]]


def _place(root: Path) -> Place:
    """A durable server's settings and a site's environment on it."""
    home = Home(root)
    home.prepare()
    postgres, _ = embedded(home.root, durable=True)
    environment = site_environment(
        home, database_url=postgres.url, valkey_url="unix:///nowhere", url="http://x", faucet=True
    )
    drop = ("FLAI_TEST_HOME", "DJANGO_SETTINGS_MODULE", "FLAI_DB_POOL")
    kept = {k: v for k, v in os.environ.items() if k not in drop}
    return postgres, kept | environment | {"DJANGO_SETTINGS_MODULE": "flai_site.settings"}


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stopped cluster with all tables, made once: `place` copies it."""
    root = tmp_path_factory.mktemp("migrated")
    postgres, environment = _place(root)
    try:
        with _running(postgres, root / "postgres.log"):
            command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
            subprocess.run(command, check=True, cwd=ROOT, env=environment)
        yield postgres.cluster
    finally:
        remove(root)


@pytest.fixture
def place(migrated: Path, tmp_path: Path) -> Iterator[Place]:
    """A durable server with empty tables, and a site's environment; the test starts the server."""
    root = tmp_path / "home"
    postgres, environment = _place(root)
    try:
        postgres.prepare_directories()
        subprocess.run(["cp", "-a", str(migrated), str(postgres.cluster)], check=True)
        yield postgres, environment
    finally:
        remove(root)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], NodeSet]]:
    """A set of so many nodes, started once for a module; all are alive when it is asked for. pytest
    would start one for each list of parameters."""
    started: dict[int, NodeSet] = {}

    def of(n: int) -> NodeSet:
        if n not in started:
            directory = tmp_path_factory.mktemp(f"of-{n}")
            started[n] = NodeSet(directory, {"rows_per_epoch": 10**6}, n=n)
        started[n].revive()
        return started[n]

    yield of
    for nodes in started.values():
        nodes.revive()
        nodes.stop()
