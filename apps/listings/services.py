"""Listings open; queries are held, and settled or released exactly once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q

from apps.accounts.models import ApiKey, Party
from apps.compute.services import job_create
from apps.core.clock import unix_ms
from apps.core.errors import Conflict, DomainError, NotFound, Unprocessable
from apps.core.events import emit
from apps.core.notes import announce
from apps.core.permissions import ensure
from apps.core.transactions import durable
from apps.listings import mandates, pricing
from apps.listings.channels import HELD_CHANNEL
from apps.listings.epochs import epoch_begin
from apps.listings.events import ListingOpened
from apps.listings.models import Listing, Query
from apps.listings.pricing import CURRENCY, price_of
from apps.listings.quoting import quoted_micro
from apps.listings.spending import spend_within
from apps.listings.unlocks import can_ask
from apps.protocol import tickets
from apps.protocol.circuits import CIRCUITS, CLASSES, BadParams
from apps.training.models import ModelVersion
from apps.training.tickets import Mismatch, compare
from apps.wallets import ledger, log
from apps.wallets.services import account

SLOT = "row"
JOB_DEADLINE_S = 15
LIFETIME_S_MIN = 5
HOLD_S_MAX = 24 * 3600
WAITING_MAX = 1000


class TooMany(DomainError):
    code = "too_many_waiting"
    status = 429
    text = "{waiting} of your queries wait for an answer already. Nothing was charged."


def listing_open(*, version_id: str | UUID, now: datetime) -> Listing:
    """The accepted version goes on sale, as the SubDAO's one listing. Harmless when repeated."""
    with durable():
        version = ModelVersion.objects.select_related("dao__party").get(pk=version_id)
        listing = Listing.objects.select_for_update().filter(dao=version.dao).first()
        if listing is not None and listing.version_id == version.id:
            return listing
        if listing is None:
            listing = Listing(dao=version.dao, slug=version.dao.slug, opened_at=now)
        elif listing.version.number > version.number:
            return listing
        listing.version, listing.status = version, Listing.Status.OPEN
        listing.save()
        log.append(
            "listings.opened",
            {
                "listing": listing.slug,
                "dao": version.dao.party.pid,
                "version": version.number,
                "model": version.model,
                "price_micro": str(pricing.price_micro(listing)),
            },
            now=now,
        )
        epoch_begin(dao=version.dao, now=now)
        emit(ListingOpened(listing_id=str(listing.id), dao_id=str(version.dao_id)), now=now)
    return listing


def infer_of(listing: Listing) -> str:
    """The circuit that answers queries of this listing: that of its model's class."""
    return CLASSES[listing.version.round.model_class].infer_id


def query_ticket(listing: Listing, *, rows: int, price_micro: int | None = None) -> dict[str, Any]:
    """What the ticket of a query of `rows` rows must carry, at a quoted price or the one of now."""
    price = price_of(listing, rows=rows) if price_micro is None else price_micro
    held = listing.version.round
    return {
        "slot": SLOT,
        "circuits": [infer_of(listing)],
        "circuits_hash": held.circuits_hash,
        "engine": "ring",
        "nodes": held.nodes,
        "model": listing.version.model,
        "params": {"features": held.features, "rows": rows, **held.extras},
        "shape": [rows, held.features],
        "f": CIRCUITS[infer_of(listing)].slots[SLOT].f,
        "resolution": held.resolution,
        "price_micro": str(price),
    }


def query_create(
    *,
    slug: str,
    buyer: Party,
    upload: dict[str, Any],
    max_price_micro: int | None = None,
    quote: str | None = None,
    key: ApiKey | None = None,
    now: datetime,
) -> Query:
    """Hold the price, keep the sealed row, wake the nodes. Nothing is charged yet.

    The hold lives as long as the ticket, one day at most; then the buyer is free of it. With a
    quote its price holds; more than `max_price_micro`, or than the `key` may spend, is refused.
    Raises Unprocessable naming the wrong field, InsufficientBalance, Conflict, NotFound, TooMany,
    SpendLimitReached, MandateNeeded (the buyer's wallet key has not allowed it), Forbidden
    in the time of early access.
    """
    try:
        ticket = tickets.check_upload(upload, now=unix_ms(now) // 1000)
    except tickets.TicketError as error:
        raise Unprocessable(error.code, error.text) from None
    with durable():
        listing = listing_get(slug)
        if listing.status != Listing.Status.OPEN:
            raise Conflict("listing_closed", "This listing is closed.")
        ensure(can_ask(buyer, listing, now))
        rows = ticket.shape[0]
        price = (
            price_of(listing, rows=rows, before=pricing.volume(buyer, listing, now=now))
            if quote is None
            else quoted_micro(quote, buyer=buyer, listing=listing, rows=rows, now=now)
        )
        if max_price_micro is not None and price > max_price_micro:
            raise Conflict(
                "price_changed",
                f"This costs {price} micro-units now, more than the {max_price_micro} allowed.",
                price_micro=str(price),
            )
        _compare(ticket, listing, price)
        _room_for(buyer)
        spend_within(key, price, now=now)
        mandate = mandates.mandate_for(
            buyer, listing=listing.slug, key=key, price_micro=price, now=now
        )
        expires_at = min(
            datetime.fromtimestamp(ticket.expires_at, UTC), now + timedelta(seconds=HOLD_S_MAX)
        )
        query = Query(
            buyer=buyer,
            api_key=key,
            mandate=mandate,
            listing=listing,
            version=listing.version,
            rows=rows,
            price_micro=price,
            share_id=ticket.share_id,
            scope=ticket.scope,
            ticket_id=ticket.id,
            upload=json.dumps(upload, separators=(",", ":")).encode(),
            timeline=[{"state": "held", "at": now.isoformat()}],
            expires_at=expires_at,
            created_at=now,
        )
        query.hold = ledger.pend(
            ledger.Leg(
                debit_account=account(buyer, CURRENCY),
                credit_account=account(listing.dao.party, CURRENCY, "revenue"),
                amount_micro=price,
                kind="listings.query",
                ref=("listings.query", query.id),
                said={"mandate": str(mandate.id)} if mandate else None,
            ),
            expires_at=expires_at,
            now=now,
        )
        query.job = job_create(
            kind="query",
            circuit=infer_of(listing),
            circuits_hash=ticket.circuits_hash,
            nodes=ticket.nodes,
            scope=ticket.scope,
            roster=None,
            inputs={SLOT: [ticket.share_id]},
            model=listing.version.model,
            deadline_s=JOB_DEADLINE_S,
            expires_at=expires_at,
            now=now,
        )
        try:
            with transaction.atomic():
                query.save(force_insert=True)
        except IntegrityError:  # the same share, now or before
            _not_taken(ticket)
            raise
        log.append(
            "listings.query_held",
            {
                "query": str(query.id),
                "buyer": buyer.pid,
                "listing": listing.slug,
                "version": listing.version.number,
                "ticket": ticket.id,
                "commitment": list(ticket.commitment),
                "hold": str(query.hold_id),
                "price_micro": str(price),
            },
            now=now,
        )
        announce(HELD_CHANNEL, listing.version_id)
    return query


def listing_get(slug: str) -> Listing:
    """Raises NotFound."""
    listing = (
        Listing.objects.select_related("dao__party", "dao__asset__pool", "version__round")
        .filter(slug=slug)
        .first()
    )
    if listing is None:
        raise NotFound("listing_not_found", "There is no listing with this name.")
    return listing


def _not_taken(ticket: tickets.Ticket) -> None:
    """Raises Conflict where a query has this share or scope."""
    # one look, so that a query which comes between two of them is not half seen
    same = Q(share_id=ticket.share_id) | Q(scope=ticket.scope)
    taken = set(Query.objects.filter(same).values_list("share_id", flat=True))
    if ticket.share_id in taken:
        raise Conflict("share_id_taken", "A query with this share_id exists; share anew.")
    if taken:
        raise Conflict("scope_taken", "A query with this scope exists; choose another.")


def _room_for(buyer: Party) -> None:
    """Raises TooMany while too many of a buyer's queries wait: others have a turn too."""
    waiting = Query.objects.filter(buyer=buyer, ended_at=None).count()
    if waiting >= WAITING_MAX:
        raise TooMany(waiting=waiting, retry_after_s=1)


def _compare(ticket: tickets.Ticket, listing: Listing, price_micro: int) -> None:
    if not ticket.is_query:
        raise Unprocessable(
            "ticket_mismatch", "The ticket's scope is not a query's.", field="scope"
        )
    if len(ticket.shape) != 2:
        raise Unprocessable(
            "ticket_mismatch", "The ticket's shape must be [rows, features].", field="shape"
        )
    try:
        compare(ticket, query_ticket(listing, rows=ticket.shape[0], price_micro=price_micro))
        CIRCUITS[infer_of(listing)].validate(ticket.params)
    except Mismatch as error:
        raise Unprocessable("ticket_mismatch", error.text, field=error.field) from None
    except BadParams as error:
        raise Unprocessable("ticket_mismatch", str(error), field="params") from None
    if ticket.expires_at - ticket.issued_at < LIFETIME_S_MIN:
        raise Unprocessable(
            "ticket_mismatch",
            f"The ticket must live at least {LIFETIME_S_MIN} s.",
            field="expires_at",
        )
