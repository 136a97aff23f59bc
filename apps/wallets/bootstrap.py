"""FLAI and USDC exist wherever the tables do."""

from __future__ import annotations

from typing import Any

from django.apps import apps as live_apps
from django.apps.registry import Apps

from apps.protocol.ledger import BASE_CAPS

NAMES = {"FLAI": "FLAI", "USDC": "USD Coin (test)"}


def make_base_assets(*, using: str, apps: Apps = live_apps, **kwargs: Any) -> None:
    """Receiver of post_migrate: make those that are missing, with their issuance accounts."""
    try:
        Asset = apps.get_model("wallets", "Asset")
        Account = apps.get_model("wallets", "Account")
        Party = apps.get_model("accounts", "Party")
    except LookupError:  # migrated back to before the tables
        return
    protocol = Party.objects.using(using).get(slug="protocol")
    for code, cap_micro in BASE_CAPS.items():
        asset, _ = Asset.objects.using(using).get_or_create(
            code=code, defaults={"name": NAMES[code], "cap_micro": cap_micro}
        )
        Account.objects.using(using).get_or_create(
            owner=protocol,
            asset=asset,
            purpose="issuance",
            defaults={"floor_micro": -asset.cap_micro},
        )
