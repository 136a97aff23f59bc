"""An agent as a service: it finds the rounds whose roster names this site, and takes part by what
agent.toml allows.

    look → each round: what is due here now? → check, show, journal, send → wait → look again

agent.toml:  subdaos = ["…"]     rounds of these only; "any" for all that name this site
             circuits = ["…"]    only these computations (default: those of this release)
             min_sites = 3       only rosters with so many custodians
             every_s = 15        how often to look
             share_rows = true   consent to rounds that train on shared rows (default: held back)
             keep_rows = true    and that nodes keep them for the rounds of an epoch (default: no)
             share_sums = true   consent to rounds that solve a regression from sums of products
             curve = false       but to none that open the loss after each epoch (default: true)
             keep = false        validators: share the holdout anew in each round (default: nodes
                                 keep it for those of an epoch, and each gets a ticket)
             [subdao.NAME]       data, label, strata, train … for that SubDAO

Its whole memory is the home's journal. Killed at any moment and started again, it goes on with the
share that it had made: no round gets two from it. What holds a round back is said and journalled
once; a person decides then.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from apps.protocol.circuits import CIRCUITS
from workers.client.agent import Agent
from workers.client.api import Api, ClientError
from workers.client.home import Home
from workers.client.joining import CUSTODIAN, MOMENTS, ROUND, VALIDATOR, Print
from workers.client.outbox import Outbox

EVERY_S, EVERY_S_MAX = 15.0, 3600.0


class Service:
    """One home in one role. `say` gets each line that the person at the site should see.

    Raises: ClientError where agent.toml is not one to run unattended by.
    """

    def __init__(
        self,
        home: Home,
        role: str,
        *,
        say: Print = print,
        api: Api | None = None,
        dry_run: bool = False,
    ) -> None:
        self.home = home
        self.role = role
        self.say = say
        self.dry_run = dry_run
        self.subdaos, self.every_s = _policy(home)
        self._api = api or home.api()
        self._silent = False

    def run(self, *, once: bool = False) -> None:
        """Look until interrupted, or once. A server that does not answer is asked again."""
        with self._alone():
            names = self.subdaos or ["any that names this site"]
            self.say(f"Serving as {self.role} for {', '.join(names)}, by {self.home.path}.")
            pause = threading.Event()
            try:
                while True:
                    self._look_if_answered(raising=once)
                    if once:
                        return
                    pause.wait(self.every_s)
            except KeyboardInterrupt:
                self.say("Stopped. What was begun goes on at the next start.")

    def look(self) -> None:
        """All that is due now. One round's trouble keeps no other one waiting."""
        for brief in list(self._api.every("me/rounds/")):
            if self.subdaos is not None and brief["dao"] not in self.subdaos:
                self._once(brief, "not_in_policy", f"agent.toml does not name {brief['dao']}.")
                continue
            try:
                self._take_part(brief)
            except ClientError as error:
                if error.code == "unreachable":
                    raise
                self._once(brief, error.code, error.text)

    def _look_if_answered(self, *, raising: bool) -> None:
        try:
            self.look()
            self._silent = False
        except ClientError as error:
            if raising:
                raise
            if not self._silent:
                self.say(f"{error.text} Looking again every {self.every_s:g} s.")
            self._silent = True

    def _take_part(self, brief: Mapping[str, Any]) -> None:
        current = self._api.get(f"rounds/{brief['id']}/")
        step = self._due(current)
        if step is None:
            return
        home = self.home.for_subdao(brief["dao"])
        self.say(f"{brief['dao']}, round {brief['number']}, {brief['phase']}:")
        agent = Agent(
            home,
            self.role,
            say=self.say,
            api=self._api,
            dry_run=self.dry_run,
            share_rows=home.config.get("share_rows") is True,
            keep_rows=home.config.get("keep_rows") is True,
            share_sums=home.config.get("share_sums") is True,
        )
        getattr(agent, step)(subdao=brief["dao"], round_id=brief["id"])

    def _due(self, current: Mapping[str, Any]) -> str | None:
        """The agent's step that this round waits for, or None."""
        phase = current["phase"]
        if phase == "updates":
            if self.home.journal.last("withdrawing", round=current["id"]):
                return None  # a person took it back; only a person shares again
            return None if self._outbox.done(current, ROUND) else "train"
        if self.role == CUSTODIAN and phase == "moments":
            return None if self._outbox.done(current, MOMENTS) else "normalise"
        # where the normalisation is kept, custodians too only say how many rows they bring
        says_rows = self.role == VALIDATOR or current["summed"]
        if says_rows and phase in ("moments", "normalising"):
            said = self.home.journal.last("rows_declared", round=current["id"])
            return None if said else "normalise"
        return None

    @property
    def _outbox(self) -> Outbox:
        return Outbox(self.home, self.role, api=self._api, say=self.say)

    def _once(self, brief: Mapping[str, Any], code: str, why: str) -> None:
        """Say and journal what holds a round back, unless that was its last trouble already."""
        about = {"round": brief["id"], "phase": brief["phase"]}
        before = self.home.journal.last("held_back", **about)
        if before is not None and before["why"] == why:
            return
        self.say(f"{brief['dao']}, round {brief['number']}: held back. {why}")
        if not self.dry_run:
            self.home.journal.write("held_back", dao=brief["dao"], **about, code=code, why=why)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One service a home: two would each make a share."""
        with (self.home.path / "service.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ClientError(
                    f"A service of {self.home.path} runs already.", code="running"
                ) from None
            yield


def _policy(home: Home) -> tuple[list[str] | None, float]:
    """(SubDAOs or None for any, seconds between looks). Raises: ClientError."""
    path, config = home.path / "agent.toml", home.config
    wanted = config.get("subdaos")
    if wanted != "any" and not (wanted and _texts(wanted)):
        raise ClientError(
            f'{path} must say for which SubDAOs this site takes part: subdaos = ["…"], or "any".'
        )
    circuits = config.get("circuits", [])
    if not _texts(circuits):
        raise ClientError(f'{path}: circuits must be a list like ["moments@1"].')
    unknown = sorted(set(circuits) - set(CIRCUITS))
    if unknown:
        raise ClientError(f"{path}: this release has no circuit {', '.join(unknown)}.")
    every_s = config.get("every_s", EVERY_S)
    if type(every_s) not in (int, float) or not 1 <= every_s <= EVERY_S_MAX:
        raise ClientError(f"{path}: every_s must be a number from 1 to {EVERY_S_MAX:g}.")
    return None if wanted == "any" else list(wanted), float(every_s)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
