"""Listings open; queries are held, and settled or released exactly once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import connection

from apps.accounts.models import ApiKey, Party
from apps.compute.services import job_new
from apps.core.clock import unix_ms
from apps.core.errors import Conflict, DomainError, NotFound, Unprocessable
from apps.core.events import emit
from apps.core.idempotency import Call, CallTaken
from apps.core.joined import UNWAITED, prepared, row_json
from apps.core.live import changed
from apps.core.months import month_of
from apps.core.permissions import ensure
from apps.core.transactions import clocks_agree, durable
from apps.listings import pricing
from apps.listings.access import access_of, admitted, ensure_shown
from apps.listings.asking import ensure_on_sale, hash_of, infer_of
from apps.listings.channels import HELD_CHANNEL
from apps.listings.epochs import epoch_begin
from apps.listings.events import ListingOpened
from apps.listings.mandates import MandateNeeded
from apps.listings.models import Listing, Query, Subscription
from apps.listings.portions import Portion, span
from apps.listings.pricing import CURRENCY, price_of
from apps.listings.quoting import Terms, offered, quoted
from apps.listings.spending import spent_up
from apps.listings.unlocks import can_ask
from apps.protocol import tickets
from apps.protocol.circuits import CIRCUITS, BadParams
from apps.protocol.circuits.family import NORMALISATION
from apps.protocol.normalise import constants_digest
from apps.subdaos.models import Dao
from apps.subdaos.selectors import on_sale
from apps.subdaos.services import dao_lock
from apps.training.models import ModelVersion, Round
from apps.training.tickets import Mismatch, compare
from apps.wallets import ledger, log
from apps.wallets.models import Transfer
from apps.wallets.services import account

SLOT = "row"
JOB_DEADLINE_S = 15
ROWS_A_SECOND = 250  # that nodes with much to do are left the time for
HOLD_S_MAX = 24 * 3600
WAITING_MAX = 1000
WAITING_ROWS_MAX = 50_000  # five of the largest queries
NOTHING = "Nothing was charged."


class TooMany(DomainError):
    code = "too_many_waiting"
    status = 429
    text = (
        "{waiting} of your queries wait for an answer already, with {rows} rows in all: there is "
        "room for {waiting_max} with {rows_max}. Nothing was charged."
    )


def listing_open(*, version_id: str | UUID, now: datetime) -> Listing:
    """The accepted version goes on sale, as the SubDAO's one listing. Harmless when repeated."""
    with durable():
        version = ModelVersion.objects.select_related("dao").get(pk=version_id)
        # The DAO first, as whoever changes its price does: the leaf tells the price of its place.
        version.dao = dao_lock(version.dao)
        listing = Listing.objects.select_for_update(no_key=True).filter(dao=version.dao).first()
        if listing is not None and listing.version_id == version.id:
            return listing
        if listing is None:
            listing = Listing(dao=version.dao, slug=version.dao.slug, opened_at=now)
        elif listing.version.number > version.number:
            return listing
        listing.version, listing.status = version, status_of(version.dao)
        listing.save()
        changed(f"subdao:{version.dao_id}")
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


def status_of(dao: Dao) -> Listing.Status:
    """Of the SubDAO's listing: a retired one stays so, whatever version follows."""
    return Listing.Status.OPEN if on_sale(dao) else Listing.Status.CLOSED


def query_ticket(listing: Listing, *, rows: int, price_micro: int | None = None) -> dict[str, Any]:
    """What the ticket of a query of `rows` rows must carry, at a quoted price or the one of now."""
    price = price_of(listing, rows=rows) if price_micro is None else price_micro
    held = listing.version.round
    return {
        "slot": SLOT,
        "circuits": [infer_of(listing)],
        "circuits_hash": hash_of(listing),
        # the ring's is signed for both rings; which one it is, the model's makers have signed
        "engine": held.engine if held.engine in tickets.SHAMIR else tickets.RING,
        "nodes": held.nodes,
        "model": listing.version.model,
        "params": {"features": held.features, "rows": rows, **_named(held), **held.extras},
        "shape": [rows, held.features],
        "f": CIRCUITS[infer_of(listing)].slots[SLOT].f,
        "resolution": held.resolution,
        "price_micro": str(price),
    }


def _named(held: Round) -> dict[str, str]:
    """The name of the normalisation under which the model was made, where there is one."""
    return {NORMALISATION: constants_digest(held.normalisation)} if held.normalisation else {}


def query_create(
    *,
    slug: str,
    buyer: Party,
    upload: dict[str, Any],
    max_price_micro: int | None = None,
    quote: str | None = None,
    key: ApiKey | None = None,
    call: Call | None = None,
    query_id: UUID | None = None,
    waited_for: bool = False,
    now: datetime,
) -> Query:
    """Hold the price, keep the sealed row, wake the nodes: one round trip. Nothing is charged yet.

    The query lives as long as the ticket, one day at most, and its hold as much longer as the nodes
    may need for what they took at the last moment. With a quote its price holds; more than
    `max_price_micro`, or than the `key` may spend, is refused. The `call` is answered with the
    query's id, in the same transaction. `waited_for`: nobody is told of it before it has ended, or
    a second has passed, so it does not wait for the disk itself.
    Raises Unprocessable naming the wrong field, InsufficientBalance, Conflict, NotFound, TooMany,
    PortionUsedUp, SpendLimitReached, MandateNeeded (the buyer's wallet key has not allowed it),
    CredentialNeeded, Forbidden in the time of early access, CallTaken.
    """
    try:
        ticket = tickets.check_upload(upload, now=unix_ms(now) // 1000)
    except tickets.TicketError as error:
        raise Unprocessable(error.code, error.text) from None
    offer, fresh = _offers.get(slug), False
    while True:
        if offer is None:
            offer, fresh = _offer(slug), True
        try:
            terms = _terms(offer.listing, ticket, buyer, quote, max_price_micro, now)
        except DomainError:
            if fresh:
                raise
            offer = None  # what is refused, is by what the listing says now
            continue
        query = _query(query_id or uuid4(), buyer, key, offer.listing, ticket, terms, now)
        hold = _HOLD_WAITED_FOR if waited_for else _HOLD
        code, facts = _hold(hold, query, offer, upload, ticket, terms, quote is not None, call, now)
        match code:
            case "held":
                for row in (query.job, query):
                    row._state.adding, row._state.db = False, connection.alias
                changed("nodes", f"wallet:{buyer.id}", f"wallet:{offer.listing.dao.party_id}")
                return query
            case "changed":
                offer = None
            case "insufficient_balance" if _free_expired(query, now):
                pass
            case _:
                raise _refusal(code, facts, query, now)


@dataclass(frozen=True)
class Offer:
    """A listing, its SubDAO's parameters as JSON, and the account that is paid."""

    listing: Listing
    params: str
    payee_id: UUID


# As this process last read them; `listings_hold` confirms what a price was made from.
_offers: dict[str, Offer] = {}
OFFERS_MAX = 1000


def _offer(slug: str) -> Offer:
    listing = listing_get(slug)
    payee = account(listing.dao.party, CURRENCY, "revenue")
    if len(_offers) >= OFFERS_MAX:
        _offers.clear()
    _offers[slug] = Offer(listing, json.dumps(listing.dao.params), payee.id)
    return _offers[slug]


def _terms(
    listing: Listing,
    ticket: tickets.Ticket,
    buyer: Party,
    quote: str | None,
    max_price_micro: int | None,
    now: datetime,
) -> Terms:
    """What this ticket's rows cost this buyer, who may ask this listing for them, and what pays."""
    ensure_on_sale(listing)
    ensure(can_ask(buyer, listing, now))
    rows = ticket.shape[0]
    asked = {"buyer": buyer, "listing": listing, "rows": rows, "now": now}
    terms = (
        offered(int(ticket.price_micro or 0), **asked) if quote is None else quoted(quote, **asked)
    )
    plan = None
    if terms.subscription_id and access_of(listing.dao):
        plan = Subscription.objects.get(pk=terms.subscription_id)
    credential = admitted(buyer, listing, plan=plan, now=now)
    price = terms.price_micro
    if max_price_micro is not None and price > max_price_micro:
        raise Conflict(
            "price_changed",
            f"This costs {price} micro-units now, more than the {max_price_micro} allowed.",
            price_micro=str(price),
        )
    _compare(ticket, listing, price)
    ensure_shown(listing, ticket, now=now)
    _ensure_lives(ticket, listing, now)
    return replace(terms, credential=credential) if credential else terms


def _query(
    query_id: UUID,
    buyer: Party,
    key: ApiKey | None,
    listing: Listing,
    ticket: tickets.Ticket,
    terms: Terms,
    now: datetime,
) -> Query:
    """The query with its job, not written yet."""
    expires_at = min(
        datetime.fromtimestamp(ticket.expires_at, UTC), now + timedelta(seconds=HOLD_S_MAX)
    )
    job = job_new(
        kind="query",
        circuit=infer_of(listing),
        circuits_hash=ticket.circuits_hash,
        engine=listing.version.round.engine,
        nodes=ticket.nodes,
        scope=ticket.scope,
        roster=None,
        inputs={SLOT: [ticket.share_id]},
        model=listing.version.model,
        deadline_s=_deadline_s(ticket, listing),
        expires_at=expires_at,
        now=now,
    )
    return Query(
        id=query_id,
        buyer=buyer,
        api_key=key,
        listing=listing,
        version=listing.version,
        job=job,
        hold_id=uuid4(),
        rows=ticket.shape[0],
        price_micro=terms.price_micro,
        subscription_id=terms.subscription_id,
        share_id=ticket.share_id,
        scope=ticket.scope,
        ticket_id=ticket.id,
        timeline=[{"state": "held", "at": now.isoformat()}],
        expires_at=expires_at,
        created_at=now,
    )


def _hold(
    statement: str,
    query: Query,
    offer: Offer,
    upload: dict[str, Any],
    ticket: tickets.Ticket,
    terms: Terms,
    has_quote: bool,
    call: Call | None,
    now: datetime,
) -> tuple[str, Any]:
    """What `listings_hold`, called by this statement, answers. Raises ClockWrong."""
    clocks_agree()
    seller = offer.listing.dao.party
    tail = ledger.pended(
        query.hold_id,
        debit=f"{terms.payer or f'{query.buyer.pid}/main'}/{CURRENCY}",
        credit=f"{seller.pid}/revenue/{CURRENCY}",
        amount_micro=query.price_micro,
        kind="listings.query",
        ref=("listings.query", query.id),
        said={"mandate": str(UUID(int=0))},
    )
    leaf = {
        "query": str(query.id),
        "buyer": query.buyer.pid,
        "listing": offer.listing.slug,
        "version": offer.listing.version.number,
        "ticket": ticket.id,
        "commitment": list(ticket.commitment),
        "hold": str(query.hold_id),
        "rows": query.rows,
        "price_micro": str(query.price_micro),
    }
    if terms.credential:
        leaf["credential"] = terms.credential
    if query.subscription_id:
        leaf["plan"] = str(query.subscription_id)
    caps = {
        "waiting": WAITING_MAX,
        "waiting_rows": WAITING_ROWS_MAX,
        "rows": pricing.rows_per_buyer(offer.listing),
        "all_rows": pricing.rows_per_epoch_max(offer.listing),
        "since": span(now)[0].isoformat(),
    }
    answer = {"status": 202, "response": json.dumps({"id": str(query.id)})}
    values = [
        row_json(query, but=("upload",)),
        json.dumps(upload, separators=(",", ":")).encode(),
        row_json(query.job),
        tail,
        log.leaf_bytes("listings.query_held", leaf, now=now).decode(),
        offer.params,
        offer.payee_id,
        CURRENCY,
        has_quote,
        json.dumps(asdict(call) | answer, default=str) if call else None,
        month_of(now)[0],
        json.dumps(caps),
        HELD_CHANNEL,
        now,
    ]
    [(code, facts)] = prepared(statement, values)
    return code, None if facts is None else json.loads(facts)


_HOLD = """
SELECT hold.* FROM listings_hold(%s::jsonb, %s, %s::jsonb, %s, %s, %s::jsonb, %s, %s, %s,
    %s::jsonb, %s, %s::jsonb, %s, %s::timestamptz) AS hold
"""
_HOLD_WAITED_FOR = f"{_HOLD}, {UNWAITED}"


def _free_expired(query: Query, now: datetime) -> bool:
    plan = query.subscription
    payer = account(query.buyer, CURRENCY).id if plan is None else plan.account_id
    with durable():
        return ledger.free_expired([payer], now=now)


def _refusal(code: str, facts: Any, query: Query, now: datetime) -> Exception:
    """What `listings_hold` says of a query that it did not write."""
    price = query.price_micro
    match code:
        case "call_taken":
            return CallTaken()
        case "too_many_waiting":
            most = {"waiting_max": WAITING_MAX, "rows_max": WAITING_ROWS_MAX}
            return TooMany(**facts, **most, retry_after_s=1)
        case "buyer_rows_used_up":
            asked = Portion(facts["most"], facts["taken"], span(now)[1])
            return asked.refusal(query.rows, now=now)
        case "spend_limit_reached":
            return spent_up(price, limit_micro=facts["limit"], left_micro=facts["left"], now=now)
        case "mandate_needed":
            return MandateNeeded(price_micro=str(price))
        case "share_id_taken":
            return Conflict(code, "A query with this share_id exists; share anew.")
        case "scope_taken":
            return Conflict(code, "A query with this scope exists; choose another.")
        case "plan_covers":
            return Conflict(code, "Your plan pays for these rows: ask for a quote. " + NOTHING)
        case "plan_changed":
            return Conflict(code, "Your plan is over, or was changed: ask for a quote. " + NOTHING)
        case "insufficient_balance" if query.subscription_id:
            return Conflict("quota_used_up", "Too few rows are left of your plan. " + NOTHING)
    hold = Transfer(id=query.hold_id, debit=account(query.buyer, CURRENCY))
    return ledger.refusal(code, hold, short_micro=facts)


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


def _compare(ticket: tickets.Ticket, listing: Listing, price_micro: int) -> None:
    if not ticket.is_query:
        raise Unprocessable(
            "ticket_mismatch", "The ticket's scope is not a query's.", field="scope"
        )
    if len(ticket.shape) != 2:
        raise Unprocessable(
            "ticket_mismatch", "The ticket's shape must be [rows, features].", field="shape"
        )
    wanted = query_ticket(listing, rows=ticket.shape[0], price_micro=price_micro)
    if tickets.permits(ticket.engine, listing.version.round.engine):
        wanted["engine"] = ticket.engine  # a buyer may demand what the nodes will do
    try:
        compare(ticket, wanted)
        CIRCUITS[infer_of(listing)].validate(ticket.params)
    except Mismatch as error:
        named = ticket.params.get(NORMALISATION) == wanted["params"].get(NORMALISATION)
        if error.field != "params" or named:
            raise Unprocessable("ticket_mismatch", error.text, field=error.field) from None
        raise Unprocessable(
            "ticket_mismatch",
            "The ticket's normalisation is not the listing's: fetch the listing anew, standardise "
            "by its constants, and name them by their digest.",
            field="params",
        ) from None
    except BadParams as error:
        raise Unprocessable("ticket_mismatch", str(error), field="params") from None


def _ensure_lives(ticket: tickets.Ticket, listing: Listing, now: datetime) -> None:
    """Nodes count rows of the day when they take them: none is taken that may expire before."""
    left_s, wanted_s = ticket.expires_at - unix_ms(now) // 1000, _deadline_s(ticket, listing)
    if left_s < wanted_s:
        raise Unprocessable(
            "expired",
            f"The ticket expires in {left_s} s, and so many rows may take {wanted_s} s: sign one "
            "that lives longer. " + NOTHING,
            field="expires_at",
        )


def _deadline_s(ticket: tickets.Ticket, listing: Listing) -> int:
    return tickets.deadline_of(
        listing.version.round.engine, JOB_DEADLINE_S + ticket.shape[0] // ROWS_A_SECOND
    )
