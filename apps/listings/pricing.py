"""What an inference costs."""

from __future__ import annotations

from django.conf import settings

from apps.core.errors import Unprocessable
from apps.listings.models import Listing

CURRENCY = "USDC"


def price_micro(listing: Listing) -> int:
    """Price of one row, set by the SubDAO."""
    return int(listing.dao.params["price_micro"])


def price_of(listing: Listing, *, rows: int) -> int:
    """Price of so many rows in one inference.

    Raises Unprocessable("too_many_rows") for more than nodes answer (their `policy.json` decides,
    settings.ROWS_PER_QUERY says it here): nobody shall be quoted what is then refused.
    """
    most = settings.ROWS_PER_QUERY
    if rows > most:
        raise Unprocessable(
            "too_many_rows", f"The nodes answer {most} rows a query at most.", field="rows"
        )
    return rows * price_micro(listing)
