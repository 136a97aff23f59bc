"""Inner writers of DAOs: founding, soul-bound points, parameters, epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from apps.accounts.models import Party
from apps.accounts.services import party_create
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Conflict
from apps.core.events import emit
from apps.core.live import changed
from apps.core.transactions import require_transaction
from apps.protocol import decay, wire
from apps.protocol.founding import SdtAllocation, SdtShares, terms_of
from apps.subdaos import emission, selectors
from apps.subdaos.events import PriceChanged, SubdaoFounded
from apps.subdaos.models import Dao, Epoch, SbgtCheckpoint, Sponsor
from apps.wallets import ledger, log
from apps.wallets.ledger import Leg
from apps.wallets.models import Account, Transfer
from apps.wallets.services import PAYEES, account, asset_create, mint

ASSET_PREFIX = "SDT-"


def found(
    *,
    slug: str,
    name: str,
    params: Mapping[str, Any],
    rfm_id: UUID,
    allocation: SdtAllocation[UUID],
    shares: SdtShares,
    pledged: Mapping[UUID, int],
    submitter: Party,
    escrow: Account,
    escrow_micro: int,
    members: Sequence[Party],
    parent: Dao | None = None,
    now: datetime,
) -> Dao:
    """Inner writer: a SubDAO with its party, SDT, treasury and first members, all at once.

    allocation: SDT by backer's party id, submitter, reserve, treasury (protocol.founding), from
    `shares` of the supply and what each backer `pledged`.
    escrow → treasury: `escrow_micro` USDC. members: one soul-bound point each, once per
    verified application. parent: whose model it forks. Everything lands in the transaction of
    the award, or nothing does.
    """
    require_transaction("subdaos.found")
    party = party_create(kind=Party.Kind.DAO, name=name, now=now)
    asset = asset_create(
        code=f"{ASSET_PREFIX}{slug}",
        name=f"SubDAO token of {name}"[:120],
        cap_micro=allocation.total,
        now=now,
    )
    dao = Dao.objects.create(
        party=party,
        slug=slug,
        name=name,
        kind=Dao.Kind.SUB,
        asset=asset,
        params=dict(params),
        rfm_ref=rfm_id,
        parent=parent,
        founded_at=now,
        created_at=now,
    )
    log.append(
        "subdaos.founded",
        {
            "dao": party.pid,
            "rfm": str(rfm_id),
            "sdt": asset.code,
            "supply_micro": str(allocation.total),
            "params": params_hash(dao),
            **terms_of(params),
            "shares": asdict(shares),
            "submitter": submitter.pid,
            **({"parent": parent.party.pid} if parent else {}),
        },
        now=now,
        ref=dao.id,
    )
    ref = ("subdaos.found", dao.id)
    ledger.post(
        [
            Leg(
                debit_account=escrow,
                credit_account=account(party, "USDC", "treasury"),
                amount_micro=escrow_micro,
                kind="rfms.award",
                ref=ref,
            )
        ],
        now=now,
    )
    backers = Party.objects.in_bulk(list(allocation.backers))
    parts = [
        (account(backers[party_id], asset), amount)
        for party_id, amount in sorted(allocation.backers.items())
    ]
    parts += [
        (account(submitter, asset), allocation.submitter),
        (account(party, asset, "reserve"), allocation.reserve),
        (account(party, asset, "treasury"), allocation.treasury),
    ]
    for target, amount_micro in parts:
        if amount_micro:
            mint(asset, target, amount_micro, ref, now, kind="subdaos.mint")
    Sponsor.objects.bulk_create(
        Sponsor(dao=dao, party_id=party_id, pledged_micro=micro)
        for party_id, micro in sorted(pledged.items())
    )
    for member in members:
        sbgt_mint(
            dao=dao,
            party=member,
            points_micro=decay.COMMITMENT_MICRO,
            reason="commitment",
            ref=str(rfm_id),
            now=now,
        )
    emit(SubdaoFounded(dao_id=str(dao.id), rfm_id=str(rfm_id)), now=now)
    return dao


def sbgt_set(
    *, dao: Dao, party: Party, points_micro: int, reason: str, ref: str = "", now: datetime
) -> SbgtCheckpoint:
    """Inner writer: π of `party` is `points_micro` from `now` on. There is no transfer."""
    require_transaction("subdaos.sbgt_set")
    dao_lock(dao)
    return _checkpoint(dao, party, points_micro, reason, ref, now)


def sbgt_mint(
    *, dao: Dao, party: Party, points_micro: int, reason: str, ref: str = "", now: datetime
) -> SbgtCheckpoint:
    """Inner writer: π′ = π + points_micro."""
    require_transaction("subdaos.sbgt_mint")
    dao_lock(dao)
    held = selectors.points_now(dao, party)
    return _checkpoint(dao, party, held + points_micro, reason, ref, now)


def sbgt_revoke(
    *, dao: Dao, party: Party, points_micro: int, proposal_id: UUID, now: datetime
) -> SbgtCheckpoint:
    """Inner writer: π′ = max(π − points_micro, 0), once, by vote. Nobody else gets them."""
    require_transaction("subdaos.sbgt_revoke")
    dao_lock(dao)
    left = decay.revoked(selectors.points_now(dao, party), points_micro)
    taken = {"taken_micro": str(points_micro)}
    return _checkpoint(dao, party, left, "revoked", str(proposal_id), now, taken)


def sbgt_convert(
    *, dao: Dao, party: Party, points_micro: int, conversion_id: UUID, now: datetime
) -> SbgtCheckpoint:
    """Inner writer: π′ = π − points_micro, which its owner gave up for tokens; nobody gets them.

    Raises ValueError for more than there is.
    """
    require_transaction("subdaos.sbgt_convert")
    dao_lock(dao)
    left = selectors.points_now(dao, party) - points_micro
    if left < 0 or points_micro <= 0:
        raise ValueError("a conversion takes some points, and no more than there are")
    taken = {"taken_micro": str(points_micro)}
    return _checkpoint(dao, party, left, "converted", str(conversion_id), now, taken)


VOTED_LATER = ("on_sale", "access", "portion_bps")  # no SubDAO is founded with them


def param_set(*, dao: Dao, key: str, value: Any, proposal_id: UUID, now: datetime) -> Dao:
    """Inner writer: change one parameter; the log keeps it, and the hash of all of them.

    value: of canonical form (no floats) and no free text.
    """
    require_transaction("subdaos.param_set")
    locked = dao_lock(dao)
    if key not in locked.params and key not in VOTED_LATER:
        raise Conflict("unknown_parameter", f"This SubDAO has no parameter “{key}”.")
    locked.params[key] = value
    locked.save(update_fields=["params"])
    dao.params = locked.params
    changed(f"subdao:{dao.id}")
    log.append(
        "subdaos.params",
        {
            "dao": locked.party.pid,
            "proposal": str(proposal_id),
            "key": key,
            "value": value,
            "params": params_hash(locked),
        },
        now=now,
        ref=dao.id,
    )
    if key == "price_micro":
        emit(PriceChanged(dao_id=str(dao.id), price_micro=str(value)), now=now)
    return dao


def payee(pid: str) -> Party:
    """Whom a treasury may pay. Raises BadInput for anybody else: the money would lie there."""
    party = Party.objects.filter(pid=pid, kind__in=PAYEES).first()
    if party is None:
        raise BadInput("not_a_payee", "Only people and organisations can be paid, by their pid.")
    return party


def treasury_pay(
    *, dao: Dao, to: Party, asset: str, amount_micro: int, proposal_id: UUID, now: datetime
) -> Transfer:
    """Inner writer: one payment a proposal. Raises InsufficientBalance."""
    require_transaction("subdaos.treasury_pay")
    leg = Leg(
        id=uuid5(proposal_id, "subdaos.pay"),
        debit_account=account(dao.party, asset, "treasury"),
        credit_account=account(to, asset),
        amount_micro=amount_micro,
        kind="subdaos.pay",
        ref=("governance.proposal", proposal_id),
    )
    [transfer] = ledger.post([leg], now=now)
    log.append(
        "subdaos.paid",
        {
            "dao": dao.party.pid,
            "proposal": str(proposal_id),
            "transfer": str(transfer.id),
            "to": to.pid,
            "asset": asset,
            "amount_micro": str(amount_micro),
        },
        now=now,
        ref=dao.id,
    )
    return transfer


def epoch_open(*, dao: Dao, now: datetime) -> Epoch:
    """Inner writer: the epoch that runs now; opened after the last one was closed."""
    require_transaction("subdaos.epoch_open")
    locked = dao_lock(dao)
    current = selectors.current_epoch(dao)
    if current is not None:
        return current
    changed(f"subdao:{dao.id}")
    last = Epoch.objects.filter(dao=dao).order_by("-number").first()
    return Epoch.objects.create(
        dao=dao,
        number=last.number + 1 if last else 1,
        starts_at=now,
        ends_at=now + timedelta(seconds=int(locked.params["epoch_s"])),
        created_at=now,
    )


def epoch_close(*, epoch: Epoch, dao: Dao, revenue_micro: int, now: datetime) -> Epoch:
    """Inner writer: nothing more is paid into it, once; the reserve releases its part.

    dao: locked before the epoch, with the parameters that the epoch is divided by.
    Raises Conflict when it is closed.
    """
    require_transaction("subdaos.epoch_close")
    locked = Epoch.objects.select_for_update().get(id=epoch.id)
    if locked.closed_at is not None:
        raise Conflict("epoch_closed", "This epoch is closed already.")
    locked.closed_at, locked.revenue_micro = now, revenue_micro
    locked.save(update_fields=["closed_at", "revenue_micro"])
    changed(f"subdao:{dao.id}")
    emission.release(epoch=locked, dao=dao, now=now)
    return locked


def epoch_divided(*, epoch: Epoch, settlement: dict[str, Any]) -> Epoch:
    """Inner writer: what its revenue became, once. Raises Conflict when that is known."""
    require_transaction("subdaos.epoch_divided")
    locked = Epoch.objects.select_for_update().get(id=epoch.id)
    if locked.closed_at is None or locked.settlement is not None:
        raise Conflict("epoch_divided", "This epoch is still open, or was divided before.")
    locked.settlement = settlement
    locked.save(update_fields=["settlement"])
    changed(f"subdao:{locked.dao_id}")
    return locked


def params_hash(dao: Dao) -> str:
    return wire.digest("flai/subdao-params/v1", dao.params)


def dao_lock(dao: Dao) -> Dao:
    """Inner writer: the DAO's row, locked until the transaction ends. Whoever changes points,
    parameters, epochs or rounds by what they are now locks it before reading them."""
    require_transaction("subdaos.dao_lock")
    return (
        Dao.objects.select_for_update(of=("self",), no_key=True)
        .select_related("party", "asset")
        .get(id=dao.id)
    )


def _checkpoint(
    dao: Dao,
    party: Party,
    points_micro: int,
    reason: str,
    ref: str,
    now: datetime,
    said: Mapping[str, str] | None = None,
) -> SbgtCheckpoint:
    last = SbgtCheckpoint.objects.filter(dao=dao, party=party).order_by("-at", "-id").first()
    # A member's time never runs backwards, so that the points at a time are one prefix.
    at = max(now, last.at) if last else now
    row = SbgtCheckpoint.objects.create(
        dao=dao, party=party, at=at, points_micro=points_micro, reason=reason, ref=ref
    )
    changed(f"subdao:{dao.id}", f"party:{party.id}")
    log.append(
        "subdaos.sbgt",
        {
            "dao": dao.party.pid,
            "party": party.pid,
            "points_micro": str(points_micro),
            "reason": reason,
            "ref": ref,
            "from": unix_ms(at),
            **(said or {}),
        },
        now=now,
        ref=f"sbgt:{row.id}",
    )
    return row
