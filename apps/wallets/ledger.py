"""The hot write of the ledger: lock, check, write transfers, balances, holds, leaves and events.

Inner writers: they must be called inside the transaction of a service. The rules are
`apps.protocol.ledger`; the SQL function `wallets_write` (migrations/write.sql) applies them to
rows, for a whole array of transfers in one call. What is left here: the array, the canonical bytes
of the leaves, and the names of what the function answers.

A transfer's id is its idempotency: the same id with the same content gets the same answer, with
other content `TransferConflict`. (The expiry of a hold and the time are not content: a retry comes
later and computes them anew.)
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import IntegrityError, connection
from django.db.models import Q

from apps.accounts.models import Party
from apps.core.events import Event, outbox_row
from apps.core.joined import prepared
from apps.core.live import changed
from apps.core.sweeping import each
from apps.core.transactions import durable, one_statement, require_transaction
from apps.protocol import wire
from apps.wallets.errors import (
    CapExceeded,
    HoldExpired,
    HoldNotFound,
    HoldResolved,
    InsufficientBalance,
    NotReversible,
    TransferConflict,
    TransferNotFound,
    rule_error,
)
from apps.wallets.events import TransferReversed
from apps.wallets.models import Account, Asset, Hold, Transfer

logger = logging.getLogger(__name__)
LEAF_TYPE = "wallets.transfer"
REVERSAL = "wallets.reversal"
FUNCTION, PAY = "wallets_write", "wallets_pay"
_WRITERS_PAUSE_S = 0.01
TOP_UP = "/wallet/"  # where a balance that is short can be filled
Phase = Transfer.Phase


@dataclass(frozen=True)
class Leg:
    """One transfer to be made: `id` is chosen by the caller, `ref` is (type, id) of its cause.

    said: what the leaf says of its owner's consent (`keys.grant`); the log alone keeps it.
    """

    debit_account: Account
    credit_account: Account
    amount_micro: int
    kind: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    ref: tuple[str, Any] | None = None
    memo: str = ""
    said: Mapping[str, Any] | None = None


def post(
    transfers: Sequence[Leg], *, now: datetime, events: Sequence[Event] = ()
) -> list[Transfer]:
    """Transfer at once, all legs or none, in order. Returns the transfers in that order.

    `events` go to the outbox with them, and not again when the same legs come again.

    Raises: InsufficientBalance, CapExceeded, TransferConflict, BadInput by the precedence of
    `apps.protocol.ledger`; nothing is written then.
    """
    return _write([_single(leg) for leg in transfers], now=now, events=events)


def pend(leg: Leg, *, expires_at: datetime, now: datetime) -> Transfer:
    """Hold `leg.amount_micro` on the debit account until posted, voided or `expires_at`.

    Raises: as `post`; ValueError for an expiry that is not in the future.
    """
    return pend_all([leg], expires_at=expires_at, now=now)[0]


def pend_all(legs: Sequence[Leg], *, expires_at: datetime, now: datetime) -> list[Transfer]:
    """As `pend`, all legs or none."""
    if expires_at <= now:
        raise ValueError("a hold must expire in the future")
    transfers = [_single(leg) for leg in legs]
    for transfer in transfers:
        transfer.phase, transfer.expires_at = Phase.PEND, expires_at
    return _write(transfers, now=now)


def post_pending(
    pending_id: uuid.UUID, *, amount_micro: int | None = None, now: datetime
) -> Transfer:
    """Resolve a hold by paying `amount_micro` ≤ held (default all of it); the rest is free again.

    Raises: HoldNotFound, HoldResolved (also for another amount), HoldExpired, PostOverHold.
    """
    pending = _pending(pending_id)
    amount_micro = pending.amount_micro if amount_micro is None else amount_micro
    return _write([_resolution(pending, Phase.POST, amount_micro)], now=now)[0]


def void_pending(pending_id: uuid.UUID, *, now: datetime) -> Transfer:
    """Resolve a hold by freeing all of it; an expired one too.

    Raises: HoldNotFound, HoldResolved.
    """
    pending = _pending(pending_id)
    return _write([_resolution(pending, Phase.VOID, pending.amount_micro)], now=now)[0]


def resolve_all(pendings: Sequence[Transfer], *, paid: bool, now: datetime) -> list[Transfer]:
    """Post all of these holds in full, or void all of them; all or none.

    Raises: HoldNotFound, HoldResolved, HoldExpired.
    """
    phase = Phase.POST if paid else Phase.VOID
    return _write([_resolution(p, phase, p.amount_micro) for p in pendings], now=now)


def reverse(
    transfer_id: uuid.UUID, *, said: Mapping[str, Any] | None = None, now: datetime
) -> Transfer:
    """Pay a posted transfer back: the opposite one, naming it, once. Nothing is ever edited.

    The same call again returns the reversal that exists. Event: TransferReversed.

    Raises: TransferNotFound; NotReversible for a hold, a release or a reversal; as `post` when the
    payee has not enough left.
    """
    original = _named().filter(id=transfer_id).first()
    if original is None:
        raise TransferNotFound(id=str(transfer_id))
    if original.phase not in (Phase.SINGLE, Phase.POST) or original.kind == REVERSAL:
        raise NotReversible(id=str(transfer_id))
    leg = Leg(
        id=reversal_id(original.id),
        debit_account=original.credit,
        credit_account=original.debit,
        amount_micro=original.amount_micro,
        kind=REVERSAL,
        ref=(LEAF_TYPE, original.id),
        said=said,
    )
    told = TransferReversed(transfer_id=str(original.id), reversal_id=str(leg.id))
    return post([leg], now=now, events=[told])[0]


def reversal_id(transfer_id: uuid.UUID) -> uuid.UUID:
    """A transfer has one reversal, and this is its id."""
    return uuid.uuid5(transfer_id, "reversal")


def pay(
    transfer_id: uuid.UUID,
    *,
    payer: Party,
    payee: Party,
    asset: str,
    amount_micro: int,
    kind: str,
    memo: str,
    said: Mapping[str, Any],
    now: datetime,
) -> Transfer | None:
    """From one party's main account to another's in one round trip, a transaction by itself where
    none is open; for who acts without a key's signature.

    None where that can't be done as it is: nothing is written then, and `post` knows more.
    """
    sides = {"debit": f"{payer.pid}/main/{asset}", "credit": f"{payee.pid}/main/{asset}"}
    body = _body(transfer_id, Phase.SINGLE, **sides, amount_micro=amount_micro, kind=kind, ref=None)
    values = (payer.id, payee.id, asset, transfer_id, amount_micro, kind, memo)
    try:
        with one_statement():
            [row] = prepared(
                f"SELECT * FROM {PAY}(%s::uuid, %s::uuid, %s, %s::uuid, %s::numeric, %s, %s, %s,"
                " %s::timestamptz)",
                (*values, _tail(body | dict(said)), now),
            )
    except IntegrityError:  # whatever it is: `post` comes upon it again, and names it
        return None
    code, at, asset_id, debit_id, credit_id = row
    if code != "written":
        return None
    held = _known(Asset, id=asset_id, code=asset)
    debit, credit = (
        _known(Account, id=id_, owner_id=owner.id, asset_id=asset_id, purpose="main")
        for id_, owner in ((debit_id, payer), (credit_id, payee))
    )
    for account, owner in ((debit, payer), (credit, payee)):
        account.owner, account.asset = owner, held
    transfer = Transfer(
        id=transfer_id, debit=debit, credit=credit, amount_micro=amount_micro, kind=kind,
        memo=memo, created_at=at,
    )  # fmt: skip
    _written([transfer], at)
    return transfer


def _known(model: type[Any], **columns: Any) -> Any:
    """A row of which these columns are known; any other is read when somebody asks."""
    return model.from_db(connection.alias, list(columns), list(columns.values()))


def lock(accounts: Iterable[Account]) -> dict[uuid.UUID, Account]:
    """Lock accounts in id order, for a service that will call several writers on them."""
    require_transaction("ledger.lock")
    rows = (
        Account.objects.filter(id__in={a.id for a in accounts})
        .select_related("owner", "asset")
        .order_by("id")
        .select_for_update(of=("self",), no_key=True)
    )
    return {row.id: row for row in rows}


# Who writes a transfer keeps this lock on the table of accounts until its end.
_WRITERS = """
SELECT DISTINCT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'wallets_account'::regclass AND pid <> pg_backend_pid()
    AND mode IN ('RowShareLock', 'RowExclusiveLock')
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def quiet(asset: uuid.UUID, *, until: datetime) -> None:
    """Stamp no transfer of `asset` before `until` from the commit on; no account is touched.

    Who read the asset before that commit may still do so: wait for `writers_ended` after it.
    """
    require_transaction("ledger.quiet")
    earlier = Q(quiet_at=None) | Q(quiet_at__lt=until)
    Asset.objects.filter(earlier, pk=asset).update(quiet_at=until)


def writers_ended(*, within_s: float) -> bool:
    """Wait until all who write to the ledger just now have committed or given up; none is held up.

    PostgreSQL takes a statement's table locks before its snapshot: whoever has read what was there
    before somebody's commit is seen here after it, or has ended. False when `within_s` is over.
    """
    until = time.monotonic() + within_s
    with connection.cursor() as cursor:
        cursor.execute(_WRITERS)
        left = found = set(cursor.fetchall())
        while left and time.monotonic() < until:
            time.sleep(_WRITERS_PAUSE_S)
            cursor.execute(_WRITERS)
            left = found & set(cursor.fetchall())
    return not left


def sweep_expired(*, now: datetime, limit: int = 200) -> int:
    """Void up to `limit` holds that have expired, each in its own transaction. Returns how many."""
    due = Hold.objects.filter(expires_at__lte=now).order_by("expires_at")
    return each(
        due,
        lambda pending_id: _void_expired(pending_id, now),
        now=now,
        limit=limit,
        log=logger,
        what="expiry of hold",
    )


def _void_expired(pending_id: uuid.UUID, now: datetime) -> bool:
    with durable():
        try:
            void_pending(pending_id, now=now)
        except HoldResolved:  # posted or voided by somebody else meanwhile
            return False
    return True


def leaf_body(transfer: Transfer) -> dict[str, Any]:
    """What the log says of a transfer: accounts as pid/purpose/asset; no memo."""
    return _body(
        transfer.id,
        transfer.phase,
        debit=transfer.debit.code,
        credit=transfer.credit.code,
        amount_micro=transfer.amount_micro,
        kind=transfer.kind,
        ref=(transfer.ref_type, transfer.ref_id) if transfer.ref_type else None,
        pending=transfer.pending_id,
    ) | dict(transfer.said or {})


def _body(
    id_: uuid.UUID,
    phase: str,
    *,
    debit: str,
    credit: str,
    amount_micro: int,
    kind: str,
    ref: tuple[str, Any] | None,
    pending: uuid.UUID | None = None,
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": str(id_),
        "debit": debit,
        "credit": credit,
        "amount_micro": str(amount_micro),
        "phase": str(phase),
        "kind": kind,
        "ref": f"{ref[0]}:{ref[1]}" if ref else None,
    }
    return body | ({"pending": str(pending)} if pending else {})


def leaf_tail(transfer: Transfer) -> str:
    """A leaf's canonical text without its first key: the time is known under the locks only.

    Sorted, "at" comes first: `{"at":<ms>` and this are `log.leaf_bytes`.
    """
    return _tail(leaf_body(transfer))


def _tail(body: dict[str, Any]) -> str:
    rest = {"v": 1, "type": LEAF_TYPE, "body": body}
    return "," + wire.canonical(rest).decode()[1:]


def pended(hold_id: uuid.UUID, *, said: Mapping[str, Any], **leg: Any) -> str:
    """The tail of a hold's leaf, for a statement that has the SQL function write it: `debit` and
    `credit` by their accounts' codes, `amount_micro`, `kind` and `ref` as a Leg has them."""
    return _tail(_body(hold_id, Phase.PEND, **leg) | dict(said))


class Posted(NamedTuple):
    """The transfer that posts a hold in full: its id, and the tail of its leaf."""

    id: uuid.UUID
    tail: str


def posted(hold_id: uuid.UUID, **leg: Any) -> Posted:
    """For a statement that has the SQL function post this hold; as `pended`."""
    id_ = resolution_id(hold_id)
    return Posted(id_, _tail(_body(id_, Phase.POST, pending=hold_id, **leg)))


def resolution_id(hold_id: uuid.UUID) -> uuid.UUID:
    """A hold is resolved once, by the transfer of this id."""
    return uuid.uuid5(hold_id, "resolution")


def _single(leg: Leg) -> Transfer:
    ref_type, ref_id = leg.ref or ("", "")
    transfer = Transfer(
        id=leg.id,
        debit=leg.debit_account,
        credit=leg.credit_account,
        amount_micro=leg.amount_micro,
        kind=leg.kind,
        phase=Phase.SINGLE,
        ref_type=ref_type,
        ref_id=str(ref_id),
        memo=leg.memo,
    )
    transfer.said = leg.said
    return transfer


def _pending(pending_id: uuid.UUID) -> Transfer:
    pending = _named().filter(id=pending_id, phase=Phase.PEND).first()
    if pending is None:
        raise HoldNotFound(id=str(pending_id))
    return pending


def _named() -> Any:
    """Transfers with what their leaves say of their accounts."""
    return Transfer.objects.select_related(
        "debit__owner", "debit__asset", "credit__owner", "credit__asset"
    )


def _resolution(pending: Transfer, phase: Phase, amount_micro: int) -> Transfer:
    return Transfer(
        id=resolution_id(pending.id),
        debit=pending.debit,
        credit=pending.credit,
        amount_micro=amount_micro,
        kind=pending.kind,
        phase=phase,
        pending=pending,
        ref_type=pending.ref_type,
        ref_id=pending.ref_id,
    )


class _Outcome(NamedTuple):
    """What the function answers; `place` counts from 1."""

    code: str
    place: int | None
    account: uuid.UUID | None
    short_micro: Decimal | None
    detail: str | None
    at: datetime


def _write(
    transfers: list[Transfer], *, now: datetime, events: Sequence[Event] = ()
) -> list[Transfer]:
    require_transaction("ledger.post")
    if not transfers:
        return []
    outcome = _call(transfers, now, events)
    debits = {t.debit_id for t in transfers}
    if outcome.code == "insufficient_balance" and free_expired(debits, now=now):
        outcome = _call(transfers, now, events)
    if outcome.code == "exists":
        found = _named().in_bulk([t.id for t in transfers])
        return [found[t.id] for t in transfers]
    if outcome.code != "written":
        raise _error(outcome, transfers)
    _written(transfers, outcome.at)
    return transfers


def _written(transfers: Sequence[Transfer], at: datetime) -> None:
    for transfer in transfers:
        transfer.created_at = at
        transfer._state.adding, transfer._state.db = False, connection.alias
    sides = [side for t in transfers for side in (t.debit, t.credit)]
    treasuries = {f"treasury:{side.owner_id}" for side in sides if side.purpose == "treasury"}
    changed(*treasuries, *{f"wallet:{side.owner_id}" for side in sides})


def _call(transfers: list[Transfer], now: datetime, events: Sequence[Event]) -> _Outcome:
    places: dict[uuid.UUID, int] = {}
    for transfer in transfers:
        for id_ in (transfer.debit_id, transfer.credit_id):
            places.setdefault(id_, len(places) + 1)
    columns = (
        ("uuid", list(places)),
        ("uuid", [t.id for t in transfers]),
        ("int", [places[t.debit_id] for t in transfers]),
        ("int", [places[t.credit_id] for t in transfers]),
        ("numeric", [t.amount_micro for t in transfers]),
        ("text", [t.kind for t in transfers]),
        ("text", [str(t.phase) for t in transfers]),
        ("uuid", [t.pending_id for t in transfers]),
        ("timestamptz", [t.expires_at for t in transfers]),
        ("text", [t.ref_type for t in transfers]),
        ("text", [t.ref_id for t in transfers]),
        ("text", [t.memo for t in transfers]),
    )
    arrays = ", ".join(f"%s::{type_}[]" for type_, _ in columns)
    # As one text: canonical JSON has no line breaks, and an array would escape every quote twice.
    tails = "\n".join(leaf_tail(t) for t in transfers)
    rows = json.dumps([outbox_row(event) for event in events]) if events else None
    try:
        [answer] = prepared(
            f"SELECT * FROM {FUNCTION}"
            f"({arrays}, string_to_array(%s, chr(10)), %s::timestamptz, %s::jsonb)",
            [*(values for _, values in columns), tails, now, rows],
        )
    except IntegrityError as error:  # the same id on other accounts, not under our locks
        if "wallets_transfer_pkey" not in str(error):
            raise
        raise TransferConflict(id=str(transfers[0].id)) from None
    return _Outcome(*answer)


def _error(outcome: _Outcome, transfers: list[Transfer]) -> Exception:
    assert outcome.place is not None
    transfer = transfers[outcome.place - 1]
    return refusal(outcome.code, transfer, short_micro=outcome.short_micro, detail=outcome.detail)


def refusal(
    code: str,
    transfer: Transfer,
    *,
    short_micro: Decimal | int | None = None,
    detail: str | None = None,
) -> Exception:
    """What the SQL function says of a transfer that it did not write."""
    match code:
        case "transfer_conflict":
            return TransferConflict(id=str(transfer.id))
        case "hold_not_found":
            return HoldNotFound(id=str(transfer.pending_id))
        case "hold_resolved":
            done = "posted" if detail == Phase.POST else "voided"
            return HoldResolved(id=str(transfer.pending_id), phase=done)
        case "hold_expired":
            return HoldExpired(id=str(transfer.pending_id))
        case "insufficient_balance":
            return _short(transfer.debit, int(short_micro or 0))
    return rule_error(code)


def _short(account: Account, short_micro: int) -> Exception:
    if account.purpose == "issuance":
        return CapExceeded(asset=account.asset.code)
    return InsufficientBalance(
        short_micro=str(short_micro),
        short=f"{short_micro // 1_000_000:,}.{short_micro % 1_000_000:06d}",
        asset=account.asset.code,
        purpose=account.purpose,
        top_up=TOP_UP,
    )


def free_expired(account_ids: Collection[uuid.UUID], *, now: datetime) -> bool:
    """Void the expired holds on these accounts: such a hold is free at read time. For the writers
    here, and for who calls the SQL function in a statement of its own.

    Only debit sides can be short, and a void changes nothing else. Returns whether there were any:
    some may be freed by somebody else by the time that their accounts are locked.
    """
    expired = _named().filter(hold__account__in=account_ids, hold__expires_at__lte=now)
    found = list(expired)
    if not found:
        return False
    # The payers alone, as `wallets_write` does for a void: a payee is often everybody's.
    lock(p.debit for p in found)
    left = expired.filter(id__in=[p.id for p in found])
    voids = [_resolution(p, Phase.VOID, p.amount_micro) for p in left]
    if voids and (outcome := _call(voids, now, ())).code != "written":
        raise _error(outcome, voids)
    return True
