"""The system's own parties exist wherever the tables do."""

from __future__ import annotations

from typing import Any

from django.apps import apps as live_apps
from django.apps.registry import Apps

SYSTEM_PARTIES = {
    "protocol": ("system", "FLAI protocol"),
    "faucet": ("system", "Faucet"),
    "superdao": ("dao", "SuperDAO"),
}


def make_system_parties(*, using: str, apps: Apps = live_apps, **kwargs: Any) -> None:
    """Receiver of post_migrate: make those that are missing."""
    try:
        Party = apps.get_model("accounts", "Party")
    except LookupError:  # migrated back to before the table
        return
    from apps.accounts.models import new_pid

    for slug, (kind, name) in SYSTEM_PARTIES.items():
        Party.objects.using(using).get_or_create(
            slug=slug, defaults={"kind": kind, "name": name, "pid": new_pid()}
        )
