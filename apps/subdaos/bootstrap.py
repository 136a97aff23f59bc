"""The SuperDAO exists wherever the tables do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.apps import apps as live_apps
from django.apps.registry import Apps
from django.conf import settings

from apps.protocol.tally import SUPERDAO_RULES
from apps.protocol.unlocks import Sponsoring

# An RFM's approval takes the times of its own spec, but never less than the minimums here; the
# quorum and threshold of that vote are the SuperDAO's, not the RFM's. voting_period_min_s is the
# site's setting at the time of the first migrate.
SUPERDAO_PARAMS = {
    **SUPERDAO_RULES,
    "voting_delay_min_s": 0,
    "proposal_threshold_bps": 100,
    "sponsoring": asdict(Sponsoring()),
}


def make_superdao(*, using: str, apps: Apps = live_apps, **kwargs: Any) -> None:
    """Receiver of post_migrate: make it if it is missing."""
    try:
        Dao = apps.get_model("subdaos", "Dao")
        Party = apps.get_model("accounts", "Party")
    except LookupError:  # migrated back to before the tables
        return
    party = Party.objects.using(using).get(slug="superdao")
    Dao.objects.using(using).get_or_create(
        kind="super",
        defaults={
            "party": party,
            "slug": "superdao",
            "name": "SuperDAO",
            "params": SUPERDAO_PARAMS | {"voting_period_min_s": settings.VOTING_PERIOD_MIN_S},
            "founded_at": party.created_at,
        },
    )
