"""Soul-bound points, replayed: who has which π, and by which rule each change came.

    π′ = π + 1 point     for a verified commitment, once, when the SubDAO is founded
    π′ = π + φ or π + work in a finished round, for its members; λ·π for everybody else (eq. 12)
    π′ = max(π − x, 0)   by a vote that names the party and x
    π′ = π − x           by a conversion of x by their owner (`emission`)

There is no other rule: points that moved from one party to another would be two changes that none
of them explains. The leaves of a round's changes and of its end are one transaction's, under the
SubDAO's lock: nothing is counted between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.protocol import decay
from workers.client.earnings import Finding
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
        # By (SubDAO, round): what those had before whose points a round has changed.
        self.changed: dict[tuple[str, str], dict[str, int]] = {}
        self.applicants: set[str] = set()
        self.committed: set[tuple[str, str]] = set()
        self.awarded: set[str] = set()  # requests, whose SubDAO has been founded by then

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
            changed = self.changed.setdefault((dao, ref), {})
            twice = pid in changed
            changed.setdefault(pid, before)
            return f"the points of {pid} were changed twice for round {ref}" if twice else None
        if self._unfinished(dao):
            return f"the points of {pid} in {dao} were changed while a round's were"
        if reason == "commitment":
            right = ref == self.founded.get(dao, {}).get("rfm") and ref not in self.awarded
            right = right and pid in self.applicants and (dao, pid) not in self.committed
            right = right and after == before + decay.COMMITMENT_MICRO
            self.committed.add((dao, pid))
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
        """{pid: its π > 0 at the end of that millisecond}, by the leaves so far. Raises Finding."""
        if self._unfinished(dao):
            raise Finding(f"points of {dao} were counted while a round changed them")
        held = {pid: value_at(one, at_ms) for pid, one in self.history.get(dao, {}).items()}
        return {pid: micro for pid, micro in held.items() if micro > 0}

    def _unfinished(self, dao: str) -> bool:
        return any(known == dao for known, _ in self.changed)

    def round_done(self, done: Body, roles: Mapping[str, str]) -> str | None:
        """Everybody's π in the SubDAO after a finished round is what eq. 12 gives."""
        dao = done["dao"]
        before = self.changed.pop((dao, done["round"]), {})
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
        rounds = [id_ for _, id_ in self.changed]
        return [f"points were changed for round {id_}, which did not end" for id_ in rounds]


def _earned(done: Body, pid: str, role: str | None) -> int:
    if role == "custodian":
        return decay.points_of_phi(int(done["phi_milli"][pid]))
    return int(done["work"][pid]) * decay.POINT_MICRO if role == "validator" else 0
