"""`manage.py reshare_model MODEL CONSENT…`: a model goes over to the node set of now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.compute import refreshing
from apps.compute.control import ControlError
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.protocol.jobs import JobError
from apps.protocol.tickets import SHAMIR


class Command(BaseCommand):
    help = "Have the nodes of now take a model over, as all who made it have signed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="its id, 64 hex digits")
        parser.add_argument("consents", nargs="+", type=Path, help="files of `flai resharing`")
        parser.add_argument(
            "--engine", choices=sorted(SHAMIR), help="the one they signed for, if any"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            consents = [json.loads(path.read_text()) for path in options["consents"]]
            refreshing.reshare(
                model=options["model"], consents=consents, engine=options["engine"], now=now()
            )
        except (OSError, ValueError) as error:
            raise CommandError(f"a consent cannot be read: {error}") from None
        except (ControlError, DomainError, JobError) as error:
            raise CommandError(f"{error.code}: {error.text}") from None
        self.stdout.write("The model is kept by the nodes of now, in new shares.")
