"""Who takes part, replayed: a SubDAO's members are those whom its votes let in and have not put out
since, each by an application that is in the log, and a round has all of them, in their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.client.earnings import Finding

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Application:
    party: str
    role: str
    call: str


class Members:
    """Fed with leaves by `Replay`, which asks `Votes` whether there was a vote."""

    def __init__(self) -> None:
        self.applications: dict[str, Application] = {}
        self.calls: dict[str, str] = {}  # the SubDAO that let in applicants of a call
        self.of: dict[str, dict[str, str]] = {}  # {SubDAO: {party: role}}

    def applied(self, body: Body) -> None:
        if body["id"] in self.applications:
            raise Finding(f"application {body['id']} was filed twice")
        self.applications[body["id"]] = Application(body["party"], body["role"], body["call"])

    def let_in(self, body: Body) -> None:
        for one in self._named(body):
            if self.calls.setdefault(one.call, body["dao"]) != body["dao"]:
                raise Finding(f"{body['dao']} let in who applied to another SubDAO")
            self.of.setdefault(body["dao"], {})[one.party] = one.role

    def put_out(self, body: Body) -> None:
        for one in self._named(body):
            if self.of.get(body["dao"], {}).pop(one.party, None) is None:
                raise Finding(f"{body['dao']} put out {one.party}, who is no member")

    def round_opened(self, body: Body) -> None:
        """Raises: Finding, by the parties that are not there or should not be."""
        voted, there = self.of.get(body["dao"], {}), dict(body["members"])
        if there != voted:
            differ = sorted(p for p in {*voted, *there} if voted.get(p) != there.get(p))
            raise Finding(
                f"round {body['round']} has other members than were voted in: {', '.join(differ)}"
            )

    def _named(self, body: Body) -> Sequence[Application]:
        unknown = [id_ for id_ in body["applications"] if id_ not in self.applications]
        if unknown:
            raise Finding(f"{body['dao']} let in or put out application {unknown[0]}, never filed")
        return [self.applications[id_] for id_ in body["applications"]]


__all__ = ["Members"]
