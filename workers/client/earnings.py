"""What an epoch's settlement must say, rebuilt from everything else in the log.

A settlement's leaf is the server's claim. What it rests on stands in other leaves: φ and scoring
work in the rounds', revenue in the queries' posted holds, jobs in these and in who had claimed the
nodes by then, holdings in the transfers. What it leads to are the transfers that refer to it. Each
is compared, so that none can be bent alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import revenue

CURRENCY = "USDC"
QUERY = "listings.query"
EPOCH_REF = "listings.epoch:"

Body = Mapping[str, Any]


class Finding(Exception):
    """A leaf that does not fit the others; its text says how."""


@dataclass(frozen=True)
class Made:
    """A finished round as its leaves tell it: `opened` by the one before, `done` by the last."""

    opened: Body
    done: Body


@dataclass
class Paid:
    """A hold that was posted into a SubDAO's revenue."""

    dao: str
    amount_micro: int
    settled: bool = False


@dataclass
class Cycle:
    """Revenue by version, and jobs by who ran the node, of one epoch of one SubDAO."""

    revenue: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)


class Earnings:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self) -> None:
        self.opened: dict[str, Body] = {}
        self.versions: dict[tuple[str, str], Made] = {}
        self.daos: dict[str, str] = {}
        self.operators: dict[str, str] = {}
        self.held: dict[str, Body] = {}
        self.posted: dict[str, Paid] = {}
        self.cycles: dict[tuple[str, int], Cycle] = {}
        self.closed: set[tuple[str, int]] = set()
        self.payouts: dict[str, dict[tuple[str, str], int]] = {}
        self.changes: dict[str, list[tuple[int, int]]] = {}

    def founded(self, body: Body, at: int) -> None:
        self.daos[body["dao"]] = body["sdt"]

    def claimed(self, body: Body, at: int) -> None:
        if self.operators.setdefault(body["node"], body["operator"]) != body["operator"]:
            raise Finding(f"node {body['node'][:12]}… was claimed by another one before")

    def round_opened(self, body: Body, at: int) -> None:
        self.opened[body["round"]] = body

    def round_done(self, body: Body, at: int) -> None:
        name = (body["dao"], str(body["version"]))
        opened = self.opened.get(body["round"])
        if opened is None or opened["dao"] != body["dao"]:
            raise Finding(f"round {body['round']} was never opened for its SubDAO")
        if name in self.versions:
            raise Finding(f"version {body['version']} of {body['dao']} was made twice")
        roles = opened["members"]
        scored = {pid for pid, role in roles.items() if role == "custodian"}
        judges = {pid for pid, role in roles.items() if role == "validator"}
        if set(body["phi_milli"]) != scored or set(body["work"]) != judges:
            raise Finding(f"round {body['round']} scores others than its members")
        self.versions[name] = Made(opened, body)

    def accepted(self, body: Body, at: int) -> None:
        made = self.versions.get((body["dao"], str(body["version"])))
        if made is None or made.done["model"] != body["model"]:
            raise Finding(f"version {body['version']} of {body['dao']} is of no round in the log")

    def transfer(self, body: Body, at: int, amount: int) -> None:
        """A posted transfer that broke no rule."""
        debit, credit = body["debit"], body["credit"]
        self.changes.setdefault(debit, []).append((at, -amount))
        self.changes.setdefault(credit, []).append((at, amount))
        if body["kind"] == QUERY and body["phase"] == "post":
            self.posted[body["pending"]] = Paid(credit.split("/")[0], amount)
        ref = str(body["ref"] or "")
        if ref.startswith(EPOCH_REF):
            pairs = self.payouts.setdefault(ref, {})
            pairs[debit, credit] = pairs.get((debit, credit), 0) + amount
        elif debit.split("/")[1] == "revenue":
            raise Finding(f"transfer {body['id']} takes revenue for no settlement")

    def query_held(self, body: Body, at: int) -> None:
        self.held[body["query"]] = body

    def query_settled(self, body: Body, at: int) -> None:
        query, held, paid = body["query"], self.held.get(body["query"]), None
        if held is not None and held["hold"] == body["hold"]:
            paid = self.posted.get(body["hold"])
        if held is None or paid is None or paid.settled:
            raise Finding(f"query {query} was not paid, or is settled twice")
        if paid.amount_micro != int(held["price_micro"]):
            raise Finding(f"query {query} was paid another price than was held")
        name, version = (paid.dao, int(body["epoch"])), str(held["version"])
        made = self.versions.get((paid.dao, version))
        if made is None:
            raise Finding(f"query {query} was answered by a version of no round in the log")
        if name in self.closed:
            raise Finding(f"query {query} joins epoch {body['epoch']}, which was settled before")
        paid.settled = True
        cycle = self.cycles.setdefault(name, Cycle())
        cycle.revenue[version] = cycle.revenue.get(version, 0) + paid.amount_micro
        for node in made.opened["nodes"]:
            # Who claims a node later is not paid for this; nobody's work is the SubDAO's own.
            operator = self.operators.get(node, paid.dao)
            cycle.jobs[operator] = cycle.jobs.get(operator, 0) + 1

    def epoch(self, body: Body, at: int) -> None:
        dao, number = body["dao"], int(body["epoch"])
        if (dao, number) in self.closed:
            raise Finding(f"epoch {number} of {dao} was settled twice")
        self.closed.add((dao, number))
        cycle = self.cycles.get((dao, number), Cycle())
        served = {str(entry["version"]): entry for entry in body["served"]}
        earned = {version: int(entry["revenue_micro"]) for version, entry in served.items()}
        if earned != cycle.revenue or int(body["revenue_micro"]) != sum(earned.values()):
            raise Finding(f"epoch {number}: its revenue is not what the queries in it paid")
        for version, entry in served.items():
            done = self.versions[dao, version].done
            if integers(entry["phi"]) != integers(done["phi_milli"]):
                raise Finding(f"epoch {number}: φ of version {version} is not its round's")
            if integers(entry["work"]) != integers(done["work"]):
                raise Finding(
                    f"epoch {number}: scoring work of version {version} is not its round's"
                )
        if integers(body["jobs"]) != self._jobs(dao, cycle):
            raise Finding(f"epoch {number}: its jobs are not those of the nodes' operators")
        if integers(body["holdings"]) != self._holdings(dao, body):
            raise Finding(f"epoch {number}: its holdings are not those of the transfers")
        self._paid(dao, number, body)

    def _paid(self, dao: str, number: int, body: Body) -> None:
        settlement = settle(body)
        if settlement.by_payee() != integers(body["paid_micro"]):
            raise Finding(f"epoch {number}: its payouts don't follow from φ and holdings")
        if settlement.treasury_micro != int(body["treasury_micro"]):
            raise Finding(f"epoch {number}: the treasury's part is wrong")
        # What falls to the SubDAO itself (a node that nobody has claimed) goes to its treasury.
        shares = settlement.by_payee()
        own = settlement.treasury_micro + shares.pop(dao, 0)
        source = f"{dao}/revenue/{CURRENCY}"
        due = {(source, f"{pid}/main/{CURRENCY}"): amount for pid, amount in shares.items()}
        due |= {(source, f"{dao}/treasury/{CURRENCY}"): own} if own else {}
        if self.payouts.pop(EPOCH_REF + body["id"], {}) != due:
            raise Finding(f"epoch {number}: the transfers are not the payouts that it states")

    def _jobs(self, dao: str, cycle: Cycle) -> dict[str, int]:
        # Where nobody runs a node, nobody is paid for one.
        return cycle.jobs if set(cycle.jobs) - {dao} else {}

    def _holdings(self, dao: str, body: Body) -> dict[str, int]:
        """T_i of whoever is no SubDAO: held + staked · boost over the epoch (paper §6.3)."""
        boost = int(body["policy"]["stake_boost_bps"])
        weights: dict[str, int] = {}
        for account, changes in self.changes.items():
            pid, purpose, asset = account.split("/", 2)
            if asset != self.daos.get(dao) or purpose not in ("main", "staked") or pid in self.daos:
                continue
            area = revenue.time_weighted(
                0, changes, start=int(body["starts_at"]), end=int(body["ends_at"])
            )
            held, staked = (area, 0) if purpose == "main" else (0, area)
            weight = revenue.holding_weight(held, staked, stake_boost_bps=boost)
            if weight:
                weights[pid] = weights.get(pid, 0) + weight
        return weights

    def end(self) -> list[str]:
        """What is left over when the log is."""
        errors = [f"{ref} was paid out but not settled: epoch unknown" for ref in self.payouts]
        stray = [hold for hold, paid in self.posted.items() if not paid.settled]
        return errors + [f"hold {hold} was paid but is in no epoch" for hold in stray]


def settle(body: Body) -> revenue.Settlement:
    """The settlement that an epoch's leaf must lead to (paper eq. 10 and 11)."""
    return revenue.split(
        [
            revenue.Served(
                version=str(served["version"]),
                revenue_micro=int(served["revenue_micro"]),
                phi=integers(served["phi"]),
                work=integers(served["work"]),
            )
            for served in body["served"]
        ],
        jobs=integers(body["jobs"]),
        holdings=integers(body["holdings"]),
        policy=revenue.Policy(**integers(body["policy"])),
    )


def integers(weights: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in weights.items()}
