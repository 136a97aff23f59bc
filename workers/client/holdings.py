"""Tokens that vote, replayed: what each party had when a snapshot was taken.

FLAI        staked, in the SuperDAO
an SDT      held or staked, in its SubDAO
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from workers.client.accounts import parts

Course = list[tuple[int, int]]
# A transfer is stamped before it is committed, at most so long: which of those stamped so shortly
# before a snapshot it has seen the log can't tell.
UNSEEN_MS = 60_000
SUMS_MAX = 1_000


def values_at(course: Course, at_ms: int, *, within_ms: int = 0) -> set[int]:
    """What may have been there at a time, by (since, value) in order: one value, or those of the
    same millisecond, in which the log can't tell what came first, or of `within_ms` before."""
    values = set()
    for since, value in reversed(course):
        if since <= at_ms:
            values.add(value)
        if since < at_ms - within_ms:
            return values
    return values | {0}


def sums(sides: Iterable[set[int]]) -> Sequence[int]:
    """What values of each side may add up to, in order. Of too many to list, everything between
    the least and the most: whoever moves its tokens thousands of times in the minute before a
    snapshot makes the check of its own vote coarser, and no auditor's work longer."""
    sides = list(sides)
    if prod(map(len, sides)) > SUMS_MAX:
        return range(max(0, sum(map(min, sides))), sum(map(max, sides)) + 1)
    return sorted({total for values in product(*sides) if (total := sum(values)) >= 0})


class Holdings:
    """Fed with posted transfers by `Replay`."""

    def __init__(self) -> None:
        self._courses: dict[str, dict[str, dict[str, Course]]] = {}

    def transfer(self, debit: str, credit: str, amount_micro: int, at_ms: int) -> None:
        """From one account "pid/purpose/asset" to another. Each side counts what came from outside
        of the two: else tokens staked just before a snapshot might be counted on both."""
        out, into = parts(debit), parts(credit)
        if out[0] == into[0] and _votes(out) and _votes(into):
            return
        for side, micro in ((out, -amount_micro), (into, amount_micro)):
            if _votes(side):
                pid, purpose, asset = side
                sides = self._courses.setdefault(asset, {}).setdefault(pid, {})
                course = sides.setdefault(purpose, [])
                course.append((at_ms, micro + (course[-1][1] if course else 0)))

    def at(self, asset: str, at_ms: int, *, but: Iterable[str]) -> dict[str, Sequence[int]]:
        """{pid: what its vote may have counted at a time}; DAOs, `but`, do not vote."""
        silent = set(but)
        return {
            pid: sums(values_at(c, at_ms, within_ms=UNSEEN_MS) for c in sides.values())
            for pid, sides in self._courses.get(asset, {}).items()
            if pid not in silent
        }


def _votes(account: tuple[str, str, str]) -> bool:
    _, purpose, asset = account
    return purpose == "staked" or (purpose == "main" and asset.startswith("SDT-"))
