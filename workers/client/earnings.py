"""What an epoch's settlement must say, rebuilt from everything else in the log.

A settlement's leaf is the server's claim. What it rests on stands in other leaves: φ and scoring
work in the rounds', revenue in the queries' posted holds, jobs in these, in which nodes kept the
model and in who had claimed them by then, holdings in the transfers. What it leads to is the root
over all entitlements, which is built again here, and then the transfers that pay them, each under
the one id that its entitlement gives it. Each is compared, so that none can be bent alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.protocol import consent, entitlements, revenue
from apps.protocol.decay import WORK_UNITS_A_ROUND
from apps.protocol.jobs import NODE_CLAIM_DOMAIN, fingerprint
from apps.protocol.money import BPS, mul_div_floor
from apps.protocol.refreshes import consenting
from apps.protocol.successions import is_succession, set_after
from apps.protocol.tickets import COMPUTING, ENGINES, MIN_CUSTODIANS, RING, permits
from apps.protocol.wire import BadSignature, verify
from workers.client.accounts import parts
from workers.client.holdings import Holdings

CURRENCY = "USDC"
QUERY = "listings.query"
EPOCH_REF = "listings.epoch:"
AFTER_ALL = 2**63
UNDER_WAY_MS = 60_000  # what was asked before something changed may be written after it

Body = Mapping[str, Any]


class Finding(Exception):
    """A leaf that does not fit the others; its text says how."""


@dataclass(frozen=True)
class Made:
    """A finished round as its leaves tell it: `opened` by the one before, `done` by the last."""

    opened: Body
    done: Body


@dataclass
class Kept:
    """By which nodes a model is kept and how they compute, until it went to others."""

    nodes: list[str]
    engine: str
    left_ms: int = AFTER_ALL

    def computed(self, nodes: Sequence[str]) -> bool:
        """May just these of its nodes have answered?"""
        counts = {COMPUTING[e] for e in ENGINES if permits(self.engine, e)}
        return len(set(nodes)) in counts and set(nodes) <= set(self.nodes)


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
    first_ms: int = AFTER_ALL
    last_ms: int = -AFTER_ALL


@dataclass(frozen=True)
class Due:
    """A transfer that a settlement leads to, and what it is."""

    debit: str
    credit: str
    amount_micro: int
    what: str


class Earnings:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(self, held: Holdings) -> None:
        self.tokens = held
        self.opened: dict[str, Body] = {}
        self.rosters: dict[str, set[str]] = {}  # whoever a round was opened with
        self.normalised: dict[str, str] = {}  # rounds that took sums: their SubDAO
        self.over: dict[str, dict[str, int]] = {}  # φ of rounds that are done, void or failed
        self.committed: dict[str, tuple[int, str, str]] = {}
        self.versions: dict[tuple[str, str], Made] = {}
        self.kept: dict[str, list[Kept]] = {}  # by model, the latest first
        self.daos: dict[str, str] = {}
        self.operators: dict[str, str] = {}
        self.say_acceptance = False
        self.dated_consents = False
        self.successions: list[Body] = []  # that count
        self.signed_claims = False
        self.held: dict[str, tuple[Body, int]] = {}
        self.posted: dict[str, Paid] = {}
        self.cycles: dict[tuple[str, int], Cycle] = {}
        self.closed: set[tuple[str, int]] = set()
        self.policies: dict[tuple[str, int], dict[str, int]] = {}
        self.ended: dict[tuple[str, int], int] = {}  # when an epoch was closed to payments
        self.lengths_s: dict[str, int] = {}
        self.on_sale: dict[str, int] = {}
        self.windows: dict[tuple[str, int], tuple[int, int]] = {}
        self.due: dict[str, Due] = {}

    def founded(self, body: Body, at: int) -> None:
        self.daos[body["dao"]] = body["sdt"]
        if "epoch_s" in body:  # founded before this was said: see `founded.not_as_requested`
            self.lengths_s[body["dao"]] = int(body["epoch_s"])

    def claimed(self, body: Body, at: int) -> None:
        """By the node's own key, which its fingerprint is made of; leaves of earlier releases have
        no signature, but none does after one that has."""
        signed = "signature" in body
        if self.signed_claims and not signed:
            raise Finding(f"node {body['node'][:12]}… was claimed without its own signature")
        self.signed_claims = signed
        if signed:
            claim = {"pid": body["operator"], "node": body["node"]}
            try:
                verify(body["sign_key"], NODE_CLAIM_DOMAIN, claim, body["signature"])
            except BadSignature:
                raise Finding(f"the claim of node {body['node'][:12]}… is not its own") from None
            if fingerprint(dict(body)) != body["node"]:
                raise Finding(f"node {body['node'][:12]}… was claimed by another one's key")
        if self.operators.setdefault(body["node"], body["operator"]) != body["operator"]:
            raise Finding(f"node {body['node'][:12]}… was claimed by another one before")

    def round_opened(self, body: Body, at: int) -> None:
        if body["round"] in self.opened:
            raise Finding(f"round {body['round']} was opened twice")
        self.opened[body["round"]] = body
        self.rosters[body["round"]] = set(body["members"])

    def round_over(self, body: Body, at: int) -> None:
        """Done, void or failed: one of them, once."""
        if body["round"] in self.over:
            raise Finding(f"round {body['round']} ended twice")
        self.over[body["round"]] = dict(body.get("phi_milli", {}))

    def cited(self, body: Body, house: str) -> None:
        """A slashing names a round that is over, that its party was in, and what it scored it; one
        of its own SubDAO, but where the holders of FLAI decide."""
        round_, party = body["round"], body["party"]
        if round_ not in self.over or party not in self.rosters.get(round_, ()):
            raise Finding(f"slashing {body['id']} cites round {round_}, which shows nothing of it")
        if house != "super" and self.opened[round_]["dao"] != body["dao"]:
            raise Finding(f"slashing {body['id']} cites round {round_} of another SubDAO")
        phi = self.over[round_].get(party)
        if body.get("phi_milli") != (None if phi is None else str(phi)):
            raise Finding(f"slashing {body['id']} cites a φ that round {round_} did not give")

    def share_received(self, body: Body, at: int) -> None:
        place = (len(self.committed), body["slot"], body["party"])
        self.committed.setdefault(body["ticket"], place)

    def sums_taken(self, body: Body, at: int) -> None:
        opened = self.opened.get(body["round"])
        if opened is None or body["round"] in self.normalised:
            raise Finding(f"round {body['round']} was never opened, or is normalised twice")
        self.normalised[body["round"]] = opened["dao"]

    def roster_reduced(self, body: Body, at: int) -> None:
        """Members only leave, and enough stay that no sum is one site's own."""
        opened = self.opened.get(body["round"])
        if opened is None or not set(body["left"]) <= set(opened["members"]):
            raise Finding(f"round {body['round']} leaves out others than its members")
        stay = {pid: role for pid, role in opened["members"].items() if pid not in body["left"]}
        if sum(role == "custodian" for role in stay.values()) < MIN_CUSTODIANS:
            raise Finding(f"round {body['round']} goes on with fewer than {MIN_CUSTODIANS} sites")
        kept = body.get("kept")
        if kept is not None and self.normalised.get(kept) != opened["dao"]:
            raise Finding(f"round {body['round']} keeps sums that its SubDAO never took")
        self.opened[body["round"]] = {**opened, "members": stay, "roster": body["roster"]}

    def round_done(self, body: Body, at: int) -> None:
        self.round_over(body, at)
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
        if any(int(units) != WORK_UNITS_A_ROUND for units in body["work"].values()):
            raise Finding(f"round {body['round']} credits more scoring than a round has")
        says = "acceptance" in body  # those of earlier releases don't, none after one that does
        if self.say_acceptance and not says:
            raise Finding(f"round {body['round']} does not say what a vote on its version is of")
        self.say_acceptance = says
        self.versions[name] = Made(opened, body)
        kept = Kept(list(opened["nodes"]), opened.get("engine", RING))
        self.kept.setdefault(body["model"], [kept])

    def made(self, body: Body) -> Made:
        """The version that a leaf names by SubDAO, number and model."""
        made = self.versions.get((body["dao"], str(body["version"])))
        if made is None or made.done["model"] != body["model"]:
            raise Finding(f"version {body['version']} of {body['dao']} is of no round in the log")
        return made

    def reshared(self, body: Body, at: int, parties: Mapping[str, str]) -> None:
        """A model went to other nodes or another threshold, as all who made it signed; `parties`
        name whose each key is."""
        model, nodes = body["model"], list(body["nodes"])
        made = next((m for m in self.versions.values() if m.done["model"] == model), None)
        if made is None:
            raise Finding(f"model {model[:12]}… went to other nodes and is of no round in the log")
        consents = body.get("consents", ())
        dated = all("expires_at" in one for one in consents)  # of earlier releases they are not
        if self.dated_consents and not dated:
            raise Finding(f"model {model[:12]}… went to other nodes by consents without an end")
        self.dated_consents = self.dated_consents or (dated and bool(consents))
        signed = consenting(
            consents,
            model=model,
            nodes=nodes,
            now=(at - consent.SKEW_MS) // 1000,
            engine=body.get("engine"),
        )
        roles = made.opened["members"]
        makers = {pid for pid, role in roles.items() if role == "custodian"}
        if not makers <= {parties.get(key) for key in signed}:
            raise Finding(f"model {model[:12]}… went to other nodes, which its makers didn't sign")
        self._goes(self.kept[model], nodes, body.get("engine"), at)

    def succeeded(self, body: Body, at: int) -> None:
        """Another key takes a node's place, as that node or enough of the others signed: what the
        old set kept the new one keeps."""
        if not is_succession(dict(body)):
            raise Finding("a node has a successor that not enough nodes of its set signed for")
        said = body["statement"]
        self.successions.append(body)
        for places in self.kept.values():
            if places[0].nodes == said["nodes"]:
                self._goes(places, set_after(said), None, at)

    def _goes(self, places: list[Kept], nodes: list[str], engine: str | None, at: int) -> None:
        places[0].left_ms = at
        places.insert(0, Kept(nodes, engine or places[0].engine))

    def transfer(self, body: Body, at: int, amount: int) -> None:
        """A posted transfer that broke no rule."""
        debit, credit = body["debit"], body["credit"]
        if body["kind"] == QUERY and body["phase"] == "post":
            self.posted[body["pending"]] = Paid(parts(credit)[0], amount)
        if str(body["ref"] or "").startswith(EPOCH_REF) or parts(debit)[1] == "revenue":
            due = self.due.pop(body["id"], None)
            if due is None:
                raise Finding(f"transfer {body['id']} takes revenue for no entitlement of an epoch")
            if (debit, credit, amount) != (due.debit, due.credit, due.amount_micro):
                raise Finding(
                    f"{due.what}: transfer {body['id']} pays {amount} to {credit}, "
                    f"not {due.amount_micro} to {due.credit}"
                )

    def query_held(self, body: Body, at: int) -> None:
        self.held[body["query"]] = (body, at)

    def query_settled(self, body: Body, at: int) -> None:
        query, paid = body["query"], None
        held, asked_ms = self.held.get(body["query"], (None, 0))
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
        cycle.first_ms, cycle.last_ms = min(cycle.first_ms, at), max(cycle.last_ms, at)
        places = self.kept[made.done["model"]]
        for place in places:
            computed = body.get("nodes", place.nodes)
            if asked_ms < place.left_ms + UNDER_WAY_MS and place.computed(computed):
                break
        else:
            takes = f"as many nodes as {places[0].engine} takes, of those that keep the model"
            raise Finding(f"query {query} was not answered by {takes}")
        for node in computed:
            # Who claims a node later is not paid for this; nobody's work is the SubDAO's own.
            operator = self.operators.get(node, paid.dao)
            cycle.jobs[operator] = cycle.jobs.get(operator, 0) + 1

    def epoch(self, body: Body, at: int) -> None:
        dao, number = body["dao"], int(body["epoch"])
        if (dao, number) in self.closed:
            raise Finding(f"epoch {number} of {dao} was settled twice")
        self.closed.add((dao, number))
        if body["policy"] != self.policies.get((dao, number)):
            raise Finding(f"epoch {number}: it is divided by another policy than was in force")
        cycle = self.cycles.get((dao, number), Cycle())
        self._window(dao, number, int(body["starts_at"]), int(body["ends_at"]), cycle)
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
        holdings: dict[str, int] = {}
        if mul_div_floor(sum(earned.values()), int(body["policy"]["sdt_bps"]), BPS):
            holdings = self.holdings(dao, body)
        if int(body["holdings"]) != sum(holdings.values()):
            raise Finding(f"epoch {number}: its holdings are not those of the transfers")
        self._entitled(dao, number, body, settle(body, holdings))

    def _window(self, dao: str, number: int, starts: int, ends: int, cycle: Cycle) -> None:
        """One of its SubDAO's length, from the first sale or from a payment after the end of the
        one before; it has ended when it is closed, and its payments lie within."""
        name, skew = f"epoch {number}", consent.SKEW_MS
        length_s = self.lengths_s.get(dao)
        if ends <= starts or (length_s is not None and ends - starts != 1000 * length_s):
            raise Finding(f"{name}: it had another length than its SubDAO was founded with")
        before, after = (self.windows.get((dao, number + step)) for step in (-1, 1))
        if (before and starts < before[1] - skew) or (after and ends - skew > after[0]):
            raise Finding(f"{name}: it overlaps another one")
        if starts < self.ended.get((dao, number - 1), -AFTER_ALL) - skew:
            raise Finding(f"{name}: it began before the last one was closed")
        if number == 1 and abs(starts - self.on_sale.get(dao, starts)) > skew:
            raise Finding(f"{name}: it did not begin with the first sale")
        if ends > self.ended[dao, number]:
            raise Finding(f"{name}: it was closed before its end")
        if cycle.first_ms < starts - skew or cycle.last_ms >= ends + skew:
            raise Finding(f"{name}: queries were paid into it before or after it")
        self.windows[dao, number] = (starts, ends)

    def _entitled(self, dao: str, number: int, body: Body, settlement: revenue.Settlement) -> None:
        """The tree of entitlements that must follow; from here on its payments are due."""
        epoch, id_, name = body["id"], uuid.UUID(body["id"]), f"epoch {number}"
        owed = entitlements.entitlements(settlement, asset=CURRENCY, own=dao)
        whole = sum(one.amount_micro for one in owed)
        by_role: dict[str, int] = {}
        for one in owed:
            by_role[one.role] = by_role.get(one.role, 0) + one.amount_micro
        if (int(body["entitled"]), integers(body["owed_micro"])) != (len(owed), by_role):
            raise Finding(f"{name}: what it says it owes doesn't follow from φ and holdings")
        if entitlements.root(epoch, owed) != body["root"]:
            raise Finding(f"{name}: its root is not that of the entitlements that follow")
        treasury = settlement.revenue_micro - whole
        if treasury != int(body["treasury_micro"]):
            raise Finding(f"{name}: the treasury's part is wrong")
        source = f"{dao}/revenue/{CURRENCY}"
        for one in owed:
            what = f"{name}, {one.pid} as {one.role}"
            credit = f"{one.pid}/main/{one.asset}"
            paid_by = entitlements.payment_id(id_, asset=one.asset, role=one.role, pid=one.pid)
            self.due[str(paid_by)] = Due(source, credit, one.amount_micro, what)
        if treasury:
            own = f"{dao}/treasury/{CURRENCY}"
            transfer = entitlements.treasury_id(id_)
            self.due[str(transfer)] = Due(source, own, treasury, f"{name}, its treasury")

    def _jobs(self, dao: str, cycle: Cycle) -> dict[str, int]:
        # Where nobody runs a node, nobody is paid for one.
        return cycle.jobs if set(cycle.jobs) - {dao} else {}

    def holdings(self, dao: str, body: Body) -> dict[str, int]:
        """T_i of whoever is no SubDAO: held + staked · boost over the epoch (paper §6.3)."""
        boost = int(body["policy"]["stake_boost_bps"])
        weights: dict[str, int] = {}
        for pid, purpose, changes in self.tokens.changes(self.daos.get(dao, "")):
            if pid in self.daos:
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
        """What is left over when the log is. An entitlement may wait to be claimed for ever; what
        the treasury is owed may not."""
        errors = [
            f"{due.what}: it was not paid"
            for due in self.due.values()
            if parts(due.credit)[1] == "treasury"
        ]
        stray = [hold for hold, paid in self.posted.items() if not paid.settled]
        return errors + [f"hold {hold} was paid but is in no epoch" for hold in stray]


def settle(body: Body, holdings: Mapping[str, int]) -> revenue.Settlement:
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
        holdings=holdings,
        policy=revenue.Policy(**integers(body["policy"])),
    )


def integers(weights: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(value) for name, value in weights.items()}
