"""Who may ask a model that has just gone on sale: the rule is `apps.protocol.unlocks`."""

from __future__ import annotations

from datetime import datetime, timedelta

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.permissions import Denied
from apps.exchange.selectors import lacks_micro
from apps.listings.models import Listing
from apps.protocol import unlocks as rules
from apps.rfms.models import Rfm


def early_until(listing: Listing, now: datetime) -> datetime | None:
    """When everybody may ask; None once they may."""
    unlocks = rules.unlocks_of(listing.dao.params["unlocks"])
    if not rules.early(unlocks, opened_ms=unix_ms(listing.opened_at), at_ms=unix_ms(now)):
        return None
    return listing.opened_at + timedelta(seconds=unlocks.early_access_s)


def can_ask(buyer: Party, listing: Listing, now: datetime) -> Denied | None:
    """Everybody, once early access is over; before, who staked enough or submitted the request."""
    until, dao = early_until(listing, now), listing.dao
    if until is None or dao.asset is None:
        return None
    unlocks = rules.unlocks_of(dao.params["unlocks"])
    if not lacks_micro(buyer, dao.asset, unlocks):
        return None
    if Rfm.objects.filter(subdao=dao, submitter=buyer).exists():
        return None
    return Denied(
        "early_access",
        f"Until {until:%Y-%m-%d %H:%M} UTC only those may ask this model who have staked "
        f"{unlocks.stake_bps / 100:g} % of {dao.asset.code}. Nothing was charged.",
    )
