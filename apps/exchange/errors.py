"""Broken rules of pools and vaults, with texts safe to show.

Which of several is named: the first in `apps.protocol.pool.PRECEDENCE`, of a vault in
`apps.protocol.vault.PRECEDENCE`; then those of the ledger. Nothing is written then.
"""

from __future__ import annotations

from typing import Any

from apps.core.errors import (
    BadInput,
    Conflict,
    DomainError,
    NotFound,
    PaymentRequired,
    Unprocessable,
)
from apps.protocol.pool import PoolRule
from apps.protocol.vault import VaultRule


class PoolExists(Conflict):
    code = "pool_exists"
    text = "There is a pool of {base} already. Add your liquidity to it."


class PoolNotFound(NotFound):
    code = "pool_not_found"
    text = "There is no pool of this token yet."


class NotTradable(BadInput):
    code = "not_tradable"
    text = "A pool trades FLAI or the SDT of a SubDAO against USDC."


class NotStakeable(BadInput):
    code = "not_stakeable"
    text = "Only FLAI and the SDT of a SubDAO can be staked."


class LockTooLong(BadInput):
    code = "lock_too_long"
    text = "A stake can be locked for a year at most."


class NothingStaked(Conflict):
    code = "nothing_staked"
    text = "There is nothing staked or on its way out that could be slashed."


_RULES: dict[str, tuple[type[DomainError], str]] = {
    "amount_not_positive": (BadInput, "The amount must be greater than zero."),
    "amount_too_large": (BadInput, "The amount is too large."),
    "quote_expired": (
        Conflict,
        "The quote has expired. Nothing was traded; look at the new one and try again.",
    ),
    "pool_empty": (Conflict, "The pool has no liquidity yet."),
    "minimum_liquidity": (
        Unprocessable,
        "This is less than the liquidity that stays in a pool for ever.",
    ),
    "insufficient_shares": (PaymentRequired, "You have only {got} micro-shares of this pool."),
    "pool_overflow": (Unprocessable, "The pool cannot hold this much."),
    "insufficient_liquidity": (Unprocessable, "This amount is worth nothing in the pool."),
    "slippage_exceeded": (
        Conflict,
        "The price has moved beyond your limit: you would get {got} micro-units now. Nothing was"
        " traded.",
    ),
    "vault_empty": (Conflict, "Nobody has staked in this vault who could earn this."),
    "stake_locked": (Conflict, "Your stake is locked. It can be taken out later."),
    "insufficient_stake": (PaymentRequired, "You have only {has} micro-units staked."),
    "vault_overflow": (Unprocessable, "The vault cannot hold this much."),
    "worth_no_share": (Unprocessable, "This is too little to be worth a share."),
}


def refused(broken: PoolRule | VaultRule) -> DomainError:
    """The error to show for a broken rule."""
    class_, text = _RULES[broken.code]
    facts: dict[str, Any] = {}
    if isinstance(broken, PoolRule) and "{got}" in text:
        facts = {"got": str(broken.got)}
    if isinstance(broken, VaultRule):
        if broken.code == "stake_locked":
            facts = {"locked_until_ms": broken.has}
        elif "{has}" in text:
            facts = {"has": str(broken.has)}
    return class_(broken.code, text.format_map(facts), **facts)
