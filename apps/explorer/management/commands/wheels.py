"""manage.py wheels --out DIR: the wheels of node and client and the JavaScript client's package,
the same that the site serves."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from apps.explorer.package import package
from apps.explorer.wheels import wheels


class Command(BaseCommand):
    help = "Build the wheels of node and client, without Django; prints their SHA-256."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--out", required=True, type=Path, help="directory for them")

    def handle(self, *args: Any, **options: Any) -> None:
        options["out"].mkdir(parents=True, exist_ok=True)
        for made in (*wheels(), package()):
            (options["out"] / made.filename).write_bytes(made.content)
            self.stdout.write(f"{made.sha256}  {made.filename}")
