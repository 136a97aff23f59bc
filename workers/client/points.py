"""Soul-bound points, replayed: who has which π, and by which rule each change came.

    π′ = π + 1 point     for a verified commitment, when the SubDAO is founded
    π′ = π + φ or π + work in a finished round, for its members; λ·π for everybody else (eq. 12)
    π′ = max(π − x, 0)   by a vote that names the party and x
    π′ = π − x           by a conversion of x by their owner (`emission`)

There is no other rule: points that moved from one party to another would be two changes that none
of them explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.protocol import decay
from workers.client.holdings import value_at

Body = Mapping[str, Any]
ROUND = ("round", "decay")


class Points:
    """Fed with leaves by `Replay`; each method returns what is wrong, or None."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], int] = {}
        self.history: dict[str, dict[str, list[tuple[int, int]]]] = {}
        self.totals: dict[str, int] = {}
        self.converted: dict[str, tuple[str, str, int]] = {}
        self.founded: dict[str, Body] = {}
        self.changed: dict[str, dict[str, int]] = {}
        self.trained: set[str] = set()

    def change(self, body: Body, at: int) -> str | None:
        """A member's new π, from its leaf's time on, or from the last change's if that is later. A
        round's changes are judged with the round."""
        dao, pid, since = body["dao"], body["party"], int(body["from"])
        course = self.history.setdefault(dao, {}).setdefault(pid, [])
        wrong = self._by_rule(body)
        if since != (max(at, course[-1][0]) if course else at):
            wrong = wrong or f"the points of {pid} in {dao} were changed for another time"
        course.append((since, self.held[dao, pid]))
        return wrong

    def _by_rule(self, body: Body) -> str | None:
        dao, pid, reason, ref = body["dao"], body["party"], body["reason"], body["ref"]
        before, after = self.held.get((dao, pid), 0), int(body["points_micro"])
        self.held[dao, pid] = after
        self.totals[dao] = self.totals.get(dao, 0) + after - before
        if reason in ROUND:
            self.changed.setdefault(ref, {}).setdefault(pid, before)
            return None
        if reason == "commitment":
            at_founding = dao not in self.trained and ref == self.founded.get(dao, {}).get("rfm")
            right = at_founding and after == before + decay.COMMITMENT_MICRO
            return None if right else f"{pid} was given points of {dao} for no commitment"
        if reason == "revoked":
            return None  # by how much, the vote says: see Replay
        if reason == "converted":
            taken = int(body["taken_micro"])
            if not 0 < taken == before - after:
                return f"the points of {pid} in {dao} fell by another sum than was converted"
            self.converted[ref] = (dao, pid, taken)
            return None
        return f"the points of {pid} in {dao} were changed for no rule ({reason})"

    def at(self, dao: str, at_ms: int) -> dict[str, int]:
        """{pid: its π > 0 at the end of that millisecond}, by the leaves so far."""
        held = {pid: value_at(one, at_ms) for pid, one in self.history.get(dao, {}).items()}
        return {pid: micro for pid, micro in held.items() if micro > 0}

    def round_done(self, done: Body, roles: Mapping[str, str]) -> str | None:
        """Everybody's π in the SubDAO after a finished round is what eq. 12 gives."""
        dao, before = done["dao"], self.changed.pop(done["round"], {})
        self.trained.add(dao)
        members = {pid for known, pid in self.held if known == dao} | set(roles)
        for pid in sorted(members):
            held = self.held.get((dao, pid), 0)
            due = decay.next_points(
                before.get(pid, held),
                earned_micro=_earned(done, pid, roles.get(pid)),
                active=pid in roles,
                decay_ppm=int(self.founded[dao]["decay_ppm"]),
            )
            if held != due:
                return f"round {done['round']}: {pid} has {held} points, eq. 12 gives {due}"
        return None

    def end(self) -> list[str]:
        return [f"points were changed for round {id_}, which did not end" for id_ in self.changed]


def _earned(done: Body, pid: str, role: str | None) -> int:
    if role == "custodian":
        return decay.points_of_phi(int(done["phi_milli"][pid]))
    return int(done["work"][pid]) * decay.POINT_MICRO if role == "validator" else 0
