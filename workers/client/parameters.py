"""A SubDAO's parameters that decide about money, replayed: as founded, then as voted.

Each change is one leaf, made by the proposal that it names, whose payload's hash covers the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from apps.protocol import tally
from apps.protocol.credentials import Access, access_of
from apps.protocol.founding import LATER
from apps.protocol.plans import Plan, plans_of
from apps.protocol.privacy import Budget, budget_of, spent_micro
from apps.protocol.tariff import Tier, tiers_of
from apps.protocol.unlocks import Sponsoring, sponsoring_of
from workers.client.crowdfund import HOUSES
from workers.client.earnings import Finding

Body = Mapping[str, Any]
# parameter → (the kind of proposal that changes it, the house that decides)
VOTED = {
    "price_micro": ("subdaos.set_price", "sdt"),
    "tiers": ("subdaos.set_tiers", "sdt"),
    "plans": ("subdaos.set_plans", "sdt"),
    "scoring": ("subdaos.set_scoring", "sbgt"),
    "engine": ("subdaos.set_engine", "sbgt"),
    "resolution": ("subdaos.set_resolution", "sbgt"),
    "training": ("subdaos.set_training", "sbgt"),
    "privacy": ("subdaos.set_privacy", "sbgt"),
    "emission": ("subdaos.set_emission", "sdt"),
    "split": ("subdaos.set_split", "sdt"),
    "unlocks": ("subdaos.set_unlocks", "sdt"),
    "on_sale": ("listings.set_on_sale", "sdt"),
    "access": ("listings.set_access", "sbgt"),
    "portion_bps": ("listings.set_portion", "sdt"),
    "sponsoring": ("subdaos.set_sponsoring", "super"),
}


class Tariff(NamedTuple):
    """What a row costs from here on; no tiers where a founding did not say them."""

    since_ms: int
    price_micro: int
    tiers: tuple[Tier, ...] | None


class Parameters:
    """`policy`, `schedule`, `unlocks`, `rules`, `price`, `plans`, `engine` and `budget` of each
    SubDAO, as they are in force here in the log: as founded, then as voted; and what was spent."""

    def __init__(self) -> None:
        self.policy: dict[str, dict[str, int]] = {}
        self.schedule: dict[str, dict[str, int]] = {}
        self.unlocks: dict[str, dict[str, int]] = {}
        self.sponsoring = Sponsoring()  # of the SuperDAO, which begins with the default
        self.price: dict[str, int] = {}
        self.rules: dict[str, dict[str, int]] = {}
        self.superdao: str | None = None
        self.plans: dict[str, tuple[Plan, ...]] = {}
        self.tiers: dict[str, tuple[Tier, ...]] = {}
        self.rebate_bps: dict[str, int] = {}
        self.tariffs: dict[str, list[Tariff]] = {}  # in the order of the log
        self.told = False
        self.engine: dict[str, str] = {}  # the ring where neither founding nor vote says another
        self.budget: dict[str, Budget | None] = {}
        self.retired: dict[str, int] = {}  # since when nobody is sold an answer
        self.access: dict[
            str, list[tuple[int, Access | None]]
        ] = {}  # since when, in the log's order
        self.spent: dict[str, int] = {}  # ρ of rounds that made a model, in millionths
        self.open: dict[str, Body] = {}  # rounds, by their id: each may spend its part yet

    def founded(self, body: Body) -> None:
        self.rules[body["dao"]] = tally.rules_of(body["rules"])
        self.policy[body["dao"]] = dict(body["policy"])
        if "engine" in body:
            self.engine[body["dao"]] = str(body["engine"])
        self.schedule[body["dao"]] = dict(body["emission"])
        self.unlocks[body["dao"]] = dict(body["unlocks"])
        self.plans[body["dao"]] = plans_of(body.get("plans", []))  # founded before there were any
        self.budget[body["dao"]] = budget_of(body.get("privacy"))
        if "price_micro" in body:  # the first sale tells it of those founded before this was said
            self.price[body["dao"]] = int(body["price_micro"])
        told = all(name in body for name in LATER)
        if self.told and not told:
            raise Finding(f"SubDAO {body['dao']} was founded with fewer terms than one before it")
        self.told = told
        if told:
            self.tiers[body["dao"]] = tiers_of(body["tiers"])
            self.rebate_bps[body["dao"]] = int(body["rebate_bps"])

    def on_sale(self, dao: str, price_micro: int) -> bool:
        """Is it the price in force? The first sale tells that of who was founded without one."""
        right = self.price.setdefault(dao, price_micro) == price_micro
        if dao not in self.tariffs:
            self.priced(dao, -(2**63))
        return right

    def priced(self, dao: str, at: int) -> None:
        """Price and tiers are in force from here on."""
        one = Tariff(at, self.price[dao], self.tiers.get(dao))
        self.tariffs.setdefault(dao, []).append(one)

    def proposed(self, body: Body, at: int) -> None:
        """It runs by the rules of its DAO; in the vote on a request the times may be the request's
        own. Raises Finding."""
        name, rules = f"proposal {body['proposal']}", self._rules(body)
        own = tally.OWN_TIMES if body["kind"] in HOUSES else ()
        told = ("quorum_bps", "threshold_bps", "timelock_s", "grace_s")
        said = {key: int(body[key]) for key in told}
        starts, ends = int(body["starts_at"]), int(body["ends_at"])
        said |= {"voting_delay_s": _seconds(at, starts), "voting_period_s": _seconds(starts, ends)}
        for key, value in said.items():
            if key not in own and value != rules[key]:
                raise Finding(f"{name} runs by {key} {value}, its DAO's is {rules[key]}")

    def extended(self, body: Body, at: int, ends_at: int) -> int:
        """The latest end that a vote at this time may give the proposal of this leaf."""
        late_ms = 1000 * self._rules(body)["late_quorum_s"]
        return max(ends_at, at + late_ms + 1) if late_ms else ends_at

    def _rules(self, body: Body) -> dict[str, int]:
        """Of the DAO of a proposal's leaf: there is one SuperDAO, and it is no SubDAO."""
        dao = body["dao"]
        if body["house"] != "super":
            return self.rules[dao]
        self.superdao = self.superdao or dao
        if dao != self.superdao or dao in self.rules:
            raise Finding(f"proposal {body['proposal']} is put to another DAO than the SuperDAO")
        return tally.SUPERDAO_RULES

    def changed(self, body: Body, at: int, voted: Body) -> None:
        """By exactly the proposal that was voted on. Raises Finding."""
        dao, key, value = body["dao"], body["key"], body["value"]
        if key not in VOTED:
            raise Finding(f"proposal {body['proposal']} changed {key}, which no vote changes")
        kind, house = VOTED[key]
        hash_ = tally.payload_hash(dao=dao, kind=kind, payload={key: value})
        asked = (dao, house, kind, hash_)
        if tuple(voted[name] for name in ("dao", "house", "kind", "payload_hash")) != asked:
            raise Finding(f"proposal {body['proposal']}: {key} changed to what nobody voted on")
        if key == "emission":
            self.schedule[dao] = dict(value)
        if key == "unlocks":
            self.unlocks[dao] = dict(value)
        if key == "sponsoring":
            self.sponsoring = sponsoring_of(value)
        if key == "on_sale":
            self.retired.pop(dao, None)
            if not value:
                self.retired[dao] = at
        if key == "access":
            self.access.setdefault(dao, []).append((at, access_of(value)))
        if key == "price_micro":
            self.price[dao] = int(value)
        if key == "tiers":
            self.tiers[dao] = tiers_of(value)
        if key in ("price_micro", "tiers") and dao in self.tariffs:
            self.priced(dao, at)
        if key == "engine":
            self.engine[dao] = str(value)
        if key == "privacy":
            self.budget[dao] = budget_of(value)
        if key == "plans":
            self.plans[dao] = plans_of(value)
        if key == "split":
            self.policy[dao] = self.policy[dao] | dict(value)

    def round_opened(self, body: Body) -> None:
        """With the noise that was voted for, and a budget that is not used up, once the rounds that
        are open spend theirs. Raises Finding."""
        dao, name = body["dao"], f"round {body['round']}"
        budget = self.budget.get(dao)
        if body.get("privacy", {}) != (budget.params if budget else {}):
            raise Finding(f"{name} makes its model with another noise than was voted for")
        beside = (one.get("privacy", {}) for one in self.open.values() if one["dao"] == dao)
        spent = self.spent.get(dao, 0) + spent_micro(beside)
        self.open[body["round"]] = body
        if budget and not budget.rounds_left(spent):
            raise Finding(f"{name} was opened although its SubDAO's privacy budget is used up")

    def round_done(self, body: Body, opened: Body) -> None:
        """Spends what it was opened with. Raises Finding."""
        if body.get("privacy", {}) != opened.get("privacy", {}):
            raise Finding(f"round {body['round']} spent another privacy than it was opened with")
        self.round_over(body, opened)

    def round_over(self, body: Body, opened: Body) -> None:
        """One that failed has spent it too, if its nodes had signed for a model: it says so then.
        Raises Finding."""
        self.open.pop(body["round"], None)
        told = body.get("privacy", {})
        if told not in ({}, opened.get("privacy", {})):
            raise Finding(f"round {body['round']} spent another privacy than it was opened with")
        self.spent[body["dao"]] = self.spent.get(body["dao"], 0) + spent_micro([told])


def _seconds(since_ms: int, until_ms: int) -> int:
    """Between two times, of which the log may tell the later one rounded up to its millisecond."""
    return (until_ms - since_ms) // 1000
