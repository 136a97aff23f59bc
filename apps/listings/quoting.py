"""Quotes: a price that holds for a while, as a token that only this site can have made.

Nothing is stored: the token names buyer, listing, version, rows, price and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core import signing

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.core.errors import Conflict, Unprocessable
from apps.listings.access import admitted
from apps.listings.asking import ensure_on_sale
from apps.listings.models import Listing, Subscription
from apps.listings.plans import PURPOSE, left_rows, running
from apps.listings.portions import portion_of
from apps.listings.pricing import CURRENCY, price_of, volume
from apps.protocol.tariff import QUOTE_MS
from apps.wallets.selectors import available_micro
from apps.wallets.services import account

QUOTE_LIFE = timedelta(milliseconds=QUOTE_MS)
SALT = "flai.quote.v2"


@dataclass(frozen=True)
class Terms:
    """What rows cost, and what pays for them: the balance, or a plan's account, "pid/purpose"."""

    price_micro: int
    subscription_id: UUID | None = None
    payer: str = ""
    credential: str = ""  # by which the buyer may ask, where the listing asks for one


def of_plan(plan: Subscription, rows: int) -> Terms:
    return Terms(rows * plan.row_micro, plan.id, f"{plan.account.owner.pid}/{PURPOSE}")


def quote_json(*, listing: Listing, buyer: Party, rows: int, now: datetime) -> dict[str, Any]:
    """A quote as the API gives it. Raises Conflict for a listing that nobody can ask now,
    CredentialNeeded with the way to one, PortionUsedUp for more rows than are left of the buyer's
    part."""
    ensure_on_sale(listing)
    before = volume(buyer, listing, now=now)
    terms = Terms(price_of(listing, rows=rows, before=before, buyer=buyer))
    plan = running(buyer, listing, now=now)
    left = left_rows(plan, now=now) if plan else 0
    paying = plan if plan and left >= rows else None
    if paying:
        terms = of_plan(paying, rows)
    admitted(buyer, listing, plan=paying, now=now)
    portion = portion_of(buyer, listing, plan=paying, now=now)
    if rows > portion.left:
        raise portion.refusal(rows, now=now)
    price_micro, planned = terms.price_micro, terms.subscription_id is not None
    available = available_micro(account(buyer, CURRENCY), now=now)
    ends_at = now + QUOTE_LIFE
    facts = [str(buyer.id), str(listing.id), listing.version.number, rows]
    said = [str(terms.subscription_id or ""), terms.payer, price_micro, unix_ms(ends_at)]
    return {
        "listing": listing.slug,
        "version": listing.version.number,
        "rows": rows,
        "volume_rows": before,
        "price_micro": str(price_micro),
        "row_price_micro": str(price_micro // rows),
        "paid_from": "plan" if planned else "balance",
        "plan_left_rows": left if plan else None,
        "buyer_rows_left": portion.left,
        "buyer_rows_reset_at": portion.ends_at.isoformat(),
        "currency": CURRENCY,
        "available_micro": str(available),
        "short_micro": "0" if planned else str(max(price_micro - available, 0)),
        "quote": signing.dumps([*facts, *said], salt=SALT, compress=True),
        "expires_at": ends_at.isoformat(),
    }


def quoted(token: str, *, buyer: Party, listing: Listing, rows: int, now: datetime) -> Terms:
    """The terms that a quote promised for exactly this. Raises Unprocessable, Conflict."""
    try:
        *facts, plan, payer, price_micro, ends_at = signing.loads(token, salt=SALT)
    except (signing.BadSignature, ValueError):
        raise Unprocessable("bad_quote", "This quote is not one of ours.", field="quote") from None
    if ends_at <= unix_ms(now):
        raise Conflict("quote_expired", "The quote has expired; ask for another.")
    if facts != [str(buyer.id), str(listing.id), listing.version.number, rows]:
        raise Unprocessable(
            "bad_quote", "The quote is for another buyer, version or number of rows.", field="quote"
        )
    return Terms(int(price_micro), UUID(plan) if plan else None, payer)


def offered(price_micro: int, *, buyer: Party, listing: Listing, rows: int, now: datetime) -> Terms:
    """The terms of now for a ticket of this price: the list price from the balance or, where the
    ticket says that of the buyer's plan, its quota."""
    before = volume(buyer, listing, now=now)
    price = price_of(listing, rows=rows, before=before, buyer=buyer)
    plan = running(buyer, listing, now=now) if price_micro != price else None
    if plan is not None and price_micro == rows * plan.row_micro:
        return of_plan(plan, rows)
    return Terms(price)
