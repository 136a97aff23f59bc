"""Writers of wallets: `account`, `asset_create`, `mint` are inner; the others are services."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.conf import settings

from apps.accounts.models import Party
from apps.accounts.selectors import system_party
from apps.core.clock import now as clock_now
from apps.core.errors import BadInput, Forbidden, Unprocessable
from apps.core.ids import effect_of
from apps.core.joined import Joined, prepared
from apps.core.transactions import durable, require_transaction
from apps.protocol import consent as rules
from apps.wallets import keys, ledger, log
from apps.wallets.errors import NotReversible, TransferNotFound
from apps.wallets.ledger import Leg
from apps.wallets.models import PURPOSES, Account, Asset, Transfer
from apps.wallets.selectors import asset_by_code

FAUCET_MAX_MICRO = 100_000 * 1_000_000
PAYEES = (Party.Kind.PERSON, Party.Kind.ORGANISATION)


_ACCOUNTS_OF = """
FROM wallets_asset s JOIN wallets_account a ON a.asset_id = s.id
WHERE a.owner_id {} AND s.code = %s AND a.purpose = %s
"""
# PostgreSQL keeps no plan for a list of unknown length: one owner is looked up by itself.
_ACCOUNT = Joined(_ACCOUNTS_OF.format("= %s"), a=Account, s=Asset)
_ACCOUNTS = Joined(_ACCOUNTS_OF.format("= ANY(%s)"), a=Account, s=Asset)


_MAKE = """
INSERT INTO wallets_account (id, created_at, owner_id, asset_id, purpose, posted_micro, held_micro,
    floor_micro)
SELECT gen_random_uuid(), %s::timestamptz, o.id, s.id, %s, 0, 0, 0
FROM unnest(%s::uuid[]) WITH ORDINALITY AS o(id, k), wallets_asset s WHERE s.code = %s ORDER BY o.k
ON CONFLICT DO NOTHING RETURNING id
"""


def account(owner: Party, asset: Asset | str, purpose: str = "main") -> Account:
    """The account of `owner` in `asset` (or its code) for `purpose`, made if missing."""
    if purpose not in PURPOSES:
        raise ValueError(f"{purpose!r} is no purpose of an account")
    code = asset if isinstance(asset, str) else asset.code
    row = _ACCOUNT.first(owner.id, code, purpose)
    if row is not None:
        found, asset = row
    else:
        asset = asset_by_code(asset) if isinstance(asset, str) else asset
        floor_micro = -asset.cap_micro if purpose == "issuance" else 0
        found, _ = Account.objects.get_or_create(
            owner=owner, asset=asset, purpose=purpose, defaults={"floor_micro": floor_micro}
        )
    found.owner, found.asset = owner, asset
    return found


def accounts(
    owners: Collection[Party], asset: Asset | str, purpose: str = "main"
) -> dict[uuid.UUID, Account]:
    """{party id: its account} as `account` gives it, in a constant number of queries; no account
    that issues.

    Raises NotFound: there is no such asset.
    """
    code = asset if isinstance(asset, str) else asset.code
    by_id = {owner.id: owner for owner in owners}
    rows = _ACCOUNTS.all(list(by_id), code, purpose)
    lacking = sorted(set(by_id) - {row.owner_id for row, _ in rows})
    if lacking:
        if not prepared(_MAKE, (clock_now(), purpose, lacking, code)):
            asset_by_code(code)  # there is none, or somebody else was quicker
        rows = _ACCOUNTS.all(list(by_id), code, purpose)
    for row, held in rows:
        row.owner, row.asset = by_id[row.owner_id], held
    return {row.owner_id: row for row, _ in rows}


def account_close(account: Account, *, now: datetime) -> Account:
    """Inner writer: from now on this account takes part in nothing. Leaf "wallets.closed".

    Raises: BadInput for an account that issues, or that still holds something.
    """
    locked = ledger.lock([account])[account.id]
    if locked.purpose == "issuance":
        raise BadInput("account_issues", "The account that issues an asset stays open.")
    if locked.posted_micro or locked.held_micro:
        raise BadInput("account_not_empty", "Only an empty account can be closed.")
    if locked.closed_at is None:
        locked.closed_at = now
        locked.save(update_fields=["closed_at"])
        log.append("wallets.closed", {"id": locked.code}, now=now)
    return locked


def asset_create(*, code: str, name: str, cap_micro: int, now: datetime) -> Asset:
    """A new asset with a supply cap, its issuance account, its leaf "wallets.asset".

    Raises BadInput when the code is taken.
    """
    require_transaction("wallets.services.asset_create")
    asset, made = Asset.objects.get_or_create(
        code=code, defaults={"name": name, "cap_micro": cap_micro, "created_at": now}
    )
    if not made:
        raise BadInput("asset_exists", f"There is an asset {code} already.")
    account(system_party("protocol"), asset, "issuance")
    log.append("wallets.asset", {"id": code, "cap_micro": str(cap_micro)}, now=now)
    return asset


def mint(
    asset: Asset | str,
    to_account: Account,
    amount_micro: int,
    ref: tuple[str, Any] | None,
    now: datetime,
    *,
    kind: str = "wallets.mint",
    transfer_id: uuid.UUID | None = None,
) -> Transfer:
    """Issue `amount_micro` to `to_account`. Raises CapExceeded beyond the asset's cap."""
    issuance = account(system_party("protocol"), asset, "issuance")
    leg = Leg(
        id=transfer_id or uuid.uuid4(),
        debit_account=issuance,
        credit_account=to_account,
        amount_micro=amount_micro,
        kind=kind,
        ref=ref,
    )
    return ledger.post([leg], now=now)[0]


def send(
    *,
    party: Party,
    to: Party,
    asset: str,
    amount_micro: int,
    memo: str = "",
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> Transfer:
    """Pay from one party's main account to another's.

    idempotency (here and below): the same one again, from the same party, returns the transfer that
    exists, or raises TransferConflict when it was another payment's.

    consent (here and below): by what the request acts; a bound wallet key must have signed it. The
    memo is the two parties' note and not signed.

    Raises Unprocessable for a payee that nobody signs in for: the money would lie there for ever;
    what `keys.grant` raises.
    """
    if to.kind not in PAYEES:
        raise Unprocessable("not_a_payee", "Only people and organisations can be paid.", field="to")
    now = now or clock_now()
    made_id = effect_of(party.id, rules.SEND, idempotency)
    if consent.signed is None:
        made = ledger.pay(
            made_id,
            payer=party,
            payee=to,
            asset=asset,
            amount_micro=amount_micro,
            kind=rules.SEND,
            memo=memo,
            said={"auth": consent.auth},
            now=now,
        )
        if made is not None:
            return made
    asked = rules.send_payload(to=to.pid, asset=asset, amount_micro=amount_micro)
    with durable():
        said = granted(made_id, party, rules.SEND, asked, consent, now)
        debit, credit = _mains(asset, party, to)
        leg = Leg(
            id=made_id,
            debit_account=debit,
            credit_account=credit,
            amount_micro=amount_micro,
            kind=rules.SEND,
            memo=memo,
            said=said,
        )
        return ledger.post([leg], now=now)[0]


def granted(
    made_id: uuid.UUID,
    party: Party,
    kind: str,
    asked: dict[str, str],
    consent: keys.Consent,
    now: datetime,
) -> dict[str, Any] | None:
    """Inner writer: as `keys.grant`. What was made already needs no consent again: its nonce is
    spent, and the ledger compares the rest."""
    if consent.signed is not None and Transfer.objects.filter(id=made_id).exists():
        return None
    return keys.grant(party, kind, asked, consent, now=now)


def give_back(
    *,
    party: Party,
    transfer_id: uuid.UUID,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> Transfer:
    """Reverse a payment that `party` received by `send`. Once; again returns the same reversal.

    What other services paid (a pledge, a payout) only they can take back: others count on it.

    Raises: TransferNotFound (for somebody else's too), NotReversible, InsufficientBalance.
    """
    now = now or clock_now()
    with durable():
        received = Transfer.objects.filter(id=transfer_id, credit__owner=party).first()
        if received is None:
            raise TransferNotFound(id=str(transfer_id))
        if received.kind != "wallets.send":
            raise NotReversible(id=str(transfer_id))
        asked = rules.give_back_payload(transfer=str(transfer_id))
        said = granted(ledger.reversal_id(transfer_id), party, rules.GIVE_BACK, asked, consent, now)
        return ledger.reverse(transfer_id, said=said, now=now)


def _mains(asset: str, *owners: Party) -> list[Account]:
    """The main accounts of `owners`, by one query where they exist already."""
    by_id = {owner.id: owner for owner in owners}
    found = {}
    for row, held in _ACCOUNTS.all(list(by_id), asset, "main"):
        row.owner, row.asset = by_id[row.owner_id], held
        found[row.owner_id] = row
    return [found.get(owner.id) or account(owner, asset) for owner in owners]


def faucet(
    *,
    party: Party,
    asset: str,
    amount_micro: int,
    idempotency: uuid.UUID | None = None,
    now: datetime | None = None,
) -> Transfer:
    """Test tokens, FLAI or USDC, at most 100 000 a call, where the site has its faucet on.

    Raises Forbidden (faucet off), BadInput (asset, amount).
    """
    if not settings.FAUCET:
        raise Forbidden("faucet_off", "This site has no faucet.")
    if asset not in ("FLAI", "USDC"):
        raise BadInput("faucet_asset", "The faucet gives FLAI and USDC only.")
    if amount_micro > FAUCET_MAX_MICRO:
        raise BadInput("faucet_limit", "The faucet gives at most 100 000 tokens a call.")
    now = now or clock_now()
    with durable():
        target = account(party, asset)
        made_id = effect_of(party.id, "wallets.faucet", idempotency)
        return mint(
            asset, target, amount_micro, None, now, kind="wallets.faucet", transfer_id=made_id
        )
