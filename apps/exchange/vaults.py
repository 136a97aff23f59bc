"""Services of vaults: stake, unstake, release, reward, slash.

A stake lies on its owner's own "staked" account, where votes and revenue count it; the vault's
account ("vault") holds what was earned and not touched yet. Unstaking moves tokens to "unstaking"
at once (no weight any more) and to "main" after a delay, during which a vote can still slash them.
All writers of a vault lock its row first. Leaf "exchange.vault_changed", one a change.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from django.conf import settings

from apps.accounts.models import Party
from apps.accounts.selectors import system_party
from apps.accounts.services import party_create
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.ids import effect_of
from apps.core.live import changed
from apps.core.sweeping import each
from apps.core.transactions import durable, require_transaction
from apps.exchange.errors import LockTooLong, NothingStaked, NotStakeable, refused
from apps.exchange.models import Unstaking, Vault, VaultPosition
from apps.protocol import consent as signing
from apps.protocol import vault as rules
from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.vault import VaultRule
from apps.wallets import keys, ledger, log
from apps.wallets.ledger import Leg
from apps.wallets.models import Account, Asset, Transfer
from apps.wallets.selectors import asset_by_code
from apps.wallets.services import account, asset_create, granted

logger = logging.getLogger(__name__)
SDT_PREFIX = "SDT-"
REF = "exchange.vault"
RELEASE_REF = "exchange.unstaking"
SLASH_REF = "exchange.slash"
LOCK_S_MAX = 366 * 86_400


def stake(
    *,
    party: Party,
    asset: str,
    amount_micro: int,
    lock_s: int = 0,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> Transfer:
    """Move from main to staked for shares of the vault; not to be taken out for `lock_s`.

    idempotency (here and below): the same one again, from the same party, returns the transfer that
    exists, or raises TransferConflict when it was another amount's.

    consent (here and below): by what the request acts; a bound wallet key must have signed it.

    Raises: NotStakeable, LockTooLong, the rules of a vault, InsufficientBalance.
    """
    if not 0 <= lock_s <= LOCK_S_MAX:
        raise LockTooLong()
    now = now or clock_now()
    id_ = effect_of(party.id, signing.STAKE, idempotency)
    asked = signing.stake_payload(asset=asset, amount_micro=amount_micro, lock_s=lock_s)
    with durable():
        said = granted(id_, party, signing.STAKE, asked, consent, now)
        vault = _vault(asset, now)
        main = Leg(
            id=id_,
            debit_account=account(party, vault.asset),
            credit_account=account(party, vault.asset, "staked"),
            amount_micro=amount_micro,
            kind=signing.STAKE,
            ref=(REF, id_),
            said=dict(said or {}) | ({"lock_s": str(lock_s)} if lock_s else {}),
        )
        if done := _exists(main, now):
            return done
        until = unix_ms(now) + 1000 * lock_s if lock_s else 0
        return _change(
            vault, party, "stake", main, now,
            lambda state, position: rules.stake(
                state, position, amount_micro, locked_until_ms=until
            ),
        )  # fmt: skip


def unstake(
    *,
    party: Party,
    asset: str,
    amount_micro: int,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> Transfer:
    """Begin to take staked tokens back: they are free again after the vault's delay.

    Raises: NotStakeable, the rules of a vault (a lock, too little staked).
    """
    now = now or clock_now()
    id_ = effect_of(party.id, signing.UNSTAKE, idempotency)
    asked = signing.stake_payload(asset=asset, amount_micro=amount_micro)
    with durable():
        said = granted(id_, party, signing.UNSTAKE, asked, consent, now)
        vault = _vault(asset, now)
        main = Leg(
            id=id_,
            debit_account=account(party, vault.asset, "staked"),
            credit_account=account(party, vault.asset, "unstaking"),
            amount_micro=amount_micro,
            kind=signing.UNSTAKE,
            ref=(REF, id_),
            said=said,
        )
        if done := _exists(main, now):
            return done
        delay_s = settings.UNSTAKE_DELAY_S if vault.delay_s is None else vault.delay_s
        ready_at = now + timedelta(seconds=delay_s)
        made = _change(
            vault, party, "unstake", main, now,
            lambda state, position: rules.leave(
                state, position, amount_micro, at_ms=unix_ms(now)
            ),
            more={"ready_at": unix_ms(ready_at)},
        )  # fmt: skip
        Unstaking.objects.create(
            id=id_,
            vault=vault,
            party=party,
            amount_micro=amount_micro,
            ready_at=ready_at,
            created_at=now,
        )
        return made


def release(*, unstaking_id: uuid.UUID, now: datetime) -> bool:
    """Give back what has waited long enough; False when it is not due or was given back before."""
    with durable():
        row = (
            Unstaking.objects.select_for_update(of=("self",))
            .select_related("vault__asset", "party")
            .get(id=unstaking_id)
        )
        if row.released_at is not None or row.ready_at > now:
            return False
        # After this point it must succeed.
        if row.amount_micro:
            leg = Leg(
                id=uuid.uuid5(row.id, "release"),
                debit_account=account(row.party, row.vault.asset, "unstaking"),
                credit_account=account(row.party, row.vault.asset),
                amount_micro=row.amount_micro,
                kind="exchange.release",
                ref=(RELEASE_REF, row.id),
            )
            ledger.post([leg], now=now)
        row.released_at = now
        row.save(update_fields=["released_at"])
    return True


def release_due(*, now: datetime, limit: int = 200) -> int:
    """Give back up to `limit` that are due, each in its own transaction. Returns how many."""
    due = Unstaking.objects.filter(released_at=None, ready_at__lte=now).order_by("ready_at")
    return each(
        due,
        lambda id_: release(unstaking_id=id_, now=now),
        now=now,
        limit=limit,
        log=logger,
        what="release of unstaking",
    )


def reward(
    *,
    party: Party,
    asset: str,
    amount_micro: int,
    idempotency: uuid.UUID | None = None,
    consent: keys.Consent = keys.SESSION,
    now: datetime | None = None,
) -> Transfer:
    """Give tokens to all who stake now, by their shares.

    Raises: NotStakeable, the rules of a vault (nobody stakes), InsufficientBalance.
    """
    now = now or clock_now()
    id_ = effect_of(party.id, signing.REWARD, idempotency)
    asked = signing.stake_payload(asset=asset, amount_micro=amount_micro)
    with durable():
        said = granted(id_, party, signing.REWARD, asked, consent, now)
        vault = _vault(asset, now)
        main = Leg(
            id=id_,
            debit_account=account(party, vault.asset),
            credit_account=account(vault.party, vault.asset, "vault"),
            amount_micro=amount_micro,
            kind=signing.REWARD,
            ref=(REF, id_),
            said=said,
        )
        if done := _exists(main, now):
            return done
        try:
            after = rules.reward(vault.state, amount_micro)
        except VaultRule as broken:
            raise refused(broken) from None
        [made] = ledger.post([main], now=now)
        _keep(vault, after)
        body = {
            "id": str(id_),
            "vault": vault.party.pid,
            "kind": "reward",
            "party": party.pid,
            "amount_micro": str(amount_micro),
        }
        log.append("exchange.vault_changed", body, now=now)
        return made


@dataclass(frozen=True)
class Slashed:
    staked_micro: int
    unstaking_micro: int


def slash(
    *,
    party: Party,
    asset: Asset,
    amount_micro: int,
    dao: Any,
    proposal_id: uuid.UUID,
    now: datetime,
    cites: Mapping[str, str] = MappingProxyType({}),
) -> Slashed:
    """Inner writer: by vote, up to `amount_micro` of a party's stake goes to the treasury, first
    what is staked (no lock protects it), then what is on its way out, soonest first.

    cites: what else of the payload was voted on, for the log. Raises NothingStaked.
    """
    require_transaction("exchange.slash")
    vault = _vault(asset.code, now)
    position, outside = _position(vault, party)
    whole = _with_outside(vault.state, position.state, outside)
    staked = min(amount_micro, rules.worth(*whole))
    waiting = list(
        Unstaking.objects.select_for_update()
        .filter(vault=vault, party=party, released_at=None, amount_micro__gt=0)
        .order_by("ready_at", "id")
    )
    taken: dict[str, str] = {}
    rest = amount_micro - staked
    for row in waiting:
        part = min(rest, row.amount_micro)
        if part:
            taken[str(row.id)] = str(part)
            row.amount_micro, rest = row.amount_micro - part, rest - part
    unstaking = sum(map(int, taken.values()))
    if not staked + unstaking:
        raise NothingStaked()
    treasury = account(dao.party, vault.asset, "treasury")
    facts = {
        "proposal": str(proposal_id),
        "dao": dao.party.pid,
        "asked_micro": str(amount_micro),
        "unstaking": taken,
    }
    # After this point it must succeed.
    if unstaking:
        Unstaking.objects.bulk_update(waiting, ["amount_micro"])
        leg = Leg(
            id=uuid.uuid5(proposal_id, "exchange.slash:unstaking"),
            debit_account=account(party, vault.asset, "unstaking"),
            credit_account=treasury,
            amount_micro=unstaking,
            kind="exchange.slash",
            ref=(SLASH_REF, proposal_id),
        )
        ledger.post([leg], now=now)
    if staked:
        id_ = uuid.uuid5(proposal_id, "exchange.slash")
        main = Leg(
            id=id_,
            debit_account=account(party, vault.asset, "staked"),
            credit_account=treasury,
            amount_micro=staked,
            kind="exchange.slash",
            ref=(REF, id_),
        )
        _change(
            vault, party, "slash", main, now,
            lambda state, position: rules.leave(
                state, position, staked, at_ms=unix_ms(now), forced=True
            ),
            more={"dao": dao.party.pid},
        )  # fmt: skip
    body = {"id": str(proposal_id), "party": party.pid, "asset": vault.asset.code, **facts, **cites}
    log.append("exchange.slashed", body | {"staked_micro": str(staked)}, now=now)
    return Slashed(staked, unstaking)


def stake_lock(party: Party, asset: Asset, *beside: Account) -> None:
    """Hold still what a party has staked, so that the log says so when it says what that unlocked.

    `beside`: the accounts that the same transaction goes on to lock; all are, in one order.
    """
    require_transaction("exchange.stake_lock")
    staked = Account.objects.filter(owner=party, asset=asset, purpose="staked")
    ledger.lock([*staked, *beside])


def stakeable(code: str) -> Asset:
    """The asset. Raises NotStakeable, NotFound."""
    if code != "FLAI" and not code.startswith(SDT_PREFIX):
        raise NotStakeable()
    return asset_by_code(code)


def _vault(code: str, now: datetime) -> Vault:
    """The vault of an asset, locked; made, with its party and shares, by the first who needs it."""
    require_transaction("exchange.vault")
    found = Vault.objects.select_for_update(of=("self",), no_key=True).select_related(
        "asset", "shares", "party"
    )
    vault = found.filter(asset__code=code).first()
    if vault is not None:
        return vault
    # Whoever makes the same vault meanwhile waits here.
    asset = Asset.objects.select_for_update(no_key=True).get(id=stakeable(code).id)
    vault = found.filter(asset=asset).first()
    if vault is not None:
        return vault
    party = party_create(kind=Party.Kind.SYSTEM, name=f"Vault {code}", now=now)
    shares = asset_create(
        code=f"ST-{code.removeprefix(SDT_PREFIX)}",
        name=f"Stake of {code}",
        cap_micro=AMOUNT_MAX,
        now=now,
    )
    delay_s = settings.UNSTAKE_DELAY_S
    vault = Vault.objects.create(
        asset=asset, shares=shares, party=party, delay_s=delay_s, created_at=now
    )
    body = {"id": str(vault.id), "vault": party.pid, "asset": code, "shares": shares.code}
    log.append("exchange.vault_opened", body | {"delay_s": delay_s}, now=now)
    return vault


def _exists(main: Leg, now: datetime) -> Transfer | None:
    """What a retry gets. Raises TransferConflict when the id is another movement's."""
    if not Transfer.objects.filter(id=main.id).exists():
        return None
    return ledger.post([main], now=now)[0]


def _position(vault: Vault, party: Party) -> tuple[VaultPosition, int]:
    """The position, and what was staked without the vault: before there was one."""
    position, _ = VaultPosition.objects.get_or_create(vault=vault, party=party)
    staked = Account.objects.filter(owner=party, asset=vault.asset, purpose="staked").first()
    outside = (staked.posted_micro if staked else 0) - position.principal_micro
    return position, outside


def _with_outside(
    vault: rules.Vault, position: rules.Position, outside: int
) -> tuple[rules.Vault, rules.Position]:
    if not outside:
        return vault, position
    joined = rules.stake(vault, position, outside)
    return joined.vault, joined.position


def _change(
    vault: Vault,
    party: Party,
    kind: str,
    main: Leg,
    now: datetime,
    rule: Callable[[rules.Vault, rules.Position], rules.Change],
    more: dict[str, Any] | None = None,
) -> Transfer:
    """Do what `rule` allows on a locked vault: `main`, then what the rules say beside it."""
    position, outside = _position(vault, party)
    try:
        before = _with_outside(vault.state, position.state, outside)
        change = rule(*before)
    except VaultRule as broken:
        raise refused(broken) from None
    earned = change.position.principal - position.principal_micro - outside
    earned -= main.amount_micro if kind == "stake" else -main.amount_micro
    shares = change.position.shares - position.shares_micro
    made = ledger.post(_legs(vault, party, main, earned, shares), now=now)
    # After this point it must succeed.
    _keep(vault, change.vault)
    position.principal_micro = change.position.principal
    position.shares_micro = change.position.shares
    position.locked_until_ms = change.position.locked_until_ms
    position.save(update_fields=["principal_micro", "shares_micro", "locked_until_ms"])
    body = {
        "id": str(main.id),
        "vault": vault.party.pid,
        "kind": kind,
        "party": party.pid,
        "amount_micro": str(main.amount_micro),
        "outside_micro": str(outside),
        "earned_micro": str(earned),
        "shares_micro": str(shares),
        "locked_until_ms": str(position.locked_until_ms),
    }
    log.append("exchange.vault_changed", body | (more or {}), now=now)
    return next(transfer for transfer in made if transfer.id == main.id)


def _legs(vault: Vault, party: Party, main: Leg, earned: int, shares: int) -> list[Leg]:
    """Earnings into the principal before, a unit lost by rounding out of it after `main`."""

    def beside(name: str, debit: Account, credit: Account, micro: int) -> list[Leg]:
        if micro < 0:
            debit, credit, micro = credit, debit, -micro
        leg = Leg(
            id=uuid.uuid5(main.id, name),
            debit_account=debit,
            credit_account=credit,
            amount_micro=micro,
            kind=f"exchange.{name}",
            ref=main.ref,
        )
        return [leg] if micro else []

    pot = account(vault.party, vault.asset, "vault")
    staked = account(party, vault.asset, "staked")
    earnings = beside("earned", pot, staked, earned)
    issuance = account(system_party("protocol"), vault.shares, "issuance")
    parts = beside("shares", issuance, account(party, vault.shares, "vault"), shares)
    return [*earnings, main, *parts] if earned > 0 else [main, *earnings, *parts]


def _keep(vault: Vault, after: rules.Vault) -> None:
    vault.assets_micro, vault.shares_micro = after.assets, after.shares
    vault.principal_micro = after.principal
    vault.save(update_fields=["assets_micro", "shares_micro", "principal_micro"])
    changed(f"vault:{vault.asset.code}")
