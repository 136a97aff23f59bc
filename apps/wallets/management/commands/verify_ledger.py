"""`manage.py verify_ledger [--json]`: recompute ledger and log from their rows."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.wallets.invariants import violations
from apps.wallets.models import LogLeaf, Transfer


class Command(BaseCommand):
    help = "Check every invariant of ledger and log; exit 1 if one is broken."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        found = violations()
        counts = {"transfers": Transfer.objects.count(), "leaves": LogLeaf.objects.count()}
        good = not any(found.values())
        if options["json"]:
            result = counts | {"ok": good, "invariants": found}
            self.stdout.write(json.dumps(result, indent=1, ensure_ascii=False))
        else:
            for name, breaches in found.items():
                self.stdout.write(f"{'✗' if breaches else '✓'} {name}")
                for breach in breaches:
                    self.stdout.write(f"    {breach}")
            self.stdout.write(f"{counts['transfers']} transfers, {counts['leaves']} log entries")
        if not good:
            sys.exit(1)
