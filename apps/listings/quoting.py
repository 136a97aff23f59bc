"""Quotes: a price that holds for a while, as a token that only this site can have made.

Nothing is stored: the token names buyer, listing, version, rows, price and end.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core import signing

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.errors import Conflict, Unprocessable
from apps.listings.models import Listing
from apps.listings.pricing import CURRENCY, price_of, volume
from apps.wallets.selectors import available_micro
from apps.wallets.services import account

QUOTE_LIFE = timedelta(minutes=10)
SALT = "flai.quote.v1"


def quote_json(*, listing: Listing, buyer: Party, rows: int, now: datetime) -> dict[str, Any]:
    """A quote as the API gives it. Raises Conflict for a listing that is closed."""
    if listing.status != Listing.Status.OPEN:
        raise Conflict("listing_closed", "This listing is closed.")
    before = volume(buyer, listing, now=now)
    price_micro = price_of(listing, rows=rows, before=before)
    available = available_micro(account(buyer, CURRENCY), now=now)
    ends_at = now + QUOTE_LIFE
    facts = [str(buyer.id), str(listing.id), listing.version.number, rows, price_micro]
    return {
        "listing": listing.slug,
        "version": listing.version.number,
        "rows": rows,
        "volume_rows": before,
        "price_micro": str(price_micro),
        "row_price_micro": str(price_micro // rows),
        "currency": CURRENCY,
        "available_micro": str(available),
        "short_micro": str(max(price_micro - available, 0)),
        "quote": signing.dumps([*facts, unix_ms(ends_at)], salt=SALT, compress=True),
        "expires_at": ends_at.isoformat(),
    }


def quoted_micro(token: str, *, buyer: Party, listing: Listing, rows: int, now: datetime) -> int:
    """The price that a quote promised for exactly this. Raises Unprocessable, Conflict."""
    try:
        *facts, price_micro, ends_at = signing.loads(token, salt=SALT)
    except (signing.BadSignature, ValueError):
        raise Unprocessable("bad_quote", "This quote is not one of ours.", field="quote") from None
    if ends_at <= unix_ms(now):
        raise Conflict("quote_expired", "The quote has expired; ask for another.")
    if facts != [str(buyer.id), str(listing.id), listing.version.number, rows]:
        raise Unprocessable(
            "bad_quote", "The quote is for another buyer, version or number of rows.", field="quote"
        )
    return int(price_micro)
