"""Rules of the double-entry ledger, pure.

An account has posted (Σ credits − Σ debits), held (Σ open pendings on its debit side) and a floor:

    available = posted − held ≥ floor
    single:  posted_d −= a,               posted_c += a
    pend:    held_d   += a
    post:    held_d   −= h, posted_d −= a, posted_c += a      (0 < a ≤ h, h = pending's amount)
    void:    held_d   −= h

so Σ posted over the accounts of an asset never changes, and is 0 from the start. A closed account
takes part in nothing but a void. A group of moves is applied in order, each to the result of the
one before; the first broken rule refuses them all. The semantics of pending transfers are
TigerBeetle's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

AMOUNT_MAX = 2**63 - 1
# What may be issued of the assets that every site begins with: 10^9 FLAI; test USDC up to 10^12. In
# micro-units, well inside 2^63.
BASE_CAPS = {"FLAI": 1_000_000_000 * 1_000_000, "USDC": 1_000_000_000_000 * 1_000_000}

# Which of several broken rules is named: the first in this list.
PRECEDENCE = (
    "unknown_account",
    "amount_not_positive",
    "amount_too_large",
    "same_account",
    "asset_mismatch",
    "account_closed",
    "post_over_hold",
    "nothing_held",
    "insufficient_balance",
    "balance_overflow",
)


class RuleBroken(Exception):
    """`code` is one of PRECEDENCE, `index` the move's place in its group."""

    def __init__(self, code: str, index: int, account: Hashable = None, short_micro: int = 0):
        self.code, self.index, self.account, self.short_micro = code, index, account, short_micro
        super().__init__(f"{code} in move {index}")


class Balance(NamedTuple):  # cheap to make: a replay makes two a transfer
    """Balances of one account, in micro-units."""

    asset: Hashable
    posted_micro: int = 0
    held_micro: int = 0
    floor_micro: int = 0
    closed: bool = False

    @property
    def available_micro(self) -> int:
        """posted − held − floor: what can still be debited."""
        return self.posted_micro - self.held_micro - self.floor_micro


class Move(NamedTuple):
    """One transfer as the rules see it; `hold_micro` is the pending's amount for post and void."""

    debit: Hashable
    credit: Hashable
    amount_micro: int
    phase: str = "single"
    hold_micro: int = 0


def apply(balances: Mapping[Hashable, Balance], moves: Iterable[Move]) -> dict[Hashable, Balance]:
    """Balances after `moves`, in order, as a new mapping.

    Raises RuleBroken for the first move that breaks a rule; its code by PRECEDENCE.
    """
    after = dict(balances)
    for index, move in enumerate(moves):
        _check(after, move, index)
        # After this point it must succeed.
        debit, credit, a = after[move.debit], after[move.credit], move.amount_micro
        if move.phase == "pend":
            after[move.debit] = _with(debit, debit.posted_micro, debit.held_micro + a)
        elif move.phase == "void":
            after[move.debit] = _with(debit, debit.posted_micro, debit.held_micro - move.hold_micro)
        else:
            after[move.debit] = _with(
                debit, debit.posted_micro - a, debit.held_micro - move.hold_micro
            )
            after[move.credit] = _with(credit, credit.posted_micro + a, credit.held_micro)
    return after


def _with(balance: Balance, posted_micro: int, held_micro: int) -> Balance:
    return Balance(balance.asset, posted_micro, held_micro, balance.floor_micro, balance.closed)


def _check(balances: Mapping[Hashable, Balance], move: Move, index: int) -> None:
    def broken(code: str, account: Hashable = None, short_micro: int = 0) -> RuleBroken:
        return RuleBroken(code, index, account, short_micro)

    for account in (move.debit, move.credit):
        if account not in balances:
            raise broken("unknown_account", account)
    if move.amount_micro <= 0:
        raise broken("amount_not_positive")
    if move.amount_micro > AMOUNT_MAX:
        raise broken("amount_too_large")
    if move.debit == move.credit:
        raise broken("same_account", move.debit)
    debit, credit = balances[move.debit], balances[move.credit]
    if debit.asset != credit.asset:
        raise broken("asset_mismatch")
    if move.phase != "void" and (debit.closed or credit.closed):
        raise broken("account_closed", move.debit if debit.closed else move.credit)
    if move.phase in ("post", "void"):
        if move.amount_micro > move.hold_micro:
            raise broken("post_over_hold", short_micro=move.amount_micro - move.hold_micro)
        if move.hold_micro > debit.held_micro:
            raise broken("nothing_held", move.debit)
    elif move.amount_micro > debit.available_micro:
        raise broken("insufficient_balance", move.debit, move.amount_micro - debit.available_micro)
    if move.phase == "pend" and debit.held_micro + move.amount_micro > AMOUNT_MAX:
        raise broken("balance_overflow", move.debit)
    if move.phase in ("single", "post") and credit.posted_micro + move.amount_micro > AMOUNT_MAX:
        raise broken("balance_overflow", move.credit)


def net_posted(moves: Iterable[Move]) -> dict[Hashable, int]:
    """Σ credits − Σ debits of posted moves by account: the oracle for every cached balance."""
    net: dict[Hashable, int] = {}
    for move in moves:
        if move.phase in ("single", "post"):
            net[move.debit] = net.get(move.debit, 0) - move.amount_micro
            net[move.credit] = net.get(move.credit, 0) + move.amount_micro
    return net
