"""The paper's use case (§9), played through the REST API, each participant by its own key.

The story knows the sites by name only. Who contributes is found by the nodes; who is paid follows
from that. Every step is done once: a story that was interrupted goes on where it stopped. Here is
what the phases share; they are in founding, making and selling, and in report.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workers.client.api import Api, ClientError, wait_for
from workers.demo import agents, request
from workers.demo.cast import BACKERS, COMPANY, OPERATORS, Cast, State
from workers.demo.screen import Screen

TOKEN = 1_000_000
STAKE_MICRO = 1_000 * TOKEN
WAIT_S = 60.0


class Story:
    """`network`: a neural network is asked for, for which sites share their rows."""

    def __init__(
        self,
        *,
        url: str,
        root: Path,
        state: State,
        screen: Screen,
        nodes: Path | None,
        network: bool = False,
    ) -> None:
        self.root = root
        self.network = network
        self.state = state
        self.screen = screen
        self.nodes = nodes
        self.cast = Cast(url, root, state)
        self.public = Api(url)
        self.sites = json.loads((root / "sites" / "sites.json").read_text(encoding="utf-8"))
        self.custodians = [s["slug"] for s in self.sites["sites"] if s["role"] == "custodian"]
        self.validators = [s["slug"] for s in self.sites["sites"] if s["role"] == "validator"]
        self.buyers = [b["slug"] for b in self.sites["buyers"]]

    # -- who and where

    @property
    def members(self) -> list[str]:
        """Whoever holds SBGT: custodians and validators."""
        return self.custodians + self.validators

    @property
    def rfm(self) -> str:
        return self.state.get("rfm")["slug"]

    @property
    def subdao(self) -> str:
        return self.state.get("subdao")

    def name(self, key: str) -> str:
        return self.cast.entry(key)["name"]

    def log_path(self, key: str) -> Path:
        return self.root / "logs" / f"{key}.log"

    # -- what several phases do

    def proposal(self, dao: str, kind: str) -> dict[str, Any]:
        """The newest proposal of that kind, once it is there."""

        def found() -> dict[str, Any] | None:
            for item in self.public.get("proposals/", dao=dao)["results"]:
                if item["kind"] == kind:
                    return item
            return None

        return wait_for(found, deadline_s=WAIT_S, what=f"the proposal {kind}")

    def vote(self, proposal_id: str, voters: list[str], support: str) -> None:
        """Each casts its vote. One that voted in an interrupted run is left alone, and so is one
        that comes too late: the proposal says whether it passed."""

        def one(key: str) -> None:
            try:
                self.cast.api(key).post(f"proposals/{proposal_id}/votes/", {"support": support})
            except ClientError as error:
                if error.code not in ("already_voted", "voting_closed"):
                    raise

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, voters))

    def decided(self, proposal_id: str) -> dict[str, Any]:
        """The proposal, once it is executed or will never be."""

        def over() -> dict[str, Any] | None:
            item = self.public.get(f"proposals/{proposal_id}/")
            return (
                item if item["state"] in ("executed", "defeated", "expired", "canceled") else None
            )

        deadline_s = WAIT_S + request.VOTE_MAX_S
        return wait_for(over, deadline_s=deadline_s, what="the vote's end", every_s_max=0.3)

    def stake(self, key: str) -> None:
        name = f"stake {key}"
        body = {"asset": "FLAI", "amount_micro": str(STAKE_MICRO)}
        self.state.step(
            name,
            lambda: (
                self.cast.api(key).post(
                    "wallet/stakes/", body, idempotency_key=self.state.key(name)
                )
                and True
            ),
        )

    def submit(self, who: str, slug: str) -> str:
        api = self.cast.api(who)
        item = api.get(f"rfms/{slug}/")
        if item["status"] == "draft":
            item = api.post(f"rfms/{slug}/submit/")
        return item["proposal_id"]

    def agent(self, key: str, role: str, step: str, *arguments: str) -> None:
        home = str(self.cast.home_path(key))
        agents.run(
            "workers.client", [role, "--home", home, step, *arguments], log=self.log_path(key)
        )

    # -- what is remembered for the report

    def remember_money(self, name: str, keys: list[str]) -> dict[str, int]:
        return self.state.step(name, lambda: {key: self.cast.balance(key) for key in keys})

    def paid_people(self) -> list[str]:
        return [
            *(backer.key for backer in BACKERS),
            COMPANY.key,
            *self.members,
            *(operator.key for operator in OPERATORS),
            *self.buyers,
        ]

    def remember_end(self) -> None:
        """Everybody's money at the end, where no epoch has paid it out."""
        self.remember_money("before queries", self.paid_people())
        self.remember_money("after", self.paid_people())

    def answers(self, key: str) -> list[float]:
        steps = self.state.data["steps"]
        number, found = 0, []
        while f"query {key} {number}" in steps:
            found.append(steps[f"query {key} {number}"])
            number += 1
        return found


def brief(rfm: dict[str, Any]) -> dict[str, Any]:
    return {"slug": rfm["slug"], "title": rfm["title"]}
