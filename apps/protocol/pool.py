"""A pool of two assets that trades against itself: constant product, pure, integers only.

    (x·1000 − 3·in_x)(y·1000 − 3·in_y) ≥ k·1000²        k = x·y before, x and y after the swap

so 0.3 % of what comes in stays with those who gave the liquidity, and k never falls. Everything
given out is rounded down, everything asked for up. Shares of the liquidity:

    first      √(base·quote), of which MINIMUM_LIQUIDITY stay with the pool for ever
    later      min(⌊base·S / x⌋, ⌊quote·S / y⌋)
    removed    ⌊shares·x / S⌋ and ⌊shares·y / S⌋

Price: quote per base. `area` is ∫ price dt in Q32 · ms, so a mean over time is a difference of two
areas, and moving the price for an instant moves it by nothing (Uniswap v2, §2.2–2.5, §3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

from apps.protocol.ledger import AMOUNT_MAX
from apps.protocol.money import BPS, MICRO, PPM, mul_div_ceil, mul_div_floor

FEE_PER_MILLE = 3
MINIMUM_LIQUIDITY = 1000
PRICE_BITS = 32
BASE, QUOTE = "base", "quote"

# Which of several broken rules is named: the first in this list.
PRECEDENCE = (
    "amount_not_positive",
    "amount_too_large",
    "quote_expired",
    "pool_empty",
    "minimum_liquidity",
    "insufficient_shares",
    "pool_overflow",
    "insufficient_liquidity",
    "slippage_exceeded",
)


class PoolRule(Exception):
    """`code` is one of PRECEDENCE; `got` is what there would have been instead of a limit."""

    def __init__(self, code: str, *, got: int = 0) -> None:
        super().__init__(code)
        self.code, self.got = code, got


@dataclass(frozen=True)
class Pool:
    """Reserves and shares; `area` is ∫ price dt up to `at_ms`."""

    base: int = 0
    quote: int = 0
    shares: int = 0
    area: int = 0
    at_ms: int = 0

    @property
    def k(self) -> int:
        return self.base * self.quote


@dataclass(frozen=True)
class Change:
    """The pool after something was done, and what moved: positive into the pool."""

    pool: Pool
    base: int
    quote: int
    shares: int = 0


def amount_out(amount_in: int, reserve_in: int, reserve_out: int) -> int:
    """The most that may leave for `amount_in`: ⌊997·in·y / (1000·x + 997·in)⌋."""
    paid = (1000 - FEE_PER_MILLE) * amount_in
    return mul_div_floor(paid, reserve_out, 1000 * reserve_in + paid)


def keeps_product(before: Pool, after: Pool, *, base_in: int = 0, quote_in: int = 0) -> bool:
    """(x·1000 − 3·in_x)(y·1000 − 3·in_y) ≥ k·1000²."""
    x = after.base * 1000 - FEE_PER_MILLE * base_in
    y = after.quote * 1000 - FEE_PER_MILLE * quote_in
    return x * y >= before.k * 1000**2


def swap(
    pool: Pool,
    side: str,
    amount_in: int,
    *,
    out_min: int = 0,
    at_ms: int,
    deadline_ms: int | None = None,
) -> Change:
    """Give `amount_in` of `side` for as much of the other asset as the product allows.

    Raises PoolRule: amount_not_positive, amount_too_large, quote_expired (deadline_ms is over),
    pool_empty, pool_overflow, insufficient_liquidity (nothing would come out), slippage_exceeded
    (less than out_min would).
    """
    _amounts(amount_in)
    _in_time(at_ms, deadline_ms)
    if not pool.shares:
        raise PoolRule("pool_empty")
    x, y = (pool.base, pool.quote) if side == BASE else (pool.quote, pool.base)
    if x + amount_in > AMOUNT_MAX:
        raise PoolRule("pool_overflow")
    out = amount_out(amount_in, x, y)
    if out == 0:
        raise PoolRule("insufficient_liquidity")
    if out < out_min:
        raise PoolRule("slippage_exceeded", got=out)
    return _change(pool, at_ms, *((amount_in, -out) if side == BASE else (-out, amount_in)))


def add(
    pool: Pool,
    base_max: int,
    quote_max: int,
    *,
    shares_min: int = 0,
    at_ms: int,
    deadline_ms: int | None = None,
) -> Change:
    """Put in both assets in the pool's own proportion, at most as much of each as given.

    The first to do so sets the proportion; MINIMUM_LIQUIDITY of the shares are nobody's.
    `Change.shares` is what the giver gets.

    Raises PoolRule: amount_not_positive, amount_too_large, quote_expired, minimum_liquidity,
    pool_overflow, insufficient_liquidity (worth no share), slippage_exceeded.
    """
    _amounts(base_max, quote_max)
    _in_time(at_ms, deadline_ms)
    if not pool.shares:
        base, quote = base_max, quote_max
        shares = isqrt(base * quote) - MINIMUM_LIQUIDITY
        if shares <= 0:
            raise PoolRule("minimum_liquidity")
        minted = shares + MINIMUM_LIQUIDITY
    else:
        base, quote = base_max, mul_div_ceil(base_max, pool.quote, pool.base)
        if quote > quote_max:
            base, quote = mul_div_ceil(quote_max, pool.base, pool.quote), quote_max
        minted = shares = min(
            mul_div_floor(base, pool.shares, pool.base),
            mul_div_floor(quote, pool.shares, pool.quote),
        )
    if max(pool.base + base, pool.quote + quote, pool.shares + minted) > AMOUNT_MAX:
        raise PoolRule("pool_overflow")
    if shares == 0:
        raise PoolRule("insufficient_liquidity")
    if shares < shares_min:
        raise PoolRule("slippage_exceeded", got=shares)
    changed = _change(pool, at_ms, base, quote, minted)
    return replace(changed, shares=shares)


def remove(
    pool: Pool,
    shares: int,
    *,
    held: int,
    base_min: int = 0,
    quote_min: int = 0,
    at_ms: int,
    deadline_ms: int | None = None,
) -> Change:
    """Take out the part of both reserves that `shares`, of `held`, stand for.

    Raises PoolRule: amount_not_positive, amount_too_large, quote_expired, pool_empty,
    insufficient_shares, insufficient_liquidity (worth nothing), slippage_exceeded.
    """
    _amounts(shares)
    _in_time(at_ms, deadline_ms)
    if not pool.shares:
        raise PoolRule("pool_empty")
    if shares > held:
        raise PoolRule("insufficient_shares", got=held)
    base = mul_div_floor(shares, pool.base, pool.shares)
    quote = mul_div_floor(shares, pool.quote, pool.shares)
    if not base or not quote:
        raise PoolRule("insufficient_liquidity")
    if base < base_min or quote < quote_min:
        raise PoolRule("slippage_exceeded", got=base if base < base_min else quote)
    return _change(pool, at_ms, -base, -quote, -shares)


def price_q(pool: Pool) -> int:
    """Quote per base, Q32, rounded down; 0 for an empty pool."""
    return (pool.quote << PRICE_BITS) // pool.base if pool.base else 0


def price_micro(pool: Pool) -> int:
    """Micro-units of quote for one whole token of base, rounded down; 0 for an empty pool."""
    return mul_div_floor(pool.quote, MICRO, pool.base) if pool.base else 0


def area_at(pool: Pool, at_ms: int) -> int:
    """∫ price dt up to `at_ms`, at or after the pool's own time."""
    if at_ms < pool.at_ms:
        raise ValueError("a pool's time never runs backwards")
    return pool.area + price_q(pool) * (at_ms - pool.at_ms)


def mean_price_micro(area_start: int, area_end: int, duration_ms: int) -> int:
    """The time-weighted mean price between two areas, micro-units of quote per token of base.

    Raises ValueError for an empty period.
    """
    if duration_ms <= 0:
        raise ValueError("a mean needs a period")
    return mul_div_floor(area_end - area_start, MICRO, duration_ms << PRICE_BITS)


def impact_ppm(amount_in: int, reserve_in: int) -> int:
    """By how much the trade's own size worsens its price, beside the fee; parts per million, up.

    1 − (out / in after fee) / (y / x) = 997·in / (1000·x + 997·in)
    """
    paid = (1000 - FEE_PER_MILLE) * amount_in
    return mul_div_ceil(paid, PPM, 1000 * reserve_in + paid)


def fee(amount_in: int) -> int:
    """What of `amount_in` stays with the liquidity: 0.3 %, up."""
    return mul_div_ceil(amount_in, FEE_PER_MILLE, 1000)


def least(expected: int, slippage_bps: int) -> int:
    """The limit for somebody who expects so much and bears `slippage_bps` less; up.

    Raises ValueError for a slippage outside of 0 … 10 000.
    """
    return mul_div_ceil(expected, BPS - slippage_bps, BPS)


def _amounts(*amounts: int) -> None:
    if min(amounts) <= 0:
        raise PoolRule("amount_not_positive")
    if max(amounts) > AMOUNT_MAX:
        raise PoolRule("amount_too_large")


def _in_time(at_ms: int, deadline_ms: int | None) -> None:
    if deadline_ms is not None and at_ms > deadline_ms:
        raise PoolRule("quote_expired")


def _change(pool: Pool, at_ms: int, base: int, quote: int, shares: int = 0) -> Change:
    after = Pool(
        base=pool.base + base,
        quote=pool.quote + quote,
        shares=pool.shares + shares,
        area=area_at(pool, at_ms),
        at_ms=at_ms,
    )
    return Change(after, base, quote, shares)
