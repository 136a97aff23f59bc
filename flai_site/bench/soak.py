"""Paid queries while nodes are killed: is each answered and paid once, or free?

FLAI_SOAK_QUERIES queries (default 300) by CLIENTS buyers, on a stack of its own in which every
FLAI_SOAK_KILL_S seconds (default 10) another node gets SIGKILL; the supervisor starts it again. A
client that gets no answer asks again with the same Idempotency-Key, and every AGAIN-th asks once
more for what it has been answered. The rows are few, and their answers known from before: a wrong
one, or somebody else's, counts.

Then the books: each query of these buyers has ended, is settled exactly if its buyer opened an
answer, has one resolution of its hold, posted or void; balances are what the settled ones leave;
nothing is held; and `verify_ledger` and the auditor find the whole ledger and log in order.
"""

from __future__ import annotations

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

from flai_site.bench import owned, processes
from flai_site.stack.layout import Home, StackError
from flai_site.stack.up import python

if TYPE_CHECKING:
    from workers.client.buyer import Buyer

QUERIES = int(os.environ.get("FLAI_SOAK_QUERIES", "300"))
KILL_S = float(os.environ.get("FLAI_SOAK_KILL_S", "10"))
CLIENTS = 16
ROWS = 8
AGAIN = 20
PATIENCE_S = 300.0
TOLERANCE = 1e-3  # truncation may differ in the last place
PASSING = ("unreachable", "timeout", "nodes_short", "http_error")


def run() -> Iterator[dict[str, Any]]:
    yield from owned.run("flai_site.bench.soak")


@dataclass
class Seen:
    """What the clients saw."""

    opened: dict[str, int] = field(default_factory=dict)  # price by the query's id
    freed: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    again: int = 0
    took_ms: list[float] = field(default_factory=list)
    attempts: Counter[int] = field(default_factory=Counter)


def measure(url: str) -> Iterator[dict[str, Any]]:
    """The run and its books, as lines. Raises: StackError where the books are wrong."""
    from flai_site.bench.api import FAUCET_MICRO, listing_open, make_buyer
    from workers.client.buyer import Buyer

    running = Home.from_environment().running()
    assert running is not None
    slug = listing_open(url)
    with TemporaryDirectory(prefix="flai-soak-") as folder:
        homes = [make_buyer(url, Path(folder) / str(n)) for n in range(CLIENTS)]
        buyers = [Buyer(home, slug) for home in homes]
        rows = [[[0.1 * n] * len(buyers[0].columns)] for n in range(ROWS)]
        seen = Seen()
        known = [_known(buyers[0], row, seen) for row in rows]
        numbers, stop = count(), threading.Event()

        def work(buyer: Buyer) -> None:
            while (number := next(numbers)) < QUERIES:
                place = number % ROWS
                _one(buyer, rows[place], known[place], seen, again=number % AGAIN == 0)

        killer = _Killer(running["pid"], stop)
        began = time.monotonic()
        killer.start()
        try:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(work, buyers))
        finally:
            stop.set()
            killer.join()
        spent_s = time.monotonic() - began
        pids = [home.api().get("me/")["party"]["pid"] for home in homes]
        faults = _faults(running, pids, seen, CLIENTS * FAUCET_MICRO)
    yield _line("queries", QUERIES, "queries")
    yield _line("answered", len(seen.opened) - ROWS, "queries")
    yield _line("freed", len(seen.freed), "queries")
    yield _line("kills", killer.kills, "kills")
    yield _line("asked again", seen.again, "requests")
    yield _line("more than one attempt", sum(seen.attempts.values()) - seen.attempts[1], "queries")
    yield _line("rate", round(QUERIES / spent_s, 1), "queries/s")
    took = sorted(seen.took_ms)
    for name, at in (("p50", 0.5), ("p95", 0.95), ("longest", 1)):
        yield _line(name, round(took[min(int(at * len(took)), len(took) - 1)]), "ms")
    for name, found in faults.items():
        yield _line(f"wrong: {name}", found, "faults")
    if any(faults.values()):
        raise StackError(f"The books are wrong: {faults}")


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


def _known(buyer: Buyer, row: list[list[float]], seen: Seen) -> float:
    said = buyer.predict(row)
    seen.opened[said.query_id] = said.price_micro
    return said.answers[0][0]


def _one(buyer: Buyer, row: list[list[float]], known: float, seen: Seen, *, again: bool) -> None:
    """One query, asked for until it has ended; `again`: and once more."""
    from workers.client.api import ClientError

    key, began = secrets.token_hex(16), time.monotonic()
    body, reply_private = buyer._quoted_query(row, key)
    while True:
        try:
            query = buyer._ended(buyer._post(body, key))
            break
        except ClientError as error:
            passing = error.code in PASSING and (error.status or 503) >= 500
            if not passing or time.monotonic() - began > PATIENCE_S:
                raise
            seen.again += 1
    seen.took_ms.append(1000 * (time.monotonic() - began))
    seen.attempts[int(query["job"]["attempt"])] += 1
    if again and buyer._post(body, key)["id"] != query["id"]:
        seen.twice.append(query["id"])
    if query["state"] == "released":
        seen.freed.add(query["id"])
        return
    said = buyer._open(query, body["input"]["ticket"], reply_private)
    seen.opened[query["id"]] = said.price_micro
    if abs(said.answers[0][0] - known) > TOLERANCE:
        seen.wrong.append(query["id"])


_BOOKS = """
SELECT q.id::text, q.state, q.price_micro,
    count(r.id) FILTER (WHERE r.phase = 'post'), count(r.id) FILTER (WHERE r.phase = 'void')
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
    running: dict[str, Any], pids: list[str], seen: Seen, faucet_micro: int
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
    settled = {name for name, (state, *_) in books.items() if state == "settled"}
    ended = {name for name, (state, *_) in books.items() if state in ("settled", "released")}
    once = {
        name
        for name, (state, _, posts, voids) in books.items()
        if (posts, voids) == ((1, 0) if state == "settled" else (0, 1))
    }
    paid = sum(books[name][1] for name in settled)
    url = running["url"]
    return {
        "answers": len(seen.wrong),
        "bought twice by one key": len(seen.twice),
        "not ended": len(books) - len(ended),
        "settled, but not answered, or the other way round": len(settled ^ set(seen.opened)),
        "asked for, but not there, or the other way round": len(books) - QUERIES - ROWS,
        "holds not resolved once": len(books) - len(once),
        "micro-units held still": held,
        "micro-units too many or too few": faucet_micro - paid - posted,
        "ledger": _failed("-m", "django", "verify_ledger"),
        "log": _failed("-m", "workers.client", "verify", "--url", url),
    }


def _failed(*command: str) -> int:
    done = subprocess.run(python(*command), stdout=sys.stderr.fileno(), check=False)
    return int(done.returncode != 0)


def _line(metric: str, value: float, unit: str) -> dict[str, Any]:
    workload = f"soak/kill_every_{KILL_S:g}_s"
    return {"workload": workload, "engine": "ring", "metric": metric, "value": value, "unit": unit}


if __name__ == "__main__":
    sys.exit(owned.play(Path(sys.argv[1]), measure))
