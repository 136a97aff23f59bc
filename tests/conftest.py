"""Fixtures of every test; the services themselves come from tests/plugin/services.py."""

from pathlib import Path

import pytest

import flai_site.celery  # noqa: F401 - the default application for wake-ups, as in the site
import tests.support.flush  # noqa: F401 - append-only tables can be emptied between tests

# Imported here alone: each conftest that imports a fixture makes another one, with its own nodes.
from tests.support.nodes import model, mortal, three_nodes  # noqa: F401

HERE = Path(__file__).parent
LONG = (
    "scenarios",
    "faults",
    "explorer",
    "listings",
)  # begun first: nobody waits for one at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        directory = item.path.relative_to(HERE).parts[0]
        return LONG.index(directory) if directory in LONG else len(LONG)

    items.sort(key=place)
