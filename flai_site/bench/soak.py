"""Paid queries while nodes are killed: is each answered and paid once, or free?

FLAI_SOAK_QUERIES queries (default 300) by CLIENTS buyers, on a stack of its own in which every
FLAI_SOAK_KILL_S seconds (default 10) another node gets SIGKILL; the supervisor starts it again. A
client that gets no answer asks again with the same Idempotency-Key, and every AGAIN-th asks once
more for what it has been answered. Most have one row, every MANY_EVERY-th 100 to 1 000, every
HUGE_EVERY-th 10 000. The rows are drawn from a few whose answers are known from before: a wrong
one, somebody else's, or one in another's place counts. The SubDAO's holders have voted for TIERS,
so what each costs, as a whole, follows from all that its buyer was answered before.

Then the books: each query of these buyers has ended, is settled exactly if its buyer opened an
answer, has one resolution of its hold, post or void, and what was posted is the price of its rows;
balances are what the settled ones leave; nothing is held; and `verify_ledger` and the auditor find
the whole ledger and log in order.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.protocol.tariff import charge, tiers_of
from flai_site.bench import owned, processes
from flai_site.stack.layout import Home, StackError
from flai_site.stack.up import python

if TYPE_CHECKING:
    from workers.client.buyer import Buyer

QUERIES = int(os.environ.get("FLAI_SOAK_QUERIES", "300"))
KILL_S = float(os.environ.get("FLAI_SOAK_KILL_S", "10"))
CLIENTS = 16
ROWS = 8
MANY_EVERY, MANY = 50, (100, 1_000)
HUGE_EVERY, HUGE = 250, 10_000
TIERS = [
    {"from_rows": 100, "off_bps": 500},
    {"from_rows": 1_000, "off_bps": 1_000},
    {"from_rows": 10_000, "off_bps": 2_000},
]
AGAIN = 20
PATIENCE_S = 900.0  # of many rows that are broken off each time, until their ticket is over
TOLERANCE = 1e-3  # truncation may differ in the last place
PASSING = ("unreachable", "timeout", "nodes_short", "http_error")


def run() -> Iterator[dict[str, Any]]:
    yield from owned.run("flai_site.bench.soak")


def rows_of(number: int) -> bytes:
    """Which of the known rows the request of this number asks, in turn."""
    drawn = hashlib.shake_128(str(number).encode())
    count = 1
    if number % HUGE_EVERY == HUGE_EVERY - 1:
        count = HUGE
    elif number % MANY_EVERY == MANY_EVERY - 1:
        least, most = MANY
        count = least + int.from_bytes(drawn.digest(4)) % (most - least + 1)
    return bytes(byte % ROWS for byte in drawn.digest(count))


@dataclass(frozen=True)
class Asked:
    """One query, and what its buyer saw of it."""

    id: str
    rows: int
    price_micro: int  # by the tiers, after what this buyer was answered before
    answered: bool
    attempts: int
    took_ms: float


@dataclass
class Seen:
    """What the clients saw."""

    asked: list[Asked] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    again: int = 0


@dataclass
class Client:
    """A buyer, who asks one query after the other, and how many rows were answered to it."""

    buyer: Buyer
    seen: Seen
    answered: int = 0

    def ask(
        self, rows: list[list[float]], known: np.ndarray | None = None, *, again: bool = False
    ) -> np.ndarray:
        """One query, asked for until it has ended; `again`: and once more. Returns the answers [k],
        none where it was freed; others than the `known` are noted."""
        from workers.client.api import ClientError

        seen, buyer = self.seen, self.buyer
        key, began = secrets.token_hex(16), time.monotonic()
        body, reply_private = buyer._quoted_query(rows, key)
        while True:
            try:
                query = buyer._ended(buyer._post(body, key))
                break
            except ClientError as error:
                passing = error.code in PASSING and (error.status or 503) >= 500
                if not passing or time.monotonic() - began > PATIENCE_S:
                    raise
                seen.again += 1
        took_ms = 1000 * (time.monotonic() - began)
        if again and buyer._post(body, key)["id"] != query["id"]:
            seen.twice.append(query["id"])
        settled = query["state"] == "settled"
        price, tiers = buyer.price_micro, tiers_of(TIERS)
        due = charge(len(rows), before=self.answered, price_micro=price, tiers=tiers)
        attempts = int(query["job"]["attempt"])
        seen.asked.append(Asked(query["id"], len(rows), due, settled, attempts, took_ms))
        if not settled:
            return np.empty(0)
        self.answered += len(rows)
        said = buyer._open(query, body["input"]["ticket"], reply_private)
        answers = np.array(said.answers)[:, 0]
        if known is not None and np.abs(answers - known).max() > TOLERANCE:
            seen.wrong.append(query["id"])
        return answers


def measure(url: str) -> Iterator[dict[str, Any]]:
    """The run and its books, as lines. Raises: StackError where the books are wrong."""
    from flai_site.bench.api import FAUCET_MICRO, listing_open, make_buyer
    from workers.client.buyer import Buyer

    home = Home.from_environment()
    running = home.running()
    assert running is not None
    slug = listing_open(url)
    _vote_tiers(url, home.demo)
    with TemporaryDirectory(prefix="flai-soak-") as folder:
        homes = [make_buyer(url, Path(folder) / str(n)) for n in range(CLIENTS)]
        seen = Seen()
        clients = [Client(Buyer(home, slug), seen) for home in homes]
        rows = _drawn(clients[0].buyer)
        known = np.concatenate([clients[0].ask([row]) for row in rows])
        if len(known) < ROWS or np.diff(np.sort(known)).min() < 10 * TOLERANCE:
            raise StackError(f"The answers {known} to the known rows can't be told apart.")
        numbers, stop = count(), threading.Event()

        def work(client: Client) -> None:
            while (number := next(numbers)) < QUERIES:
                places = list(rows_of(number))
                wanted = [rows[place] for place in places]
                client.ask(wanted, known[places], again=number % AGAIN == 0)

        killer = _Killer(running["pid"], stop)
        began = time.monotonic()
        killer.start()
        try:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(work, clients))
        finally:
            stop.set()
            killer.join()
        spent_s = time.monotonic() - began
        pids = [home.api().get("me/")["party"]["pid"] for home in homes]
        faults = {"answers": len(seen.wrong), "bought twice by one key": len(seen.twice)}
        faults |= _faults(running, pids, seen.asked, CLIENTS * FAUCET_MICRO)
    asked = seen.asked[ROWS:]
    yield from _lines("", asked)
    yield _line("", "kills", killer.kills, "kills")
    yield _line("", "asked again", seen.again, "requests")
    yield _line("", "rate", round(QUERIES / spent_s, 1), "queries/s")
    yield _line("", "rows", round(sum(one.rows for one in asked) / spent_s), "rows/s")
    for name, least, most in (("one_row", 1, 1), ("many_rows", *MANY), ("huge", HUGE, HUGE)):
        yield from _lines(f"/{name}", [one for one in asked if least <= one.rows <= most])
    for name, found in faults.items():
        yield _line("", f"wrong: {name}", found, "faults")
    if any(faults.values()):
        raise StackError(f"The books are wrong: {faults}")


def _vote_tiers(url: str, demo: Path) -> None:
    """Those who own the demonstration's model vote for TIERS. Raises: StackError."""
    from workers.demo.cast import BACKERS, State
    from workers.demo.screen import Screen
    from workers.demo.story import Story

    state = State(demo / "state.json")
    story = Story(url=url, root=demo, state=state, screen=Screen(), nodes=None)
    owners = [backer.key for backer in BACKERS]
    payload = {"tiers": TIERS}
    body = {"dao": story.subdao, "kind": "subdaos.set_tiers", "payload": payload, "title": "Tiers"}
    made = story.cast.api(owners[0]).post("proposals/", body)
    story.vote(made["id"], owners, "for")
    if (ended := story.decided(made["id"])["state"]) != "executed":
        raise StackError(f"The vote on tiers is {ended}.")


def _drawn(buyer: Buyer) -> list[list[float]]:
    """ROWS rows around the mean of what the model was made from."""
    from workers.client import training

    mean, std = training.constants(buyer.listing["normalisation"])
    return [(mean + place * std).tolist() for place in np.linspace(-0.5, 0.5, ROWS)]


class _Killer(threading.Thread):
    """Kills one node after the other, until it is told to stop."""

    def __init__(self, supervisor: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._supervisor, self._stop_, self.kills = supervisor, stop, 0

    def run(self) -> None:
        while not self._stop_.wait(KILL_S):
            found = processes.nodes(self._supervisor)
            if found:
                os.kill(found[self.kills % len(found)], signal.SIGKILL)
                self.kills += 1


_BOOKS = """
SELECT q.id::text, q.state, q.rows, q.price_micro,
    count(r.id) FILTER (WHERE r.phase = 'post'), count(r.id) FILTER (WHERE r.phase = 'void'),
    coalesce(sum(r.amount_micro) FILTER (WHERE r.phase = 'post'), 0)::bigint
FROM listings_query q JOIN accounts_party p ON p.id = q.buyer_id
LEFT JOIN wallets_transfer r ON r.pending_id = q.hold_id
WHERE p.pid = ANY(%s) GROUP BY q.id
"""
_BALANCE = """
SELECT sum(a.posted_micro)::bigint, sum(a.held_micro)::bigint FROM wallets_account a
JOIN accounts_party p ON p.id = a.owner_id JOIN wallets_asset s ON s.id = a.asset_id
WHERE p.pid = ANY(%s) AND s.code = 'USDC' AND a.purpose = 'main'
"""


def _faults(
    running: dict[str, Any], pids: list[str], asked: list[Asked], faucet_micro: int
) -> dict[str, int]:
    """How many things are not as they must be, by what."""
    os.environ |= running["environment"]
    import django

    django.setup()
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(_BOOKS, [pids])
        books = {row[0]: row[1:] for row in cursor.fetchall()}
        cursor.execute(_BALANCE, [pids])
        ((posted, held),) = cursor.fetchall()
    states = Counter(state for state, *_ in books.values())
    settled = {name for name, (state, *_) in books.items() if state == "settled"}
    answered = {one.id for one in asked if one.answered}
    resolved = {
        one.id: ("settled", one.rows, one.price_micro, 1, 0, one.price_micro)
        if one.answered
        else ("released", one.rows, one.price_micro, 0, 1, 0)
        for one in asked
    }
    paid = sum(one.price_micro for one in asked if one.answered)
    url = running["url"]
    return {
        "not ended": len(books) - states["settled"] - states["released"],
        "settled, but not answered, or the other way round": len(settled ^ answered),
        "asked for, but not there, or the other way round": len(books.keys() ^ resolved),
        "not of these rows, this price, and one post or void of the hold": sum(
            books.get(name) != wanted for name, wanted in resolved.items()
        ),
        "micro-units held still": held,
        "micro-units too many or too few": faucet_micro - paid - posted,
        "ledger": _failed("-m", "django", "verify_ledger"),
        "log": _failed("-m", "workers.client", "verify", "--url", url),
    }


def _failed(*command: str) -> int:
    done = subprocess.run(python(*command), stdout=sys.stderr.fileno(), check=False)
    return int(done.returncode != 0)


def _lines(name: str, asked: list[Asked]) -> Iterator[dict[str, Any]]:
    """How queries of one size fared."""
    yield _line(name, "queries", len(asked), "queries")
    yield _line(name, "answered", sum(one.answered for one in asked), "queries")
    yield _line(name, "freed", sum(not one.answered for one in asked), "queries")
    yield _line(name, "more than one attempt", sum(one.attempts > 1 for one in asked), "queries")
    took = sorted(one.took_ms for one in asked) or [0.0]
    for metric, at in (("p50", 0.5), ("p95", 0.95), ("longest", 1)):
        yield _line(name, metric, round(took[min(int(at * len(took)), len(took) - 1)]), "ms")


def _line(name: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    workload = f"soak/kill_every_{KILL_S:g}_s{name}"
    return {"workload": workload, "engine": "ring", "metric": metric, "value": value, "unit": unit}


if __name__ == "__main__":
    sys.exit(owned.play(Path(sys.argv[1]), measure))
