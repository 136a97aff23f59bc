"""The hot write of the ledger: lock, check, write transfers, balances and leaves.

Inner writers: they must be called inside the transaction of a service. The rules are
`apps.protocol.ledger`; here they meet rows. Every function locks its accounts once, in the order of
their ids, and costs a constant number of queries however many transfers it writes.

A transfer's id is its idempotency: the same id with the same content gets the same answer, with
other content `TransferConflict`. (The expiry of a hold and the time are not content: a retry comes
later and computes them anew.)
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction

from apps.core.sweeping import each
from apps.core.transactions import require_transaction
from apps.protocol import ledger as rules
from apps.protocol.ledger import Balance, Move, RuleBroken
from apps.wallets import log
from apps.wallets.errors import (
    CapExceeded,
    HoldExpired,
    HoldNotFound,
    HoldResolved,
    InsufficientBalance,
    TransferConflict,
    rule_error,
)
from apps.wallets.models import Account, Hold, Transfer

logger = logging.getLogger(__name__)
LEAF_TYPE = "wallets.transfer"
Phase = Transfer.Phase


@dataclass(frozen=True)
class Leg:
    """One transfer to be made: `id` is chosen by the caller, `ref` is (type, id) of its cause."""

    debit_account: Account
    credit_account: Account
    amount_micro: int
    kind: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    ref: tuple[str, Any] | None = None
    memo: str = ""


def post(transfers: Sequence[Leg], *, now: datetime) -> list[Transfer]:
    """Transfer at once, all legs or none, in order. Returns the transfers in that order.

    Raises: InsufficientBalance, CapExceeded, TransferConflict, BadInput by the precedence of
    `apps.protocol.ledger`; nothing is written then.
    """
    return _write([_single(leg) for leg in transfers], now=now)


def pend(leg: Leg, *, expires_at: datetime, now: datetime) -> Transfer:
    """Hold `leg.amount_micro` on the debit account until posted, voided or `expires_at`.

    Raises: as `post`; ValueError for an expiry that is not in the future.
    """
    if expires_at <= now:
        raise ValueError("a hold must expire in the future")
    transfer = _single(leg)
    transfer.phase, transfer.expires_at = Phase.PEND, expires_at
    return _write([transfer], now=now)[0]


def post_pending(
    pending_id: uuid.UUID, *, amount_micro: int | None = None, now: datetime
) -> Transfer:
    """Resolve a hold by paying `amount_micro` ≤ held (default all of it); the rest is free again.

    Raises: HoldNotFound, HoldResolved (also for another amount), HoldExpired, PostOverHold.
    """
    pending = _pending(pending_id)
    amount_micro = pending.amount_micro if amount_micro is None else amount_micro
    return _resolve(pending, Phase.POST, amount_micro, now=now)


def void_pending(pending_id: uuid.UUID, *, now: datetime) -> Transfer:
    """Resolve a hold by freeing all of it; an expired one too.

    Raises: HoldNotFound, HoldResolved.
    """
    pending = _pending(pending_id)
    return _resolve(pending, Phase.VOID, pending.amount_micro, now=now)


def lock(accounts: Iterable[Account]) -> dict[uuid.UUID, Account]:
    """Lock accounts in id order, for a service that will call several writers on them."""
    require_transaction("ledger.lock")
    return _lock({a.id for a in accounts})


def sweep_expired(*, now: datetime, limit: int = 200) -> int:
    """Void up to `limit` holds that have expired, each in its own transaction. Returns how many."""
    due = Hold.objects.filter(expires_at__lte=now).order_by("expires_at")
    return each(
        due.values_list("transfer_id", flat=True)[:limit],
        lambda pending_id: _void_expired(pending_id, now),
        log=logger,
        what="expiry of hold",
    )


def _void_expired(pending_id: uuid.UUID, now: datetime) -> bool:
    with transaction.atomic():
        try:
            void_pending(pending_id, now=now)
        except HoldResolved:  # posted or voided by somebody else meanwhile
            return False
    return True


def leaf_body(transfer: Transfer) -> dict[str, Any]:
    """What the log says of a transfer: accounts as pid/purpose/asset; no memo."""
    body: dict[str, Any] = {
        "id": str(transfer.id),
        "debit": transfer.debit.code,
        "credit": transfer.credit.code,
        "amount_micro": str(transfer.amount_micro),
        "phase": str(transfer.phase),
        "kind": transfer.kind,
        "ref": f"{transfer.ref_type}:{transfer.ref_id}" if transfer.ref_type else None,
    }
    if transfer.pending_id:
        body["pending"] = str(transfer.pending_id)
    return body


def _single(leg: Leg) -> Transfer:
    ref_type, ref_id = leg.ref or ("", "")
    return Transfer(
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


def _pending(pending_id: uuid.UUID) -> Transfer:
    named = Transfer.objects.select_related("credit__owner", "credit__asset")
    pending = named.filter(id=pending_id, phase=Phase.PEND).first()
    if pending is None:
        raise HoldNotFound(id=str(pending_id))
    return pending


def _resolve(pending: Transfer, phase: Phase, amount_micro: int, *, now: datetime) -> Transfer:
    require_transaction("ledger.post_pending")
    accounts = {pending.credit_id: pending.credit}
    accounts |= _lock({pending.debit_id} | ({pending.credit_id} if phase == Phase.POST else set()))
    resolution = Transfer.objects.filter(pending=pending).first()
    if resolution is not None:
        if (resolution.phase, resolution.amount_micro) == (phase, amount_micro):
            return resolution
        done = "posted" if resolution.phase == Phase.POST else "voided"
        raise HoldResolved(id=str(pending.id), phase=done)
    if phase == Phase.POST and pending.expires_at <= now:
        raise HoldExpired(id=str(pending.id))
    transfer = _resolution(pending, phase, amount_micro)
    return _checked_write([transfer], accounts, now=now)[0]


def _resolution(pending: Transfer, phase: Phase, amount_micro: int) -> Transfer:
    return Transfer(
        id=uuid.uuid5(pending.id, "resolution"),
        debit_id=pending.debit_id,
        credit=pending.credit,
        amount_micro=amount_micro,
        kind=pending.kind,
        phase=phase,
        pending=pending,
        ref_type=pending.ref_type,
        ref_id=pending.ref_id,
    )


def _write(transfers: list[Transfer], *, now: datetime) -> list[Transfer]:
    require_transaction("ledger.post")
    if not transfers:
        return []
    # A pend changes its debit side only: the payee, often everybody's, is not waited for.
    accounts = {t.credit_id: t.credit for t in transfers if t.phase == Phase.PEND}
    accounts |= _lock(
        {t.debit_id for t in transfers} | {t.credit_id for t in transfers if t.phase != Phase.PEND}
    )
    written = _already_written(transfers)
    return written or _checked_write(transfers, accounts, now=now)


def _lock(ids: set[uuid.UUID]) -> dict[uuid.UUID, Account]:
    rows = (
        Account.objects.filter(id__in=ids)
        .select_related("owner", "asset")
        .order_by("id")
        .select_for_update(of=("self",), no_key=True)
    )
    return {row.id: row for row in rows}


def _already_written(transfers: list[Transfer]) -> list[Transfer] | None:
    ids = [t.id for t in transfers]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise TransferConflict(id=str(twice))
    found = Transfer.objects.in_bulk(ids)
    if not found:
        return None
    for transfer in transfers:
        other = found.get(transfer.id)
        if other is None or _content(other) != _content(transfer):
            # A group exists whole or not at all; half of it is another group's.
            raise TransferConflict(id=str(transfer.id if other else next(iter(found))))
    return [found[i] for i in ids]


def _content(t: Transfer) -> tuple[Any, ...]:
    return (
        t.debit_id, t.credit_id, t.amount_micro, t.kind, str(t.phase), t.pending_id,
        t.ref_type, t.ref_id, t.memo,
    )  # fmt: skip


def _checked_write(
    transfers: list[Transfer], accounts: dict[uuid.UUID, Account], *, now: datetime
) -> list[Transfer]:
    """Check under the locks, then write transfers, balances, holds and leaves.

    `accounts` holds every account named; those whose balance changes are locked.
    """
    before = _balances(accounts)
    try:
        after = rules.apply(before, [_move(t) for t in transfers])
    except RuleBroken as broken:
        if broken.code != "insufficient_balance" or not _free_expired(accounts, now=now):
            raise _error(broken, accounts) from None
        return _checked_write(transfers, accounts, now=now)
    changed = [accounts[i] for i in after if after[i] != before[i]]
    # A row's time never runs backwards on any of its accounts, so that a balance at a time is one
    # prefix of the account's transfers.
    at = max([now, *(a.last_at for a in changed if a.last_at)])
    for transfer in transfers:
        transfer.created_at = at
        transfer.debit, transfer.credit = accounts[transfer.debit_id], accounts[transfer.credit_id]
    # After this point it must succeed.
    try:
        Transfer.objects.bulk_create(transfers)
    except IntegrityError as error:  # the same id on other accounts, which our locks don't cover
        if "wallets_transfer_pkey" not in str(error):
            raise
        raise TransferConflict(id=str(transfers[0].id)) from None
    _write_balances(changed, after, at)
    _write_holds(transfers)
    log.append_all([(LEAF_TYPE, leaf_body(t), t.id) for t in transfers], now=at)
    return transfers


def _balances(accounts: dict[uuid.UUID, Account]) -> dict[Any, Balance]:
    return {
        a.id: Balance(a.asset_id, a.posted_micro, a.held_micro, a.floor_micro)
        for a in accounts.values()
    }


def _move(t: Transfer) -> Move:
    hold_micro = t.pending.amount_micro if t.pending_id else 0
    return Move(t.debit_id, t.credit_id, t.amount_micro, str(t.phase), hold_micro)


def _error(broken: RuleBroken, accounts: dict[uuid.UUID, Account]) -> Exception:
    if broken.code != "insufficient_balance":
        return rule_error(broken)
    account = accounts[broken.account]
    if account.purpose == "issuance":
        return CapExceeded(asset=account.asset.code)
    return InsufficientBalance(
        short_micro=str(broken.short_micro),
        short=f"{broken.short_micro // 1_000_000:,}.{broken.short_micro % 1_000_000:06d}",
        asset=account.asset.code,
        purpose=account.purpose,
    )


def _free_expired(accounts: dict[uuid.UUID, Account], *, now: datetime) -> bool:
    """Void the expired holds on these accounts: an expired hold is free at read time.

    Only accounts whose rows are locked here can be short, and a void changes the debit side only.
    """
    expired = Transfer.objects.filter(
        hold__account__in=list(accounts), hold__expires_at__lte=now
    ).select_related("credit__owner", "credit__asset")
    voids = [_resolution(p, Phase.VOID, p.amount_micro) for p in expired]
    if voids:
        named = {v.credit_id: v.credit for v in voids} | accounts
        _checked_write(voids, named, now=now)
    return bool(voids)


def _write_balances(accounts: list[Account], after: dict[Any, Balance], at: datetime) -> None:
    ids, posted, held = [], [], []
    for account in accounts:
        balance = after[account.id]
        account.posted_micro, account.held_micro = balance.posted_micro, balance.held_micro
        account.last_at = at
        ids.append(account.id)
        posted.append(balance.posted_micro)
        held.append(balance.held_micro)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE wallets_account SET posted_micro = n.posted, held_micro = n.held, last_at = %s"
            " FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS n(id, posted, held)"
            " WHERE wallets_account.id = n.id",
            [at, ids, posted, held],
        )


def _write_holds(transfers: list[Transfer]) -> None:
    opened = [
        Hold(
            transfer=t, account_id=t.debit_id, amount_micro=t.amount_micro, expires_at=t.expires_at
        )
        for t in transfers
        if t.phase == Phase.PEND
    ]
    if opened:
        Hold.objects.bulk_create(opened)
    resolved = [t.pending_id for t in transfers if t.pending_id]
    if resolved:
        Hold.objects.filter(transfer_id__in=resolved).delete()
