"""pytest plugin (`-p tests.plugin.services`): embedded PostgreSQL and Valkey for a whole run.

pytest-django reads the settings before any conftest, so the services are up before that. Under
pytest-xdist the controller starts them once; its workers inherit the addresses by environment.
A DATABASE_URL or VALKEY_URL that is given is used instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

PREFIX = "flai-test-"
_stack = ExitStack()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    wants = early_config.known_args_namespace
    if "FLAI_TEST_HOME" not in os.environ and not (wants.help or wants.version):
        _start()
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    _stack.close()


def _start() -> None:
    from flai_site.stack.layout import site_environment
    from flai_site.stack.services import throwaway

    _sweep()
    home, database_url, valkey_url = _stack.enter_context(throwaway(f"{PREFIX}{os.getpid()}-"))
    os.environ |= site_environment(
        home,
        database_url=os.environ.get("DATABASE_URL") or database_url,
        valkey_url=os.environ.get("VALKEY_URL") or valkey_url,
        url="http://127.0.0.1:8000",
        faucet=True,
    )
    os.environ |= {
        "FLAI_TEST_HOME": str(home.root),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    # A fifth of what each process of the site costs to start would be compiling its modules.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _sweep() -> None:
    """Remove what a killed run left behind."""
    from flai_site.stack.services import remove

    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = left.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            remove(left)
