"""What the charts show: rows of the database, put into words and into the parts of a chart.

Everything here is arithmetic on what a page has read already; it asks the database nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from apps.core.clock import unix_ms
from apps.explorer import charts
from apps.explorer.charts import Part
from apps.explorer.formatting import amount, short
from apps.protocol.money import BPS, mul_div_floor
from apps.protocol.revenue import Policy

ROLES = {
    "custodian": ("Custodians, by φ", "sbgt"),
    "validator": ("Validators, by work", "sbgt"),
    "operator": ("Node operators, by jobs", "sbgt"),
    "holder": ("Token holders, by time held", "sdt"),
}
# Who can see what, for the thing on the page. tests/privacy hold each line against the server.
SEES = {
    "query": (
        ("Your row", "The answer", "The model", "Your name", "The payment"),
        (
            ("You", "yynyy"),
            ("This site", "nnnyy"),
            ("One node", "nnnny"),
            ("The hospitals", "nnnny"),
        ),
    ),
    "round": (
        ("A site's rows", "Its update", "Every φ", "The metrics", "The model"),
        (
            ("That site", "yyyyn"),
            ("Other sites", "nnyyn"),
            ("One node", "nnyyn"),
            ("Two nodes together", "nyyyy"),
            ("This site", "nnyyn"),
        ),
    ),
    "round on sums": (
        ("A site's rows", "Sums of their products", "Every φ", "The metrics", "The model"),
        (
            ("That site", "yyyyn"),
            ("Other sites", "nnyyn"),
            ("One node", "nnyyn"),
            ("Two nodes together", "nyyyy"),
            ("This site", "nnyyn"),
        ),
    ),
    "round on rows": (
        ("A site's rows", "Every φ", "Who is left out meanwhile", "The metrics", "The model"),
        (
            ("That site", "yynyn"),
            ("Other sites", "nynyn"),
            ("One node", "nynyn"),
            ("Two nodes together", "yyyyy"),
            ("This site", "nynyn"),
        ),
    ),
    "proposal": (
        ("What is voted on", "Who voted what", "The evidence", "Any site's data"),
        (("Anyone", "yyyn"), ("One node", "yyyn")),
    ),
    "wallet": (
        ("An amount", "Your pseudonym", "Your name", "Its note", "What you asked a model"),
        (
            ("You", "yyyyy"),
            ("Whom you pay", "yyyyn"),
            ("This site", "yyyyn"),
            ("Anyone with the log", "yynnn"),
        ),
    ),
    "request": (
        (
            "What is asked for",
            "Pledges, by pseudonym",
            "Who pledged",
            "Who applied",
            "A custodian's rows",
        ),
        (
            ("That custodian", "yynyy"),
            ("Others who applied", "yynyn"),
            ("This site", "yyyyn"),
            ("One node", "yynyn"),
            ("Anyone", "yynyn"),
        ),
    ),
    "subdao": (
        ("Rules, votes, treasury", "Every φ", "A custodian's rows", "Its update", "The model"),
        (
            ("That custodian", "yyyyn"),
            ("Its other members", "yynnn"),
            ("As many nodes as may be curious", "yynnn"),
            ("More nodes than that, together", "yynyy"),
            ("Anyone, and this site", "yynnn"),
        ),
    ),
    "subdao on rows": (
        ("Rules, votes, treasury", "Every φ", "A custodian's rows", "The model"),
        (
            ("That custodian", "yyyn"),
            ("Its other members", "yynn"),
            ("As many nodes as may be curious", "yynn"),
            ("More nodes than that, together", "yyyy"),
            ("Anyone, and this site", "yynn"),
        ),
    ),
    "job of a round": (
        ("What one put in", "What is opened", "The model", "Who signed"),
        (
            ("That custodian or validator", "yyny"),
            ("As many nodes as may be curious", "nyny"),
            ("More nodes than that, together", "yyyy"),
            ("Anyone, and this site", "nyny"),
        ),
    ),
    "job of a query": (
        ("The row", "The answer", "The model", "Who asked", "Who signed"),
        (
            ("Who asked", "yynyy"),
            ("This site", "nnnyy"),
            ("As many nodes as may be curious", "nnnny"),
            ("More nodes than that, together", "yyyny"),
            ("Anyone else", "nnnny"),
        ),
    ),
    "log": (
        ("Amounts and hashes", "Pseudonyms", "Names", "Rows, answers, models"),
        (("Anyone with the log", "yynn"), ("This site", "yyyn")),
    ),
}


def sees(name: str) -> dict[str, Any]:
    """Columns and, for each party, whether it sees each of them."""
    columns, rows = SEES[name]
    return {
        "columns": columns,
        "rows": [(who, [(column, mark == "y") for column, mark in zip(columns, marks)])
                 for who, marks in rows],
    }  # fmt: skip


def dollars(micro: int) -> str:
    """Every micro-unit, since the parts stand beside their sum."""
    return "$" + short(micro, decimals_min=2)


def said(micro: int, asset: str = "USDC") -> str:
    """An amount as people read it, in one string."""
    sign, prefix, number, unit = amount(micro, asset)
    return f"{sign}{prefix}{number} {unit}".strip()


def sums(amounts: Iterable[tuple[str, int]]) -> str:
    """(asset, micro-units) added up by asset, in words: "$1.20 and 3 FLAI"."""
    whole: Counter[str] = Counter()
    for asset, micro in amounts:
        whole[asset] += micro
    return " and ".join(exactly(micro, asset) for asset, micro in whole.items())


def exactly(micro: int, asset: str) -> str:
    """As `said`, with every micro-unit."""
    sign, prefix, _, unit = amount(micro, asset)
    return f"{sign}{prefix}{short(abs(micro), decimals_min=2 if prefix else 0)} {unit}".strip()


def price_flow(price_micro: int, policy: Policy) -> charts.Flow:
    """What a payment becomes if every class has members (equations 10 and 11)."""
    sbgt_micro = mul_div_floor(price_micro, policy.sbgt_bps, BPS)
    paid = {
        "custodian": mul_div_floor(sbgt_micro, policy.custodians_bps, BPS),
        "validator": mul_div_floor(sbgt_micro, policy.validators_bps, BPS),
        "operator": mul_div_floor(sbgt_micro, policy.operators_bps, BPS),
        "holder": mul_div_floor(price_micro, policy.sdt_bps, BPS),
    }
    return _money(paid, price_micro)


def query_flow(
    price_micro: int, policy: Policy, settled: Mapping[str, Any] | None, *, back: bool
) -> charts.Flow:
    """What one payment becomes: its part of how its epoch was divided, before that of how it would
    be; `back` where it was given back."""
    if back:
        whole = Part("Back to you", price_micro, dollars(price_micro))
        return charts.flow([whole], price_micro)
    revenue_micro = int((settled or {}).get("revenue_micro", 0))
    if not revenue_micro:
        return price_flow(price_micro, policy)
    owed = (settled or {}).get("owed_micro", {})
    paid = {role: mul_div_floor(price_micro, int(owed[role]), revenue_micro) for role in owed}
    return _money(paid, price_micro)


def epochs_flow(settlements: Iterable[Mapping[str, Any] | None]) -> charts.Flow | None:
    """What the revenue of closed epochs became, from their settlements; None for no revenue."""
    paid: dict[str, int] = defaultdict(int)
    total = 0
    for settled in settlements:
        total += int((settled or {}).get("revenue_micro", 0))
        for role, micro in (settled or {}).get("owed_micro", {}).items():
            paid[role] += int(micro)
    return _money(paid, total) if total else None


def _money(paid: Mapping[str, int], total: int) -> charts.Flow:
    """By role; whatever is left is the treasury's."""
    parts = [
        Part(label, paid.get(role, 0), dollars(paid.get(role, 0)), tone)
        for role, (label, tone) in ROLES.items()
    ]
    rest = total - sum(part.value for part in parts)
    return charts.flow([*parts, Part("Treasury", rest, dollars(rest), "treasury")], total)


@dataclass(frozen=True)
class Timeline:
    """A quantity over time, with the words at its axes and the rows of its table."""

    plot: charts.Steps
    start: datetime
    end: datetime
    top: str
    last: str
    goal: str
    rows: list[tuple[datetime, str]]


def timeline(
    points: Sequence[tuple[datetime, int]],
    *,
    start: datetime,
    end: datetime,
    asset: str = "USDC",
    goal_micro: int | None = None,
    until: datetime | None = None,
) -> Timeline:
    """(time, micro-units from then on), drawn from `start` to `end`."""
    drawn = charts.steps(
        [(unix_ms(at), value) for at, value in points],
        start=unix_ms(start),
        end=unix_ms(until or end),
        goal=goal_micro,
    )
    return Timeline(
        drawn,
        start,
        end,
        said(drawn.top, asset),
        said(points[-1][1] if points else 0, asset),
        "" if goal_micro is None else said(goal_micro, asset),
        [(at, said(value, asset)) for at, value in points],
    )


@dataclass(frozen=True)
class Released:
    """What a reserve has released, and what is to come: one line, `now_x` thousandths along."""

    plot: charts.Steps
    now_x: int
    start: datetime
    end: datetime
    whole: str
    so_far: str
    last: str
    rows: list[tuple[datetime, str, bool]]


def released(
    past: Sequence[tuple[datetime, int]],
    ahead: Sequence[tuple[datetime, int]],
    *,
    now: datetime,
    whole_micro: int,
    asset: str,
) -> Released:
    """(end of an epoch, released by then), those that were and those that are expected."""
    start, end = past[0][0], ahead[-1][0]
    drawn = charts.steps(
        [(unix_ms(at), value) for at, value in (*past, *ahead)],
        start=unix_ms(start),
        end=unix_ms(end),
        goal=whole_micro,
    )
    span = max(unix_ms(end) - unix_ms(start), 1)
    return Released(
        drawn,
        min(max((unix_ms(now) - unix_ms(start)) * charts.WIDTH // span, 1), charts.WIDTH),
        start,
        end,
        said(whole_micro, asset),
        said(past[-1][1], asset),
        said(ahead[-1][1], asset),
        [
            (at, said(value, asset), done)
            for rows, done in ((past, True), (ahead, False))
            for at, value in rows
        ],
    )


def summed(changes: Iterable[tuple[datetime, int]]) -> list[tuple[datetime, int]]:
    """Changes in order of time as the balance after each."""
    balance, points = 0, []
    for at, micro in changes:
        balance += micro
        points.append((at, balance))
    return points


@dataclass(frozen=True)
class PhiRow:
    """One site over the rounds shown: a bar each, and its latest φ."""

    name: str
    bars: list[charts.Bar]
    last_milli: int | None
    values: list[int | None]


def phi_by_round(scores: Iterable[tuple[int, str, int]]) -> tuple[list[int], list[PhiRow]]:
    """(round, site, φ in thousandths) as a row of bars a site, the last round's best first."""
    table: dict[str, dict[int, int]] = defaultdict(dict)
    for number, name, phi in scores:
        table[name][number] = phi
    numbers = sorted({number for phis in table.values() for number in phis})
    rows = []
    for name, phis in table.items():
        values = [phis.get(number) for number in numbers]
        rows.append(PhiRow(name, charts.spark(values, 1000), values[-1], values))
    return numbers, sorted(rows, key=lambda r: (-(r.last_milli or 0), r.name))


def metric_by_round(
    numbers: list[int], rows: Sequence[tuple[str, list[int | None]]]
) -> tuple[list[int], list[PhiRow]]:
    """A metric over all rows and in each stratum as rows of bars, in the order given."""
    bars = [PhiRow(name, charts.spark(values, 1000), values[-1], values) for name, values in rows]
    return numbers, bars


@dataclass(frozen=True)
class Traced:
    """A trace with the names of its places, and the rows of its table: (name, value, interval)."""

    plot: charts.Trace
    rows: list[tuple[str, int | None, Sequence[int] | None]]
    goal_milli: int | None
    of: str
    by: str

    @property
    def last(self) -> tuple[str, int | None, Sequence[int] | None]:
        return self.rows[-1]


def traced(
    rows: Sequence[tuple[str, int | None, Sequence[int] | None]],
    *,
    of: str,
    by: str,
    goal_milli: int | None = None,
) -> Traced | None:
    """Thousandths over rounds or epochs, the oldest first; None where nothing was measured."""
    if all(value is None for _, value, _ in rows):
        return None
    drawn = charts.trace([v for _, v, _ in rows], [e for _, _, e in rows], goal=goal_milli)
    return Traced(drawn, list(rows), goal_milli, of, by)


@dataclass(frozen=True)
class StackRow:
    """One bar of several parts, with its sum."""

    name: str
    segments: list[charts.Segment]
    total: int


def stacks(rows: Iterable[tuple[str, list[Part]]]) -> list[StackRow]:
    """Bars on one scale, which the largest sum ends."""
    listed = list(rows)
    whole = max([sum(p.value for p in parts) for _, parts in listed], default=0)
    return [
        StackRow(name, charts.stack(parts, whole), sum(p.value for p in parts))
        for name, parts in listed
    ]
