"""Django's own commands, run against whatever stack this home has."""

from __future__ import annotations

import os
import sys

from flai_site.stack.layout import Home, StackError


def run_django(argv: list[str]) -> int:
    """Django's command line; a running stack's database and broker are used as they stand."""
    home = Home.from_environment()
    try:
        home.prepare()
    except StackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    running = home.running() or {}
    for name, value in running.get("environment", {}).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("FLAI_HOME", str(home.root))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "flai_site.settings")
    from django.core.management import execute_from_command_line

    import flai_site.celery  # noqa: F401 - the default application for wake-ups

    execute_from_command_line(["manage.py", *argv])
    return 0
