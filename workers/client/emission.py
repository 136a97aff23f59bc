"""What a SubDAO's reserve released, replayed: the schedule, conversions, sponsors' parts.

Each transfer out of a reserve or of one of its two pots must belong to a leaf, and each leaf must
be what the rules (`apps.protocol.emission`) give for the balances, points and pledges that the log
had by then, under the schedule that was in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.protocol import emission as rules
from apps.protocol import ledger
from workers.client.accounts import parts
from workers.client.crowdfund import Crowdfunds
from workers.client.earnings import Finding
from workers.client.parameters import Parameters
from workers.client.points import Points

Body = Mapping[str, Any]
Moves = dict[tuple[str, str], int]
POTS = ("reserve", "conversion", "sponsors")


class Reserves:
    """Fed with leaves by `Replay`; each method raises Finding for what does not fit."""

    def __init__(
        self,
        balances: Mapping[str, ledger.Balance],
        crowdfunds: Crowdfunds,
        parameters: Parameters,
        points: Points,
    ) -> None:
        self.balances, self.crowdfunds = balances, crowdfunds
        self.parameters, self.points = parameters, points
        self.sdt: dict[str, str] = {}
        self.moved: dict[str, Moves] = {}
        self.policies: dict[tuple[str, int], dict[str, int]] = {}
        self.ended: dict[tuple[str, int], int] = {}
        self.sponsors: dict[str, int] = {}
        self.taken: dict[tuple[str, str], int] = {}
        self.given_up: dict[str, dict[str, int]] = {}
        self.changes = 0

    def founded(self, body: Body) -> None:
        self.sdt[body["dao"]] = body["sdt"]

    def transfer(self, body: Body, amount: int) -> None:
        sides = debit, credit = body["debit"], body["credit"]
        if parts(debit)[1] not in POTS and parts(credit)[1] not in POTS:
            return
        if parts(debit)[1] == "issuance":
            return  # how much is minted, and to whom, the founding says: see `crowdfund`
        moves = self.moved.setdefault(str(body["ref"]), {})
        moves[sides] = moves.get(sides, 0) + amount

    def emitted(self, body: Body, at: int) -> None:
        """The end of an epoch: its emission, and the policy that it will be divided by."""
        dao, number = body["dao"], int(body["epoch"])
        name = f"emission of epoch {number} of {dao}"
        if (dao, number) in self.policies:
            raise Finding(f"{name} came twice")
        if number != 1 and (dao, number - 1) not in self.policies:
            raise Finding(f"{name} is not the next one's")
        self.policies[dao, number] = self.parameters.policy[dao]
        self.ended[dao, number] = at
        if body["schedule"] != self.parameters.schedule[dao]:
            raise Finding(f"{name} follows another schedule than was voted")
        if body["policy"] != self.parameters.policy[dao]:
            raise Finding(f"{name}: the epoch's policy is not the one in force")
        part = rules.emission(int(body["reserve_micro"]), rules.schedule_of(body["schedule"]))
        said = tuple(int(body[f"{who}_micro"]) for who in ("contributors", "sponsors", "treasury"))
        if said != (part.contributors, part.sponsors, part.treasury):
            raise Finding(f"{name} is not what its schedule gives")
        reserve = self._account(dao, "reserve")
        if self._has(reserve) + part.total != int(body["reserve_micro"]):
            raise Finding(f"{name}: the reserve had another balance")
        parts = zip(("conversion", "sponsors", "treasury"), said)
        due = {(reserve, self._account(dao, to)): micro for to, micro in parts if micro}
        self._moved(f"subdaos.emission:{body['id']}", due, name)
        self.sponsors[dao] = self.sponsors.get(dao, 0) + part.sponsors
        self.given_up[dao] = {}
        self.changes += 1

    def converted(self, body: Body, at: int) -> None:
        """The points' own leaf came just before."""
        dao, pid, x = body["dao"], body["party"], int(body["points_micro"])
        name, tokens, asked = f"conversion {body['id']}", int(body["tokens_micro"]), body["asked"]
        if self.points.converted.pop(body["id"], None) != (dao, pid, x):
            raise Finding(f"{name}: other points were given up than it says")
        if dao not in self.given_up:
            raise Finding(f"{name} came before anything was released")
        if (asked["dao"], int(asked["points_micro"])) != (dao, x) or tokens < int(
            asked["tokens_min_micro"]
        ):
            raise Finding(f"{name} is not what was asked for")
        done = self.given_up[dao].get(pid, 0)
        before = self.points.held[dao, pid] + x
        schedule = rules.schedule_of(self.parameters.schedule[dao])
        if x > rules.convertible(before, done_micro=done, schedule=schedule):
            raise Finding(f"{name} gives up more points than may be converted")
        pot = self._account(dao, "conversion")
        due = rules.converted(
            x,
            all_points_micro=self.points.totals[dao] + x,
            pot_micro=self._has(pot) + tokens,
        )
        if tokens != due:
            raise Finding(f"{name} gives {tokens}, its points are worth {due}")
        moves = {(pot, f"{pid}/main/{self.sdt[dao]}"): tokens}
        self._moved(f"subdaos.conversion:{body['id']}", moves, name)
        self.given_up[dao][pid] = done + x
        self.changes += 1

    def sponsor_paid(self, body: Body, at: int) -> None:
        dao, pid, amount = body["dao"], body["party"], int(body["amount_micro"])
        name, pledges = f"sponsor's part {body['id']}", self.crowdfunds.sponsors.get(dao, {})
        if pid not in pledges:
            raise Finding(f"{name}: {pid} is no sponsor of {dao}")
        taken = self.taken.get((dao, pid), 0)
        due = rules.sponsor_due(
            pledges[pid],
            all_pledged_micro=sum(pledges.values()),
            emitted_micro=self.sponsors.get(dao, 0),
            taken_micro=taken,
        )
        if amount != due:
            raise Finding(f"{name} is {amount}, the pledge's part is {due}")
        moves = {(self._account(dao, "sponsors"), f"{pid}/main/{self.sdt[dao]}"): amount}
        self._moved(f"subdaos.sponsor:{body['id']}", moves, name)
        self.taken[dao, pid] = taken + amount
        self.changes += 1

    def end(self) -> list[str]:
        errors = [f"emission's transfer for {ref} stands without its leaf" for ref in self.moved]
        return errors + [
            f"conversion {id_}: points were given up without it" for id_ in self.points.converted
        ]

    def _moved(self, ref: str, due: Moves, name: str) -> None:
        if self.moved.pop(ref, {}) != due:
            raise Finding(f"{name}: its transfers are not what the rules give")

    def _account(self, dao: str, purpose: str) -> str:
        return f"{dao}/{purpose}/{self.sdt[dao]}"

    def _has(self, account: str) -> int:
        balance = self.balances.get(account)
        return balance.posted_micro if balance else 0
