"""What an inference costs: the rule is `apps.protocol.tariff`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Sum

from apps.accounts.models import Party
from apps.core.errors import Unprocessable
from apps.core.months import month_of
from apps.listings.models import Listing, Query, Subscription
from apps.protocol import tariff
from apps.protocol.circuits.family import query_rows_max
from apps.protocol.extraction import Extraction, extraction
from apps.protocol.plans import plans_of
from apps.protocol.portion import portion_rows
from apps.protocol.tickets import COMPUTING, ELEMENT_BYTES, MAX_VALUES, SHAMIR
from apps.rfms.models import Rfm
from apps.subdaos.selectors import portion_bps

CURRENCY = "USDC"
SHAMIR_ROWS_MAX = 1000  # more take minutes, and a request has each node's own shares


def price_micro(listing: Listing) -> int:
    """Price of one row before any tier, set by the SubDAO."""
    return int(listing.dao.params["price_micro"])


def copy_cost(listing: Listing) -> Extraction:
    """What reading the model out by asking costs now, under the nodes' caps of rows an epoch (their
    `policy.json` decides them, settings.ROWS_PER_EPOCH says it here)."""
    held = listing.version.round
    return extraction(
        model_class=held.model_class,
        resolution=held.resolution,
        features=held.features,
        extras=held.extras,
        price_micro=price_micro(listing),
        tiers=tariff.tiers_of(listing.dao.params["tiers"]),
        plans=plans_of(listing.dao.params["plans"]),
        rows_per_epoch=rows_per_epoch_max(listing),
    )


def rows_per_epoch_max(listing: Listing) -> int:
    """What the nodes of a model answer in one of their epochs, whoever asks: each counts the rows
    that it computes and stops at settings.ROWS_PER_EPOCH, and each row is computed by three of
    them (four of the verified ring). Of three nodes it is what each of them answers."""
    held = listing.version.round
    return len(held.nodes) * settings.ROWS_PER_EPOCH // COMPUTING[held.engine]


def rows_per_buyer(listing: Listing, plan: Subscription | None = None) -> int:
    """The most rows that one buyer may ask of a model in one of its nodes' epochs: under a plan as
    many as when its term began, if that was more."""
    bps = max(portion_bps(listing.dao), plan.portion_bps if plan else 0)
    return portion_rows(rows_per_epoch_max(listing), bps)


def rows_max(listing: Listing) -> int:
    """How many rows one request may have: what the circuit takes, an upload holds of Shamir shares
    (each node's own are in it), each node answers in a query and in an epoch (their `policy.json`
    decides, the settings say it here), and one buyer may ask in an epoch."""
    held = listing.version.round
    most = query_rows_max(held.features)
    if held.engine in SHAMIR:
        fits = 8 * MAX_VALUES // len(held.nodes) // (ELEMENT_BYTES * held.features)
        most = min(most, SHAMIR_ROWS_MAX, fits)
    return min(most, settings.ROWS_PER_QUERY, settings.ROWS_PER_EPOCH, rows_per_buyer(listing))


def rebate_bps(listing: Listing) -> int:
    """What the author of the model's request pays less, of each row, by its terms."""
    return int(listing.dao.params.get("rebate_bps", 0))


def price_to(buyer: Party | None, listing: Listing) -> int:
    """Price of one row to this buyer, before any tier."""
    price, off_bps = price_micro(listing), rebate_bps(listing)
    if not off_bps or not Rfm.objects.filter(subdao=listing.dao, submitter=buyer).exists():
        return price
    return tariff.row_price(price, off_bps)


def price_of(listing: Listing, *, rows: int, before: int = 0, buyer: Party | None = None) -> int:
    """Price of so many rows in one inference, after so many others this month; for nobody in
    particular without a buyer.

    Raises Unprocessable("too_many_rows") for more than `rows_max`: nobody shall be quoted what is
    then refused.
    """
    most = rows_max(listing)
    if rows > most:
        days = settings.ROWS_EPOCH_DAYS
        span = f"in {days} day{'s' * (days > 1)}"
        why = {
            settings.ROWS_PER_EPOCH: f", since nodes answer {most} rows of a model {span}",
            rows_per_buyer(listing): f", since one buyer gets {most} {span}",
        }
        raise Unprocessable(
            "too_many_rows",
            f"One request takes {most} rows of this model at most{why.get(most, '')}.",
            field="rows",
        )
    tiers = tariff.tiers_of(listing.dao.params["tiers"])
    return tariff.charge(rows, before=before, price_micro=price_to(buyer, listing), tiers=tiers)


def volume(buyer: Party, listing: Listing, *, now: datetime) -> int:
    """Rows asked this month (UTC), answered and paid from the balance; 0 where there are no tiers.

    What only waits doesn't count, so that nobody orders much for the tier and cancels.
    """
    if not listing.dao.params["tiers"]:
        return 0
    asked = Query.objects.filter(
        buyer=buyer, listing=listing, state="settled", subscription=None,
        created_at__gte=month_of(now)[0],
    )  # fmt: skip
    return int(asked.aggregate(sum=Sum("rows"))["sum"] or 0)


def tiers_json(listing: Listing) -> list[dict[str, Any]]:
    """The tiers with what a row costs in each."""
    price = price_micro(listing)
    return [
        {
            "from_rows": tier.from_rows,
            "off_bps": tier.off_bps,
            "price_micro": str(tariff.row_price(price, tier.off_bps)),
        }
        for tier in tariff.tiers_of(listing.dao.params["tiers"])
    ]
