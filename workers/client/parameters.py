"""A SubDAO's parameters that decide about money, replayed: as founded, then as voted.

Each change is one leaf, made by the proposal that it names, whose payload's hash covers the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.protocol import tally
from apps.protocol.plans import Plan, plans_of
from apps.protocol.unlocks import Sponsoring, sponsoring_of
from workers.client.earnings import Finding

Body = Mapping[str, Any]
# parameter → (the kind of proposal that changes it, the house that decides)
VOTED = {
    "price_micro": ("subdaos.set_price", "sdt"),
    "tiers": ("subdaos.set_tiers", "sdt"),
    "plans": ("subdaos.set_plans", "sdt"),
    "scoring": ("subdaos.set_scoring", "sbgt"),
    "resolution": ("subdaos.set_resolution", "sbgt"),
    "training": ("subdaos.set_training", "sbgt"),
    "emission": ("subdaos.set_emission", "sdt"),
    "split": ("subdaos.set_split", "sdt"),
    "unlocks": ("subdaos.set_unlocks", "sdt"),
    "sponsoring": ("subdaos.set_sponsoring", "super"),
}


class Parameters:
    """`policy`, `schedule`, `unlocks`, `price` and `plans` of each SubDAO, as they are in force
    here in the log. A price is known from the first sale on; then votes alone change it."""

    def __init__(self) -> None:
        self.policy: dict[str, dict[str, int]] = {}
        self.schedule: dict[str, dict[str, int]] = {}
        self.unlocks: dict[str, dict[str, int]] = {}
        self.sponsoring = Sponsoring()  # of the SuperDAO, which begins with the default
        self.price: dict[str, int] = {}
        self.plans: dict[str, tuple[Plan, ...]] = {}

    def founded(self, body: Body) -> None:
        self.policy[body["dao"]] = dict(body["policy"])
        self.schedule[body["dao"]] = dict(body["emission"])
        self.unlocks[body["dao"]] = dict(body["unlocks"])
        self.plans[body["dao"]] = plans_of(body.get("plans", []))  # founded before there were any

    def changed(self, body: Body, voted: Body) -> None:
        """By exactly the proposal that was voted on. Raises Finding."""
        dao, key, value = body["dao"], body["key"], body["value"]
        if key not in VOTED:
            raise Finding(f"proposal {body['proposal']} changed {key}, which no vote changes")
        kind, house = VOTED[key]
        hash_ = tally.payload_hash(dao=dao, kind=kind, payload={key: value})
        if (voted["dao"], voted["house"], voted["payload_hash"]) != (dao, house, hash_):
            raise Finding(f"proposal {body['proposal']}: {key} changed to what nobody voted on")
        if key == "emission":
            self.schedule[dao] = dict(value)
        if key == "unlocks":
            self.unlocks[dao] = dict(value)
        if key == "sponsoring":
            self.sponsoring = sponsoring_of(value)
        if key == "price_micro":
            self.price[dao] = int(value)
        if key == "plans":
            self.plans[dao] = plans_of(value)
        if key == "split":
            self.policy[dao] = self.policy[dao] | dict(value)
