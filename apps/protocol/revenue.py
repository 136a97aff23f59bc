"""The revenue of an epoch, divided among contributors, token holders and the treasury.

    r_k^SBGT = φ_k / Σ_j φ_j · R_SBGT        (paper eq. 10; eq. 3 when R_SBGT is all of R_cycle)
    r_i^SDT  = T_i / Σ_j T_j · R_SDT         (paper eq. 11)
    R_treasury = R_cycle − everything paid   (paper §6.3)

Every payee's part is rounded down and the treasury keeps what that leaves over, so the parts sum
to the revenue exactly. A class that nobody belongs to (Σ weights = 0) is paid nothing: its part is
the treasury's too. Amounts in micro-units, shares of the whole in basis points (1/10 000), weights
in any unit, all of them integers: a float never decides money.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.protocol.money import BPS, mul_div_floor

CUSTODIAN, VALIDATOR, OPERATOR, HOLDER = "custodian", "validator", "operator", "holder"
WORKERS = (CUSTODIAN, VALIDATOR, OPERATOR)
ROLES = (*WORKERS, HOLDER)
SPLIT = ("sbgt_bps", "sdt_bps", "treasury_bps")
SBGT_SPLIT = ("custodians_bps", "validators_bps", "operators_bps")


@dataclass(frozen=True)
class Policy:
    """How a SubDAO divides its revenue, in basis points.

    R_SBGT + R_SDT + R_treasury is the whole; R_SBGT is divided between those who hold the data,
    those who validate and those who run the nodes.

    Raises ValueError where a share is negative or a division does not sum to the whole.
    """

    sbgt_bps: int
    sdt_bps: int
    treasury_bps: int
    custodians_bps: int
    validators_bps: int
    operators_bps: int
    stake_boost_bps: int = BPS

    def __post_init__(self) -> None:
        for name, parts in (
            ("split", (self.sbgt_bps, self.sdt_bps, self.treasury_bps)),
            ("sbgt_split", (self.custodians_bps, self.validators_bps, self.operators_bps)),
        ):
            if min(parts) < 0 or sum(parts) != BPS:
                raise ValueError(f"{name} must be shares of {BPS} that sum to it, not {parts}")
        if self.stake_boost_bps < BPS:
            raise ValueError("a stake may not count for less than the same tokens held")


def policy_of(params: Mapping[str, Any]) -> Policy:
    """The SubDAO's shares, from its parameters."""
    return Policy(
        **{k: int(params["split"][k]) for k in SPLIT},
        **{k: int(params["sbgt_split"][k]) for k in SBGT_SPLIT},
        stake_boost_bps=int(params["stake_boost_bps"]),
    )


@dataclass(frozen=True)
class Served:
    """What one model version earned in the epoch, and whose work it is.

    phi: contribution score of each custodian (milli) in the round that made the version;
    work: accepted scoring work of each validator in that round.
    """

    version: str
    revenue_micro: int
    phi: Mapping[str, int]
    work: Mapping[str, int]


@dataclass(frozen=True)
class Payment:
    """`amount_micro` to `payee` as a member of `role`; `version` is None where it spans all."""

    payee: str
    role: str
    version: str | None
    amount_micro: int


@dataclass(frozen=True)
class Settlement:
    """Σ payments + treasury_micro = revenue_micro, exactly; no payment is zero."""

    revenue_micro: int
    treasury_micro: int
    payments: tuple[Payment, ...] = field(default=())

    def by_payee(self) -> dict[str, int]:
        """What each payee gets in all, in micro-units."""
        totals: dict[str, int] = {}
        for payment in self.payments:
            totals[payment.payee] = totals.get(payment.payee, 0) + payment.amount_micro
        return totals


def pro_rata(weights: Mapping[str, int], total_micro: int) -> dict[str, int]:
    """floor(w_k / Σ_j w_j · total) for each k; {} when Σ w = 0. The rest is the caller's to place.

    Raises ValueError for a negative weight or total.
    """
    if total_micro < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("weights and totals are never negative")
    whole = sum(weights.values())
    if whole == 0:
        return {}
    return {key: mul_div_floor(total_micro, weight, whole) for key, weight in weights.items()}


def cycle_rewards(phi: Mapping[str, int], revenue_micro: int) -> dict[str, int]:
    """r_k = φ_k / Σ_j φ_j · R_cycle (paper eq. 3): eq. 10 with R_SBGT = R_cycle."""
    return pro_rata(phi, revenue_micro)


def sbgt_rewards(phi: Mapping[str, int], sbgt_micro: int) -> dict[str, int]:
    """r_k^SBGT = φ_k / Σ_j φ_j · R_SBGT (paper eq. 10). A φ of zero earns nothing."""
    return pro_rata(phi, sbgt_micro)


def sdt_rewards(holdings: Mapping[str, int], sdt_micro: int) -> dict[str, int]:
    """r_i^SDT = T_i / Σ_j T_j · R_SDT (paper eq. 11)."""
    return pro_rata(holdings, sdt_micro)


def time_weighted(
    opening_micro: int, changes: Iterable[tuple[int, int]], *, start: int, end: int
) -> int:
    """∫ balance dt over [start, end), in micro-units · time units.

    `changes` are (time, difference) in any order, times in the unit of `start` and `end`; one at
    or before `start` counts from the start, one at or after `end` does not count. Not divided by
    the length of the epoch: eq. 11 needs ratios only, and a division would round.

    Raises ValueError when the epoch is empty or the balance would fall below zero.
    """
    if end <= start:
        raise ValueError("an epoch must end after it starts")
    if opening_micro < 0:
        raise ValueError("a balance is never negative")
    balance, since, area = opening_micro, start, 0
    for at, difference in sorted(changes, key=lambda change: change[0]):
        if at >= end:
            break
        at = max(at, start)
        area += _area(balance, at - since)
        since = at
        balance += difference
    return area + _area(balance, end - since)


def _area(balance_micro: int, duration: int) -> int:
    # Two changes at one instant may pass through a negative sum; a balance that lasts may not.
    if balance_micro < 0 and duration:
        raise ValueError("a balance is never negative")
    return balance_micro * duration


def holding_weight(held: int, staked: int, *, stake_boost_bps: int) -> int:
    """T_i = held + staked · boost (paper §6.3), scaled by 10 000 so that nothing is rounded."""
    return held * BPS + staked * stake_boost_bps


def split(
    served: Iterable[Served],
    *,
    jobs: Mapping[str, int],
    holdings: Mapping[str, int],
    policy: Policy,
) -> Settlement:
    """Divide an epoch's revenue (paper eq. 10, 11, §6.3).

    Per version v with revenue R_v: R_SBGT,v = floor(R_v · sbgt), its custodians' part by the φ of
    that version, its validators' part by their scoring work in that version's round. Over all
    versions: operators' parts by jobs served, holders' by T_i. Every floor's remainder and every
    class without members goes to the treasury.

    Args:
        served: one entry a version that earned something.
        jobs: inference jobs that each claimed node's operator served in the epoch.
        holdings: T_i of each token holder, time-weighted over the epoch.
        policy: the SubDAO's shares.

    Raises ValueError for negative amounts or weights.
    """
    payments: list[Payment] = []
    revenue = operators_micro = 0
    for entry in served:
        if entry.revenue_micro < 0:
            raise ValueError("revenue is never negative")
        revenue += entry.revenue_micro
        sbgt_micro = mul_div_floor(entry.revenue_micro, policy.sbgt_bps, BPS)
        operators_micro += mul_div_floor(sbgt_micro, policy.operators_bps, BPS)
        for role, weights, share_bps in (
            (CUSTODIAN, entry.phi, policy.custodians_bps),
            (VALIDATOR, entry.work, policy.validators_bps),
        ):
            parts = sbgt_rewards(weights, mul_div_floor(sbgt_micro, share_bps, BPS))
            payments += _payments(parts, role, entry.version)
    payments += _payments(pro_rata(jobs, operators_micro), OPERATOR, None)
    sdt_micro = mul_div_floor(revenue, policy.sdt_bps, BPS)
    payments += _payments(sdt_rewards(holdings, sdt_micro), HOLDER, None)
    paid = sum(payment.amount_micro for payment in payments)
    return Settlement(revenue, revenue - paid, tuple(payments))


def _payments(parts: Mapping[str, int], role: str, version: str | None) -> list[Payment]:
    """In the order of the payees' names, so that a replay makes the same list."""
    return [Payment(payee, role, version, parts[payee]) for payee in sorted(parts) if parts[payee]]
