"""The stack that a scenario plays on: the story's SubDAO, its members' votes and their agents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from apps.protocol import wire
from workers.client.agent import Agent
from workers.client.api import Api, ClientError, wait_for
from workers.client.home import Home
from workers.demo.cast import BACKERS

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 180.0
Json = dict[str, Any]


@dataclass
class Stage:
    """The running stack and who plays on it."""

    url: str
    home: Path
    own: dict[str, str]

    def __post_init__(self) -> None:
        self.api = Api(self.url)
        self.about = json.loads((self.home / "demo" / "sites" / "sites.json").read_text())
        self.roles = {site["slug"]: site["role"] for site in self.about["sites"]}
        state = json.loads((self.home / "demo" / "state.json").read_text())
        self.steps = state["steps"]
        self.dao = self.steps["subdao"]
        self.slugs = {key: state["cast"][key]["slug"] for key in self.roles}
        self.homes = {key: self.home_of(key) for key in self.roles}
        self.members = [home.api() for home in self.homes.values()]  # of the SBGT house
        self.owners = [self.home_of(one.key).api() for one in BACKERS]  # of the SDT house

    @property
    def custodians(self) -> list[str]:
        return [key for key, role in self.roles.items() if role == "custodian"]

    @property
    def validators(self) -> list[str]:
        return [key for key, role in self.roles.items() if role == "validator"]

    @property
    def points(self) -> dict[str, int]:
        held = self.api.get(f"subdaos/{self.dao}/")["sbgt"]
        return {row["party"]["slug"]: int(row["points_micro"]) for row in held}

    def home_of(self, key: str) -> Home:
        """A participant's, told where the site is: it has another port than in the story."""
        demo = self.home / "demo"
        home = Home(next(filter(Path.is_dir, (demo / "sites" / key, demo / "people" / key))))
        home.connect(url=self.url, api_key=home.api_key_path.read_text().strip())
        return home

    # -- votes

    def proposed(self, kind: str, payload: Json, *, owners: bool = False) -> str:
        """A proposal of one of the story's members, or owners, which all of them vote for."""
        asked = {"dao": self.dao, "kind": kind, "payload": payload, "title": "Go on"}
        proposer = (self.owners if owners else self.members)[0]
        proposal = proposer.post("proposals/", asked)["id"]
        self.vote_for(proposal, owners=owners)
        return str(proposal)

    def vote_for(self, proposal: str, *, owners: bool = False) -> None:
        """Who is late is not needed where the others carry it, which `executed` tells."""

        def one(voter: Api) -> None:
            try:
                voter.post(f"proposals/{proposal}/votes/", {"support": "for"})
            except ClientError as error:
                if error.code != "voting_closed":
                    raise

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, self.owners if owners else self.members))

    def executed(self, *proposals: str) -> None:
        """Waits until what was voted for is done."""
        for proposal in proposals:
            wait_for(
                lambda p=proposal: self.api.get(f"proposals/{p}/")["state"] == "executed",
                deadline_s=PATIENCE_S,
                what="the vote",
                every_s_max=0.2,
            )

    # -- processes

    @property
    def _running(self) -> Json:
        return dict(json.loads((self.home / "stack.json").read_text()))

    @property
    def supervisor(self) -> int:
        return int(self._running["pid"])

    @property
    def database(self) -> str:
        return str(self._running["environment"]["DATABASE_URL"])

    def service(self, *words: str) -> int:
        """The process of the service whose command has these words."""
        children = Path(f"/proc/{self.supervisor}/task").glob("*/children")
        for pid in " ".join(path.read_text() for path in children).split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if set(words) <= set(command):
                return int(pid)
        raise AssertionError(f"no service of {words}")

    # -- rounds

    def opened(self) -> str:
        """Another round, by the members' vote."""
        self.proposed("training.open_round", {})
        return self.current("moments")

    def current(self, phase: str) -> str:
        """The SubDAO's round, once it is in this phase."""

        def found() -> str | None:
            seen = self.api.get(f"subdaos/{self.dao}/")["current_round"]
            return seen["id"] if seen["phase"] == phase else None

        return wait_for(found, deadline_s=PATIENCE_S, what="the round", every_s_max=0.2)

    def round(self, round_id: str) -> Json:
        return self.api.get(f"rounds/{round_id}/")

    def page(self, round_id: str) -> str:
        return httpx.get(f"{self.url}/rounds/{round_id}/").text

    def until(self, round_id: str, seen: Callable[[Json], Any], what: str) -> Json:
        def look() -> Json | None:
            found = self.round(round_id)
            assert found["phase"] != "failed", found["reason"]
            return found if seen(found) else None

        return wait_for(look, deadline_s=PATIENCE_S, what=what, every_s=0.05, every_s_max=0.2)

    def act(self, key: str, step: str, round_id: str, **options: Any) -> list[str]:
        """One step of a site's agent, here; what it said."""
        said: list[str] = []
        agent = Agent(self.homes[key], self.roles[key], say=said.append, **options)
        getattr(agent, step)(subdao=self.dao, round_id=round_id)
        return said

    def process(self, key: str, step: str, round_id: str, *more: str) -> subprocess.Popen[str]:
        """The same as a process of its own, whose requests are recorded."""
        return self.command(key, step, "--subdao", self.dao, "--round", round_id, *more)

    def command(self, key: str, *words: str) -> subprocess.Popen[str]:
        """A site's agent as a process."""
        who = [self.roles[key], "--home", str(self.homes[key].path)]
        return self.python("-m", "workers.client", *who, *words)

    def python(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def all_act(self, keys: Iterable[str], step: str, round_id: str, **options: Any) -> None:
        """Two at a time, as in the story."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda key: self.act(key, step, round_id, **options), keys))

    def leaves(self, *ids: str, end: str = "training.round_done") -> list[Json]:
        """All entries of the log about a round and more, once one of this type is among them."""

        def found() -> list[Json] | None:
            size, start, about = self.api.get("log/head/")["size"], 0, []
            while start < size:
                page = self.api.get("log/entries/", start=start, end=size)["results"]
                start += len(page)
                read = [json.loads(wire.unb64(entry["leaf_b64"])) for entry in page]
                texts = [wire.canonical(leaf).decode() for leaf in read]
                about += [x for x, text in zip(read, texts) if any(id_ in text for id_ in ids)]
            return about if any(leaf["type"] == end for leaf in about) else None

        return wait_for(found, deadline_s=PATIENCE_S, what="the log")
