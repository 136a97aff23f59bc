"""Broken rules of wallets, with texts safe to show."""

from __future__ import annotations

from apps.core.errors import BadInput, Conflict, DomainError, PaymentRequired


class InsufficientBalance(PaymentRequired):
    code = "insufficient_balance"
    text = (
        "The balance is short by {short} {asset} ({purpose}). Nothing was charged. "
        "Top up the account and try again."
    )


class CapExceeded(DomainError):
    code = "cap_exceeded"
    text = "This would issue more {asset} than its cap allows."


class TransferConflict(Conflict):
    code = "transfer_conflict"
    text = "The transfer {id} exists already with other content."


class TransferNotFound(DomainError):
    code = "transfer_not_found"
    status = 404
    text = "There is no transfer {id}."


class NotReversible(Conflict):
    code = "not_reversible"
    text = "The transfer {id} cannot be reversed: only a payment can, and a reversal cannot."


class HoldNotFound(DomainError):
    code = "hold_not_found"
    status = 404
    text = "There is no hold {id}."


class HoldResolved(Conflict):
    code = "hold_resolved"
    text = "The hold {id} was {phase} already."


class HoldExpired(Conflict):
    code = "hold_expired"
    text = "The hold {id} has expired; its amount is free again."


class PostOverHold(DomainError):
    code = "post_over_hold"
    status = 422
    text = "More than the held amount cannot be posted."


RULE_TEXTS = {
    "unknown_account": "An account of this transfer does not exist.",
    "amount_not_positive": "The amount must be greater than zero.",
    "amount_too_large": "The amount is too large.",
    "same_account": "An account cannot pay itself.",
    "asset_mismatch": "Both accounts must hold the same asset.",
    "account_closed": "An account of this transfer is closed.",
    "nothing_held": "Nothing is held for this.",
    "balance_overflow": "The receiving account cannot hold this much.",
}


def rule_error(code: str) -> DomainError:
    """The error to show for a broken rule that needs no facts of the account."""
    if code == "post_over_hold":
        return PostOverHold()
    return BadInput(code, RULE_TEXTS[code])
