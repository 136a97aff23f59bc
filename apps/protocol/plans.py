"""Plans: rows for a period, paid ahead (paper §7.2).

A period of R rows at p = ⌈price · (10 000 − off) / 10 000⌉ each is paid with R · p, and every row
asked takes p of it: the quota is the money that is left. At time t of a term [s, e), with rows
1 … u asked since the period began, row n in a term with price_n, that cost `spent`, a change to
another plan (R′ rows in a period of d′ at p′(price), q = p′(max(price, price of now))) gives

    fair   = ⌊R · p · (e − t) / (e − s)⌋                   what was paid for the time to come
    anew   = Σ_{n ≤ R′} p′(price_n) + Σ_{n > R′} price_n   the used rows as the new plan has them
    credit = max(0, min(left, fair) − max(0, anew − spent))
    rows   = ⌊R′ · (e − t) / d′⌋,  cost = rows · q
    due    = max(0, cost − credit),  refund = max(0, credit − cost),  lapsed = left − credit

so that left + due = cost + refund + lapsed, to the micro-unit. Cancelling is the change to no plan,
R′ = 0: whoever cancels has paid no less than its rows cost without one. A vote on the price is for
the rows to come: those used keep the price of the term that they were asked in. It does not fall
within a period, or a change to a plan that has become cheap would buy off what the used ones lack.

Where the seller ends it, at t, the rows used keep the plan's price: refund = min(left, fair), and
lapsed = left − refund.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from apps.protocol.tariff import OFF_BPS_MAX, ROWS_MAX, row_price, rows_of, within

PLANS_MAX = 5
NAME_MAX = 20
DAYS_MAX = 366
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Plan:
    """`rows` for `days`, each `off_bps` below the price. Raises ValueError."""

    name: str
    rows: int
    days: int
    off_bps: int

    def __post_init__(self) -> None:
        name = self.name
        formed = isinstance(name, str) and 0 < len(name) <= NAME_MAX
        if not formed or not name.isascii() or not name.isalnum() or name != name.lower():
            raise ValueError(f"a name has up to {NAME_MAX} letters and digits, in lower case")
        within(self, "rows", 1, ROWS_MAX)
        within(self, "days", 1, DAYS_MAX)
        within(self, "off_bps", 1, OFF_BPS_MAX)

    @property
    def period_ms(self) -> int:
        return self.days * DAY_MS


def plans_of(raw: Any) -> tuple[Plan, ...]:
    """From untrusted data: a list of plans, each with more rows and more off than the one before.

    Raises ValueError.
    """
    plans = tuple(Plan(**row) for row in rows_of(raw, Plan, most=PLANS_MAX))
    if len({plan.name for plan in plans}) < len(plans):
        raise ValueError("each plan has its own name")
    for before, after in pairwise(plans):
        if before.rows >= after.rows or before.off_bps >= after.off_bps:
            raise ValueError("each plan has more rows than the one before, and takes more off")
    return plans


def check_answerable(plans: Sequence[Plan], *, rows_per_epoch: int, epoch_days: int) -> None:
    """rows ≤ ⌊rows_per_epoch · days / epoch_days⌋ of each: more, a buyer could not ask, who gets so
    many rows of a model in so many days (`portion`). Raises ValueError.
    """
    for plan in plans:
        most = rows_per_epoch * plan.days // epoch_days
        if plan.rows > most:
            raise ValueError(
                f"“{plan.name}” has {plan.rows} rows, and one buyer gets {most} of a model in "
                f"{plan.days} days at most"
            )


@dataclass(frozen=True)
class Term:
    """What was paid ahead: `rows` at `row_micro` from start to end; `price_micro` is what a
    row costs without a plan, for this term."""

    rows: int
    row_micro: int
    price_micro: int
    starts_ms: int
    ends_ms: int

    @property
    def cost_micro(self) -> int:
        return self.rows * self.row_micro


@dataclass(frozen=True)
class Change:
    """What a change does: the term after it (None: no plan) and what moves, in micro-units."""

    term: Term | None
    credit_micro: int
    lapsed_micro: int
    due_micro: int
    refund_micro: int


def begin(plan: Plan, *, price_micro: int, at_ms: int) -> Term:
    """A whole period, from now on."""
    row = row_price(price_micro, plan.off_bps)
    return Term(plan.rows, row, price_micro, at_ms, at_ms + plan.period_ms)


@dataclass(frozen=True)
class Renewal:
    """What a buyer agreed to for the periods to come: so many rows for so many days each, for
    `max_micro` a period at most."""

    rows: int
    days: int
    max_micro: int

    def __post_init__(self) -> None:
        within(self, "rows", 1, ROWS_MAX)
        within(self, "days", 1, DAYS_MAX)
        within(self, "max_micro", 1, 2**63 - 1)


def renewed(agreed: Renewal, plan: Plan, *, price_micro: int, at_ms: int) -> Term | None:
    """The next period, from now on; None where the plan is another one or dearer than agreed."""
    term = begin(plan, price_micro=price_micro, at_ms=at_ms)
    same = (plan.rows, plan.days) == (agreed.rows, agreed.days)
    return term if same and term.cost_micro <= agreed.max_micro else None


# So many rows, and what one cost without a plan in the term that they were asked in.
Used = tuple[int, int]


def and_used(used: Sequence[Used], rows: int, price_micro: int) -> tuple[Used, ...]:
    """The rows used in a period, in order, and these after them."""
    if used and used[-1][1] == price_micro:
        rows, used = rows + used[-1][0], used[:-1]
    return (*used, (rows, price_micro)) if rows else tuple(used)


def change(
    term: Term,
    to: Plan | None,
    *,
    price_micro: int,
    left_micro: int,
    used: Sequence[Used],
    spent_micro: int,
    at_ms: int,
) -> Change:
    """`price_micro`: a row's price without a plan, now. `used` and `spent_micro`: since the period
    began, in earlier terms too. Raises ValueError outside of the term, and for more left than was
    paid.
    """
    if not term.starts_ms <= at_ms < term.ends_ms or not 0 <= left_micro <= term.cost_micro:
        raise ValueError("a change lies within its term, and no more is left than was paid")
    remaining, fair = term.ends_ms - at_ms, _fair(term, at_ms)
    rows, off = (to.rows, to.off_bps) if to else (0, 0)
    anew, room = 0, rows
    for count, list_micro in used:
        within_quota = min(count, room)
        room -= within_quota
        anew += within_quota * row_price(list_micro, off) + (count - within_quota) * list_micro
    credit = max(0, min(left_micro, fair) - max(0, anew - spent_micro))
    after = None
    if to is not None:
        price = max(price_micro, term.price_micro)
        count = to.rows * remaining // to.period_ms
        after = Term(count, row_price(price, to.off_bps), price, at_ms, term.ends_ms)
    cost = after.cost_micro if after else 0
    return Change(
        term=after,
        credit_micro=credit,
        lapsed_micro=left_micro - credit,
        due_micro=max(cost - credit, 0),
        refund_micro=max(credit - cost, 0),
    )


def withdrawn(term: Term, *, left_micro: int, at_ms: int) -> Change:
    """The model was taken off sale at `at_ms`, a moment of the term. Raises ValueError as
    `change` does.
    """
    if not term.starts_ms <= at_ms < term.ends_ms or not 0 <= left_micro <= term.cost_micro:
        raise ValueError("a plan ends within its term, and no more is left than was paid")
    refund = min(left_micro, _fair(term, at_ms))
    return Change(None, refund, left_micro - refund, 0, refund)


def _fair(term: Term, at_ms: int) -> int:
    """What was paid for the time to come."""
    return term.cost_micro * (term.ends_ms - at_ms) // (term.ends_ms - term.starts_ms)
