"""Tokens that vote, replayed: what each party had when a snapshot was taken.

FLAI        staked, in the SuperDAO
an SDT      held or staked, in its SubDAO

A snapshot counts what was stamped in its millisecond or before. Whoever takes one sees to it that
all of that stands in the log already and nothing of it comes later, and no account's time runs
backwards: so it is one cut through the log, and no token is on two sides of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workers.client.accounts import parts

Course = list[tuple[int, int]]
SDT = "SDT-"  # what every SubDAO's token is called, before its address
LONG_AGO = -(2**63)


def value_at(course: Course, at_ms: int) -> int:
    """What was there at a time, by (since, value) in order."""
    return next((value for since, value in reversed(course) if since <= at_ms), 0)


class Holdings:
    """Fed with posted transfers by `Replay`."""

    def __init__(self) -> None:
        self._courses: dict[str, dict[str, dict[str, Course]]] = {}
        self._counted: dict[str, int] = {}

    def transfer(self, debit: str, credit: str, amount_micro: int, at_ms: int) -> str | None:
        """From one account "pid/purpose/asset" to another. Returns what is wrong with its time."""
        wrong = None
        for account, micro in ((debit, -amount_micro), (credit, amount_micro)):
            pid, purpose, asset = parts(account)
            if not _votes(purpose, asset):
                continue
            if at_ms <= self._counted.get(asset, LONG_AGO):
                wrong = f"is stamped before a vote that counted {asset} without it"
            sides = self._courses.setdefault(asset, {}).setdefault(pid, {})
            course = sides.setdefault(purpose, [])
            if course and at_ms < course[-1][0]:
                wrong = f"is stamped before the last one of {account}"
            course.append((at_ms, micro + (course[-1][1] if course else 0)))
        return wrong

    def changes(self, asset: str) -> Iterator[tuple[str, str, Course]]:
        """(pid, purpose, [(time, difference), …]) of each account of `asset` that votes."""
        for pid, sides in self._courses.get(asset, {}).items():
            for purpose, course in sides.items():
                before = [0, *(value for _, value in course)]
                yield pid, purpose, [(at, now - was) for (at, now), was in zip(course, before)]

    def count(self, asset: str, at_ms: int, *, but: Iterable[str]) -> dict[str, int]:
        """{pid: what its vote counts} at a time, from which on nothing may be stamped before it.
        DAOs, `but`, do not vote."""
        self._counted[asset] = max(at_ms, self._counted.get(asset, LONG_AGO))
        silent = set(but)
        held = {
            pid: sum(value_at(course, at_ms) for course in sides.values())
            for pid, sides in self._courses.get(asset, {}).items()
            if pid not in silent
        }
        return {pid: micro for pid, micro in held.items() if micro > 0}


def _votes(purpose: str, asset: str) -> bool:
    return purpose == "staked" or (purpose == "main" and asset.startswith(SDT))
