"""Fixtures of every test; the services themselves come from tests/plugin/services.py."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

import flai_site.celery  # noqa: F401 - the default application for wake-ups, as in the site
import tests.support.flush  # noqa: F401 - append-only tables can be emptied between tests

# Imported here alone: each conftest that imports a fixture makes another one, with its own nodes.
from tests.support.nodes import model, mortal, three_nodes  # noqa: F401

# How long an example takes says something of the machine only.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

HERE = Path(__file__).parent
# Begun first, so that nobody waits for one at the end: what comes last is short.
LONG = ("scenarios", "faults", "explorer", "listings", "client", "mpc", "node", "wallets")
LONG += ("exchange", "training", "privacy", "core", "compute", "stack")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        directory = item.path.relative_to(HERE).parts[0]
        return LONG.index(directory) if directory in LONG else len(LONG)

    items.sort(key=place)


# All files of these share what is slow to begin: a running stack, and a round that was played.
SHARING = ("tests/scenarios", "tests/client/agents")


class _Scheduling(LoadFileScheduling):
    """A file goes to one process; so do all that share something slow."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return next((name for name in SHARING if file.startswith(name + "/")), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None
