"""Tokens that vote, replayed: what each party had when a snapshot was taken.

FLAI        staked, in the SuperDAO
an SDT      held or staked, in its SubDAO
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from workers.client.accounts import parts

Course = list[tuple[int, int]]
# A transfer is stamped before it is committed, at most so long: which of those stamped so shortly
# before a snapshot it has seen the log can't tell.
UNSEEN_MS = 60_000


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


class Holdings:
    """Fed with balances by `Replay`."""

    def __init__(self) -> None:
        self._courses: dict[str, dict[str, dict[str, Course]]] = {}

    def moved(self, account: str, posted_micro: int, at_ms: int) -> None:
        """What an account "pid/purpose/asset" has from now on."""
        pid, purpose, asset = parts(account)
        if purpose == "staked" or (purpose == "main" and asset.startswith("SDT-")):
            accounts = self._courses.setdefault(asset, {}).setdefault(pid, {})
            accounts.setdefault(purpose, []).append((at_ms, posted_micro))

    def at(self, asset: str, at_ms: int, *, but: Iterable[str]) -> dict[str, set[int]]:
        """{pid: what its vote may have counted at a time}; DAOs, `but`, do not vote."""
        found = {}
        silent = set(but)
        for pid, accounts in self._courses.get(asset, {}).items():
            if pid not in silent:
                sides = (values_at(c, at_ms, within_ms=UNSEEN_MS) for c in accounts.values())
                found[pid] = {sum(values) for values in product(*sides)}
        return found
