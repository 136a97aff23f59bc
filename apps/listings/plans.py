"""Plans: rows of a period, paid ahead; the rule is `apps.protocol.plans`.

What was paid lies on an account of its own (purpose "prepaid") that belongs to the plan. A
prediction within the quota is held on it and paid from it by the ledger like any other, so the
quota is the account's balance: no two requests can have the same rows, and the money becomes
revenue row by row, under the version that answered. What nobody used by the end goes to the
SubDAO's treasury: no version has earned it.

A buyer has one plan at a listing. Beginning, changing and cancelling are one action, which does
what its preview said, or nothing; each is a leaf "listings.plan" (`workers.client.plans`).

A plan renews itself where its buyer agreed to that (leaf "listings.plan_renewal"): the sweep that
ends it begins the next period in the same transaction, at the price of then, or says why not.

Where the SubDAO votes that asking takes a credential, the plans that run keep the terms that they
began with, until their end (`Subscription.access`).

Where it votes its model off sale, the sweep ends its plans and pays back at once what was paid for
the time after the vote, as far as it is unused: the rows asked keep the plan's price.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4, uuid5

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.clock import from_unix_ms, unix_ms
from apps.core.errors import BadInput, Conflict, DomainError, Forbidden, NotFound
from apps.core.permissions import ensure
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.listings.access import admitted
from apps.listings.asking import ensure_on_sale
from apps.listings.models import Listing, Query, Subscription
from apps.listings.pricing import CURRENCY, price_micro, rows_per_buyer
from apps.listings.unlocks import can_ask
from apps.notify.models import PLAN_NOT_RENEWED, PLAN_RENEWED, PLAN_WITHDRAWN
from apps.notify.services import tell
from apps.protocol import consent as signing
from apps.protocol import plans as rules
from apps.protocol.tariff import row_price
from apps.subdaos.selectors import portion_bps
from apps.subdaos.services import dao_lock
from apps.wallets import keys, ledger, log
from apps.wallets.models import Account
from apps.wallets.services import account

logger = logging.getLogger(__name__)
PURPOSE = "prepaid"
LEAF_TYPE = "listings.plan"
RENEWAL_TYPE = "listings.plan_renewal"
PREVIEW_MS = 5 * 60_000


class PlanChanged(Conflict):
    code = "plan_changed"
    text = "This is not what would happen any more: preview it again. Nothing has moved."


class InUse(Conflict):
    code = "plan_in_use"
    text = (
        "Predictions under this plan wait for their answers. Change it when they have ended; "
        "nothing has moved."
    )


class Withdrawn(Conflict):
    code = "plan_withdrawn"
    text = (
        "This model was taken off sale: within moments the plan ends by itself, and what you paid "
        "for the time to come is back on your balance, as far as it is unused."
    )


class KeySigns(Forbidden):
    code = "wallet_key_bound"
    text = (
        "A key is bound to this wallet, and signs each period: its plans don't renew themselves. "
        "Nothing has changed."
    )


class NotAsAgreed(Conflict):
    code = "not_as_agreed"
    text = "The plan costs more than was agreed to, or has other rows or days."


# Why there is no next period, in words, by the code of what stood against it.
UNRENEWED = {
    NotAsAgreed.code: "It would have cost more than you agreed to, or has other rows or days now.",
    KeySigns.code: "A key is bound to your wallet since, and signs each period.",
    "insufficient_balance": "Your balance was short.",
    "plan_not_found": "It is not on offer any more.",
    "plan_too_large": "One buyer gets fewer rows of the model now, by vote, than the plan has.",
    Withdrawn.code: "Its SubDAO took the model off sale, and what was left was paid back.",
}
UNRENEWED_ELSE = "The model was not on sale to you then."


@dataclass(frozen=True)
class Preview:
    """What setting a plan would do at `at_ms`; amounts in micro-units, `change.term` what runs
    then. `before`: the plan that it changes, if any; `used`: the rows asked under it so far."""

    listing: Listing
    plan: str
    at_ms: int
    before: Subscription | None
    change: rules.Change
    used: tuple[rules.Used, ...] = ()

    @property
    def rows(self) -> int:
        return self.change.term.rows if self.change.term else 0

    @property
    def asked(self) -> dict[str, str]:
        """What a wallet key signs of it."""
        return signing.plan_payload(
            listing=self.listing.slug,
            plan=self.plan,
            at_ms=self.at_ms,
            rows=self.rows,
            due_micro=self.change.due_micro,
            refund_micro=self.change.refund_micro,
        )


def plans_offered(listing: Listing) -> tuple[rules.Plan, ...]:
    return rules.plans_of(listing.dao.params["plans"])


def plans_json(listing: Listing) -> list[dict[str, Any]]:
    """The plans on offer with what they cost now."""
    price = price_micro(listing)
    return [
        {
            "name": plan.name,
            "rows": plan.rows,
            "days": plan.days,
            "off_bps": plan.off_bps,
            "row_micro": str(row_price(price, plan.off_bps)),
            "price_micro": str(plan.rows * row_price(price, plan.off_bps)),
        }
        for plan in plans_offered(listing)
    ]


def running_of(buyer: Party, *, now: datetime) -> QuerySet[Subscription]:
    """The buyer's plans that run now: of each listing one, or none."""
    return Subscription.objects.filter(buyer=buyer, ended_at=None, ends_at__gt=now)


def running(buyer: Party, listing: Listing, *, now: datetime) -> Subscription | None:
    """The buyer's plan here, if one runs now."""
    return _described(running_of(buyer, now=now).filter(listing=listing)).first()


def subscriptions_of(buyer: Party) -> QuerySet[Subscription]:
    """A buyer's plans, newest first."""
    return _described(Subscription.objects.filter(buyer=buyer)).order_by("-began_at", "-id")


def _described(rows: QuerySet[Subscription]) -> QuerySet[Subscription]:
    return rows.select_related(
        "buyer",
        "listing__dao__party",
        "account__owner",
        "account__asset",
        "listing__version__round",
    )


def preview(*, listing: Listing, buyer: Party, plan: str, now: datetime) -> Preview:
    """What would happen now. `plan`: its name, "" for none. Moves nothing.

    Raises NotFound for a plan that isn't there, Conflict where nothing would change, Forbidden to
    who may not ask this listing yet.
    """
    return _preview(listing, buyer, plan, unix_ms(now))


def plan_set(
    *,
    listing: Listing,
    buyer: Party,
    plan: str,
    at_ms: int,
    rows: int,
    due_micro: int,
    refund_micro: int,
    consent: keys.Consent,
    now: datetime,
) -> Subscription:
    """Begin, change or (plan "") cancel the buyer's plan, exactly as a preview of `at_ms` said.

    Raises BadInput for a preview of another time, PlanChanged where it would do something else,
    InUse while predictions under it wait, InsufficientBalance; what `preview` and `keys.grant`
    raise. Nothing moves then.
    """
    if not unix_ms(now) - PREVIEW_MS <= at_ms <= unix_ms(now):
        raise BadInput("preview_expired", "A preview holds for five minutes; make another.")
    asked = signing.plan_payload(
        listing=listing.slug, plan=plan, at_ms=at_ms, rows=rows, due_micro=due_micro,
        refund_micro=refund_micro,
    )  # fmt: skip
    with durable():
        # Prices and plans stand still from here on, for the log to tell in this order. The SubDAO's
        # row before a member's key, as everywhere. The model may have been retired meanwhile.
        listing.dao = dao_lock(listing.dao)
        listing.refresh_from_db(fields=["status", "retired_at"])
        said = keys.grant(buyer, signing.PLAN, asked, consent, now=now)
        own = _account(buyer, listing, now)
        mine = Subscription.objects.filter(buyer=buyer, listing=listing)
        treasury = account(listing.dao.party, CURRENCY, "treasury")
        row = _locked(mine, own, treasury, account(buyer, CURRENCY))
        if row is not None and row.ends_at <= now:
            if from_unix_ms(at_ms) < row.ends_at or listing.retired_at is not None:
                raise PlanChanged()
            _end(row, now)
            row = None
        seen = _preview(listing, buyer, plan, at_ms, row)
        if seen.asked != asked:
            raise PlanChanged()
        made = row or Subscription(
            id=uuid4(), buyer=buyer, listing=listing, account=own, created_at=now
        )
        # After this point it must succeed, but for the balance.
        moved = _move(made, seen.change, now)
        if seen.change.term is None:
            made.ended_at = now
        else:
            _fill(made, plan, seen.change.term, seen.used, began=row is None)
        made.save(force_insert=row is None)
        step = "begun" if row is None else "changed" if made.ended_at is None else "cancelled"
        _tell(made, step, seen.change, moved, {"asked": asked, **said}, now)
    return made


def renewal_set(
    *,
    listing: Listing,
    buyer: Party,
    agreed: rules.Renewal | None,
    consent: keys.Consent,
    now: datetime,
) -> Subscription:
    """Let the running plan renew itself as agreed, or (None) no more. Moves nothing.

    Raises NotFound without a plan here, or one that is not on offer any more, PlanChanged where
    what was agreed to is not what is on offer now, KeySigns to a wallet with a key. Taking it back
    is everybody's: that only takes away.
    """
    with durable():
        listing.dao = dao_lock(listing.dao)
        if agreed is not None and keys.keyed(buyer):
            raise KeySigns()
        rows = Subscription.objects.filter(buyer=buyer, listing=listing, ended_at=None)
        if agreed is not None:  # to take it back is in time until it has renewed itself
            rows = rows.filter(ends_at__gt=now)
        row = _described(rows).select_for_update(of=("self",)).first()
        if row is None:
            raise NotFound("no_plan", "You have no plan here.")
        if agreed is not None:
            plan = _offered(listing, row.plan)
            if rules.renewed(agreed, plan, price_micro=price_micro(listing), at_ms=0) is None:
                raise PlanChanged()
        row.renewal = vars(agreed) if agreed else None
        row.save(update_fields=["renewal"])
        body = _about(row) | {
            "plan": row.plan,
            "agreed": {name: str(value) for name, value in vars(agreed).items()}
            if agreed
            else None,
            "auth": consent.auth,
        }
        log.append(RENEWAL_TYPE, body, now=now)
    return row


def subscriptions_end(*, now: datetime, limit: int = 100) -> int:
    """End plans whose period is over: what nobody used goes to the treasury. Those that renew
    themselves begin again. Those of a retired model end too, and are paid back. Returns how many
    ended."""
    over = Q(ends_at__lte=now) | Q(listing__retired_at__isnull=False)
    due = Subscription.objects.filter(over, ended_at=None).order_by("ends_at")
    return each(
        due,
        lambda id_: _expire(id_, now),
        now=now,
        limit=limit,
        log=logger,
        what="end of plan",
    )


def _expire(id_: Any, now: datetime) -> bool:
    with durable():
        found = Subscription.objects.filter(pk=id_)
        seen = _described(found).get()
        dao = dao_lock(seen.listing.dao)
        seen.listing.refresh_from_db(fields=["retired_at"])  # the last vote on it is in force now
        withdrawn = seen.listing.retired_at
        if seen.ends_at > now and withdrawn is None:
            return False
        keyed = keys.keyed(seen.buyer)
        try:
            treasury = account(dao.party, CURRENCY, "treasury")
            row = _locked(found, seen.account, treasury, account(seen.buyer, CURRENCY))
        except InUse:  # its last answers are on their way
            return False
        if row is None:
            return False
        row.listing.dao = dao
        if withdrawn is not None and withdrawn < row.ends_at:
            _withdraw(row, withdrawn, now)
            return True
        _end(row, now)
        if row.renewal:
            _go_on(row, keyed, now)
    return True


def _withdraw(row: Subscription, since: datetime, now: datetime) -> None:
    """Inner writer: its model is off sale `since` then; `row` and its account are locked, nothing
    is held. Its buyer is told."""
    at_ms = max(unix_ms(since), unix_ms(row.starts_at))
    change = rules.withdrawn(row.term, left_micro=row.account.posted_micro, at_ms=at_ms)
    moved = _move(row, change, now)
    row.ended_at, row.unrenewed = now, Withdrawn.code
    row.save(update_fields=["ended_at", "unrenewed"])
    _tell(row, "withdrawn", change, moved, {}, now)
    told = {
        "listing": row.listing.slug,
        "plan": row.plan,
        "refund_micro": str(change.refund_micro),
        "lapsed_micro": str(change.lapsed_micro),
    }
    tell([(row.buyer_id, PLAN_WITHDRAWN, told)], now=now)


def _go_on(row: Subscription, keyed: bool, now: datetime) -> None:
    """Inner writer: the next period of a plan that has just ended, or why there is none; its buyer
    is told of either."""
    about = {"listing": row.listing.slug, "plan": row.plan}
    try:
        with transaction.atomic():
            if keyed:
                raise KeySigns()
            made = _renew(row, now)
        what, told = (
            PLAN_RENEWED,
            {
                "paid_micro": str(made.term.cost_micro),
                "ends_at": made.ends_at.isoformat(),
            },
        )
    except DomainError as error:
        row.unrenewed = error.code
        row.save(update_fields=["unrenewed"])
        what, told = PLAN_NOT_RENEWED, {"reason": error.code}
    tell([(row.buyer_id, what, about | told)], now=now)


def _renew(row: Subscription, now: datetime) -> Subscription:
    """Raises what a preview raises, NotAsAgreed, InsufficientBalance."""
    seen = _preview(row.listing, row.buyer, row.plan, unix_ms(now))
    plan, price = _offered(row.listing, row.plan), price_micro(row.listing)
    assert row.agreed is not None
    if rules.renewed(row.agreed, plan, price_micro=price, at_ms=seen.at_ms) != seen.change.term:
        raise NotAsAgreed()
    assert seen.change.term is not None
    made = Subscription(
        id=uuid5(row.id, "renewal"),  # a plan is renewed once
        buyer=row.buyer,
        listing=row.listing,
        account=row.account,
        renewal=row.renewal,
        created_at=now,
    )
    moved = _move(made, seen.change, now)
    _fill(made, row.plan, seen.change.term, (), began=True)
    made.save(force_insert=True)
    _tell(made, "renewed", seen.change, moved, {"renews": str(row.id)}, now)
    return made


def _preview(
    listing: Listing, buyer: Party, name: str, at_ms: int, row: Subscription | None = None
) -> Preview:
    if row is None:
        row = running(buyer, listing, now=from_unix_ms(at_ms))
    to = _offered(listing, name) if name else None
    if name:
        ensure_on_sale(listing)
    if row is None and to is None:
        raise NotFound("no_plan", "You have no plan here.")
    if row is not None and listing.retired_at is not None:
        raise Withdrawn()
    if row is not None and row.plan == name:
        raise Conflict("no_change", "This is your plan already.")
    if to is not None:
        ensure(can_ask(buyer, listing, from_unix_ms(at_ms)))
        admitted(buyer, listing, now=from_unix_ms(at_ms))
        try:  # it may have been voted beside a smaller part of the day's rows
            rules.check_answerable(
                [to], rows_per_epoch=rows_per_buyer(listing), epoch_days=settings.ROWS_EPOCH_DAYS
            )
        except ValueError as error:
            raise Conflict("plan_too_large", f"This plan can't be used up: {error}.") from None
    price = price_micro(listing)
    if row is None:
        assert to is not None
        term = rules.begin(to, price_micro=price, at_ms=at_ms)
        return Preview(listing, name, at_ms, None, rules.Change(term, 0, 0, term.cost_micro, 0))
    if row.account.held_micro:
        raise InUse()
    if at_ms < unix_ms(row.starts_at):
        raise PlanChanged()
    asked = used_of(row)
    rows = asked.rows - sum(count for count, _ in row.earlier)
    used = rules.and_used(row.earlier, rows, row.price_micro)
    change = rules.change(
        row.term,
        to,
        price_micro=price,
        left_micro=row.account.posted_micro,
        used=used,
        spent_micro=asked.micro,
        at_ms=at_ms,
    )
    if change.term is not None and not change.term.rows:
        raise Conflict("too_late", "The period is nearly over: begin the other plan after it.")
    return Preview(listing, name, at_ms, row, change, used)


def _offered(listing: Listing, name: str) -> rules.Plan:
    for plan in plans_offered(listing):
        if plan.name == name:
            return plan
    raise NotFound("plan_not_found", "There is no such plan here.")


@dataclass(frozen=True)
class Used:
    """What was answered under a plan since its period began."""

    rows: int
    micro: int
    inferences: int


def used_of(row: Subscription) -> Used:
    paid = Query.objects.filter(subscription=row, state=Query.State.SETTLED)
    sums = paid.aggregate(rows=Sum("rows"), micro=Sum("price_micro"), count=Count("id"))
    return Used(int(sums["rows"] or 0), int(sums["micro"] or 0), int(sums["count"]))


def _locked(rows: QuerySet[Subscription], own: Account, *others: Account) -> Subscription | None:
    """The one of these that has not ended, locked after all accounts that money may move between,
    as `listings_hold` locks them. Raises InUse while something on its own one is held."""
    locked = ledger.lock([own, *others])
    if locked[own.id].held_micro:
        raise InUse()
    held = rows.select_for_update(of=("self",), no_key=True).filter(ended_at=None)
    row = _described(held).first()
    if row is not None:
        row.account = locked[own.id]
    return row


def _account(buyer: Party, listing: Listing, now: datetime) -> Account:
    """That of the buyer's earlier plans here, or a new one. Its owner is nobody's pseudonym."""
    earlier = _described(Subscription.objects.filter(buyer=buyer, listing=listing)).first()
    if earlier is not None:
        return earlier.account
    owner = party_create(kind=Party.Kind.SYSTEM, name=f"Plan {uuid4().hex[:12]}", now=now)
    return account(owner, CURRENCY, PURPOSE)


def _fill(
    row: Subscription, plan: str, term: rules.Term, used: tuple[rules.Used, ...], *, began: bool
) -> None:
    if not began:
        row.renewal = None  # it was agreed to of another plan
    row.plan, row.rows, row.earlier = plan, term.rows, list(used)
    row.row_micro, row.price_micro = term.row_micro, term.price_micro
    row.starts_at, row.ends_at = from_unix_ms(term.starts_ms), from_unix_ms(term.ends_ms)
    row.access = row.listing.dao.params.get("access") or None
    row.portion_bps = portion_bps(row.listing.dao)
    if began:
        row.began_at = row.starts_at


def _move(row: Subscription, change: rules.Change, now: datetime) -> dict[str, str]:
    """Post what a change moves: {"due" | "refund" | "lapsed": the transfer's id}. That which begins
    a plan has the plan's own, so that none begins twice."""
    own, main = row.account, account(row.buyer, CURRENCY)
    treasury = account(row.listing.dao.party, CURRENCY, "treasury")
    sides = {
        "lapsed": (own, treasury, change.lapsed_micro),
        "refund": (own, main, change.refund_micro),
        "due": (main, own, change.due_micro),
    }
    legs = {
        name: ledger.Leg(
            debit_account=debit,
            credit_account=credit,
            amount_micro=micro,
            id=row.id if name == "due" and row._state.adding else uuid4(),
            kind=f"{LEAF_TYPE}_{name}" if name != "due" else LEAF_TYPE,
            ref=("listings.plan", row.id),
        )
        for name, (debit, credit, micro) in sides.items()
        if micro
    }
    ledger.post(list(legs.values()), now=now)
    own.refresh_from_db(fields=["posted_micro"])
    return {name: str(leg.id) for name, leg in legs.items()}


def _end(row: Subscription, now: datetime) -> None:
    """Inner writer: its period is over; `row` and its account are locked, nothing is held."""
    change = rules.Change(None, 0, row.account.posted_micro, 0, 0)
    moved = _move(row, change, now)
    row.ended_at = now
    row.save(update_fields=["ended_at"])
    _tell(row, "ended", change, moved, {}, now)


def _tell(
    row: Subscription,
    step: str,
    change: rules.Change,
    moved: dict[str, str],
    said: dict[str, Any],
    now: datetime,
) -> None:
    term = change.term
    body = _about(row) | {
        "step": step,
        "plan": row.plan if term else "",
        "term": {name: str(value) for name, value in vars(term).items()} if term else None,
        "moved": moved,
        **said,
    }
    log.append(LEAF_TYPE, body, now=now)


def _about(row: Subscription) -> dict[str, Any]:
    """What each leaf of a plan says of whose it is."""
    return {
        "id": str(row.id),
        "buyer": row.buyer.pid,
        "dao": row.listing.dao.party.pid,
        "listing": row.listing.slug,
        "account": row.account.owner.pid,
    }


# -- drawing: what a prediction needs to know


def left_rows(row: Subscription, *, now: datetime) -> int:
    """Rows of its quota that nobody has asked yet; what expired holds had is free again."""
    free = row.account.posted_micro
    if row.account.held_micro:
        held = row.account.holds.filter(expires_at__gt=now).aggregate(sum=Sum("amount_micro"))
        free -= int(held["sum"] or 0)
    return int(free // row.row_micro)


def covering(buyer: Party, listing: Listing, *, rows: int, now: datetime) -> Subscription | None:
    """The plan that pays for so many rows: one whose quota has room for all of them."""
    row = running(buyer, listing, now=now)
    return row if row is not None and left_rows(row, now=now) >= rows else None


def plan_json(row: Subscription, *, now: datetime) -> dict[str, Any]:
    used = used_of(row)
    over = row.ended_at is not None or row.ends_at <= now
    return {
        "id": str(row.id),
        "listing": row.listing.slug,
        "plan": row.plan,
        "rows": row.rows,
        "left_rows": 0 if over else left_rows(row, now=now),
        "row_micro": str(row.row_micro),
        "answered_rows": used.rows,
        "answered_micro": str(used.micro),
        "began_at": row.began_at.isoformat(),
        "ends_at": row.ends_at.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
        "renewal": row.renewal and row.renewal | {"max_micro": str(row.renewal["max_micro"])},
        "unrenewed": row.unrenewed,
    }


def preview_json(seen: Preview) -> dict[str, Any]:
    change = seen.change
    return {
        "listing": seen.listing.slug,
        "before": seen.before.plan if seen.before else "",
        "plan": seen.plan,
        "at_ms": seen.at_ms,
        "rows": seen.rows,
        "row_micro": str(change.term.row_micro) if change.term else "0",
        "ends_at": from_unix_ms(change.term.ends_ms).isoformat() if change.term else None,
        "credit_micro": str(change.credit_micro),
        "lapsed_micro": str(change.lapsed_micro),
        "due_micro": str(change.due_micro),
        "refund_micro": str(change.refund_micro),
    }
