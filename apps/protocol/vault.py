"""A staking vault: shares of all that is staked and of what it earned, pure, integers only.

    shares of a stake     ⌊amount · (S + V) / (A + 1)⌋        A = all assets, S = all shares
    value of shares       ⌊shares · (A + 1) / (S + V)⌋
    shares of a way out   ⌈amount · (S + V) / (A + 1)⌉

Stakes round down and ways out up, so nobody gains by rounding and the value of a share never
falls. V = 1000 virtual shares stand from the start against one virtual unit: who makes a share dear
by giving to a vault that is nearly empty gives most of it to these, and the next one's loss by
rounding is below a thousandth of that (the ERC-4626 inflation attack).

What somebody staked stays on an account of their own (`principal`), where it keeps its weight in
votes and revenue; only what the vault earned and nobody has touched yet lies in its pot:

    pot = A − Σ principal ≥ 0

Whoever stakes or leaves first takes their part of the pot into their principal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.money import mul_div_ceil, mul_div_floor

VIRTUAL_SHARES = 1000

# Which of several broken rules is named: the first in this list.
PRECEDENCE = (
    "amount_not_positive",
    "amount_too_large",
    "vault_empty",
    "stake_locked",
    "insufficient_stake",
    "vault_overflow",
    "worth_no_share",
)


class VaultRule(Exception):
    """`code` is one of PRECEDENCE; `has` is what there is instead, an amount or a time."""

    def __init__(self, code: str, *, has: int = 0) -> None:
        super().__init__(code)
        self.code, self.has = code, has


@dataclass(frozen=True)
class Vault:
    """A, S and Σ principal."""

    assets: int = 0
    shares: int = 0
    principal: int = 0

    @property
    def pot(self) -> int:
        return self.assets - self.principal


@dataclass(frozen=True)
class Position:
    """What one party has in a vault."""

    principal: int = 0
    shares: int = 0
    locked_until_ms: int = 0


@dataclass(frozen=True)
class Change:
    """Vault and position after something was done.

    earned: from the pot into the principal; negative for a unit lost by rounding.
    shares: made (positive) or ended.
    """

    vault: Vault
    position: Position
    earned: int = 0
    shares: int = 0


def value(vault: Vault, shares: int) -> int:
    """What `shares` are worth, down."""
    return mul_div_floor(shares, vault.assets + 1, vault.shares + VIRTUAL_SHARES)


def shares_for(vault: Vault, amount: int) -> int:
    """Shares that a stake of `amount` makes, down."""
    return mul_div_floor(amount, vault.shares + VIRTUAL_SHARES, vault.assets + 1)


def shares_ended(vault: Vault, amount: int) -> int:
    """Shares that taking `amount` out ends, up."""
    return mul_div_ceil(amount, vault.shares + VIRTUAL_SHARES, vault.assets + 1)


def worth(vault: Vault, position: Position) -> int:
    """What a position could take out: its principal with its part of the pot."""
    gain = max(value(vault, position.shares) - position.principal, 0)
    return position.principal + min(gain, vault.pot)


def stake(vault: Vault, position: Position, amount: int, *, locked_until_ms: int = 0) -> Change:
    """Put `amount` in; a lock only ever grows.

    Raises VaultRule: amount_not_positive, amount_too_large, vault_overflow, worth_no_share.
    """
    _amount(amount)
    vault, position, earned = _realised(vault, position)
    made = shares_for(vault, amount)
    if max(vault.assets + amount, vault.shares + made) > AMOUNT_MAX:
        raise VaultRule("vault_overflow")
    if made == 0:
        raise VaultRule("worth_no_share")
    vault = Vault(vault.assets + amount, vault.shares + made, vault.principal + amount)
    position = Position(
        position.principal + amount,
        position.shares + made,
        max(position.locked_until_ms, locked_until_ms),
    )
    return _evened(vault, position, earned, made)


def leave(
    vault: Vault, position: Position, amount: int, *, at_ms: int, forced: bool = False
) -> Change:
    """Take `amount` out of the principal; a slashing (`forced`) minds no lock.

    Raises VaultRule: amount_not_positive, amount_too_large, stake_locked, insufficient_stake.
    """
    _amount(amount)
    if at_ms < position.locked_until_ms and not forced:
        raise VaultRule("stake_locked", has=position.locked_until_ms)
    vault, position, earned = _realised(vault, position)
    if amount > position.principal:
        raise VaultRule("insufficient_stake", has=position.principal)
    ended = min(shares_ended(vault, amount), position.shares)
    if amount == value(vault, position.shares):
        ended = position.shares  # nothing is left that a share could stand for
    vault = Vault(vault.assets - amount, vault.shares - ended, vault.principal - amount)
    position = replace(
        position, principal=position.principal - amount, shares=position.shares - ended
    )
    return _evened(vault, position, earned, -ended)


def reward(vault: Vault, amount: int) -> Vault:
    """Give `amount` to all who stake.

    Raises VaultRule: amount_not_positive, amount_too_large, vault_empty, vault_overflow.
    """
    _amount(amount)
    if not vault.shares:
        raise VaultRule("vault_empty")
    if vault.assets + amount > AMOUNT_MAX:
        raise VaultRule("vault_overflow")
    return replace(vault, assets=vault.assets + amount)


def _realised(vault: Vault, position: Position) -> tuple[Vault, Position, int]:
    earned = worth(vault, position) - position.principal
    return (
        replace(vault, principal=vault.principal + earned),
        replace(position, principal=position.principal + earned),
        earned,
    )


def _evened(vault: Vault, position: Position, earned: int, shares: int) -> Change:
    """The principal is never more than the shares are worth: what rounding took is the pot's."""
    lost = max(position.principal - value(vault, position.shares), 0)
    vault = replace(vault, principal=vault.principal - lost)
    position = replace(position, principal=position.principal - lost)
    return Change(vault, position, earned - lost, shares)


def _amount(amount: int) -> None:
    if amount <= 0:
        raise VaultRule("amount_not_positive")
    if amount > AMOUNT_MAX:
        raise VaultRule("amount_too_large")
