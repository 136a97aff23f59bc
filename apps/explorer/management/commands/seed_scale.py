"""manage.py seed_scale --objects 10000 --seed 1: a data set to measure pages on."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.core import clock
from apps.core.errors import DomainError
from apps.explorer.scale import Plan, seed


class Command(BaseCommand):
    help = "Fill an empty database with many objects of each kind, ledger and log included."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--objects", type=int, default=10_000, help="of each kind")
        parser.add_argument("--seed", type=int, default=1, help="the same one: the same rows")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            plan = Plan(options["objects"], options["seed"], clock.now())
            seed(
                plan,
                say=lambda text: self.stdout.write(f"{time.monotonic() - began:5.1f} s  {text}"),
            )
        except (DomainError, ValueError) as error:
            raise CommandError(getattr(error, "text", str(error))) from None
        self.stdout.write(f"{time.monotonic() - began:5.1f} s  done")
