"""FLAI and USDC exist wherever the tables do."""

from __future__ import annotations

from typing import Any

from django.apps import apps as live_apps
from django.apps.registry import Apps

# 10^9 FLAI; test USDC up to 10^12. In micro-units, well inside 2^63.
BASE_ASSETS = {
    "FLAI": ("FLAI", 1_000_000_000 * 1_000_000),
    "USDC": ("USD Coin (test)", 1_000_000_000_000 * 1_000_000),
}


def make_base_assets(*, using: str, apps: Apps = live_apps, **kwargs: Any) -> None:
    """Receiver of post_migrate: make those that are missing, with their issuance accounts."""
    try:
        Asset = apps.get_model("wallets", "Asset")
        Account = apps.get_model("wallets", "Account")
        Party = apps.get_model("accounts", "Party")
    except LookupError:  # migrated back to before the tables
        return
    protocol = Party.objects.using(using).get(slug="protocol")
    for code, (name, cap_micro) in BASE_ASSETS.items():
        asset, _ = Asset.objects.using(using).get_or_create(
            code=code, defaults={"name": name, "cap_micro": cap_micro}
        )
        Account.objects.using(using).get_or_create(
            owner=protocol,
            asset=asset,
            purpose="issuance",
            defaults={"floor_micro": -asset.cap_micro},
        )
