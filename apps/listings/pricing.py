"""What an inference costs."""

from __future__ import annotations

from apps.listings.models import Listing

CURRENCY = "USDC"


def price_micro(listing: Listing) -> int:
    """Price of one row, set by the SubDAO."""
    return int(listing.dao.params["price_micro"])


def price_of(listing: Listing, *, rows: int) -> int:
    """Price of so many rows in one inference."""
    return rows * price_micro(listing)
