"""`manage.py refresh_shares`: the nodes put all they keep into new shares now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.compute import refreshing
from apps.compute.control import ControlError
from apps.core.clock import now
from apps.core.errors import DomainError


class Command(BaseCommand):
    help = "Have the nodes refresh their shares and destroy the keys of the old ones."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            row = refreshing.refresh(now=now())
        except (ControlError, DomainError) as error:
            raise CommandError(f"{error.code}: {error.text}") from None
        members = len(row.proof["receipts"])
        self.stdout.write(
            f"refresh {row.number}: {row.count} models in new shares at {members} nodes, "
            f"{row.left} as before"
        )
