"""Transfers per second through the wallets' services, on a durable database of its own.

CLIENTS processes, each with a connection, as a site of many workers has:

    signed      the replay of payments that carry a wallet key's signature
    tpcb        pgbench's TPC-B-like script on the same server, where its binary is at hand
    spread      each pays between two accounts of its own
    hot         all pay into one account
    swap        all trade with one pool: the rules, three transfers' worth of rows, state, leaf
    settlement  each writes linked groups of BATCH legs to as many accounts (an epoch's payouts)
    without_log spread, by a copy of the SQL function without its leaves, in slices that take turns
                with the real one, so that the machine's moods fall on both
    growth      one payment's time when the ledger and the log hold 10³ … 10⁶ transfers already, and
                how the last compares with the first
    proof       an inclusion proof from the log of that size, and the replay of its leaves
    closing     see `epochs`

What takes minutes comes last. All of it takes about four on a machine that does nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from flai_site.bench import epochs, log
from flai_site.stack.embedded import embedded, postgres_binaries
from flai_site.stack.layout import Home, site_environment
from flai_site.stack.services import throwaway

CLIENTS = 8
SECONDS = 3.0
SLICE_S = 1.0
SLICES = 4
BATCH = 1000
GROWTH = (10**3, 10**4, 10**5, 10**6)
SAMPLES = 400
TPCB_SCALE = 10

Work = Callable[[int], int]


def run() -> Iterator[dict[str, Any]]:
    with throwaway("flai-bench-", durable=True) as (home, database_url, valkey_url):
        os.environ |= site_environment(
            home, database_url=database_url, valkey_url=valkey_url, url="http://bench", faucet=True
        )
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        import flai_site.celery  # noqa: F401 - or wake-ups look for a broker that is not there

        call_command("migrate", verbosity=0)
        try:
            bench = Bench()
            yield from log.signatures()
            yield from _tpcb(home)
            yield from bench.growth(*GROWTH[:-1])  # first, on an empty ledger
            yield from bench.throughput()
            yield from bench.log_share()
            yield from bench.growth(GROWTH[-1])
            yield from epochs.run()
        finally:
            connection.close()


def _line(workload: str, value: float, unit: str, metric: str = "throughput") -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": "postgresql",
        "metric": metric,
        "value": round(value, 2),
        "unit": unit,
    }


class Bench:
    """The parties, their money, and what is measured on them."""

    def __init__(self) -> None:
        self.first_ms = 0.0
        from apps.accounts.services import party_create
        from apps.core.clock import now
        from apps.core.transactions import durable
        from apps.exchange import pools
        from apps.wallets import services

        with durable():
            self.parties = [
                party_create(kind="person", name=f"bench {i}", now=now())
                for i in range(2 * CLIENTS + 1)
            ]
            payees = [
                party_create(kind="person", name=f"payee {i}", now=now()) for i in range(BATCH)
            ]
            self.payees = [services.account(party, "USDC") for party in payees]
        for party in self.parties:
            services.faucet(party=party, asset="USDC", amount_micro=services.FAUCET_MAX_MICRO)
        maker = self.parties[-1]
        services.faucet(party=maker, asset="FLAI", amount_micro=services.FAUCET_MAX_MICRO)
        half = services.FAUCET_MAX_MICRO // 2
        pools.pool_open(party=maker, base="FLAI", base_micro=half, quote_micro=half)

    def spread(self, client: int) -> int:
        return self._pay(2 * client, 2 * client + 1)

    def hot(self, client: int) -> int:
        return self._pay(2 * client, 2 * CLIENTS)

    def swap(self, client: int) -> int:
        from apps.exchange import pools

        pools.swap(
            party=self.parties[2 * client], base="FLAI", side="quote", amount_micro=1_000_000
        )
        return 1

    def settlement(self, client: int) -> int:
        from apps.core.clock import now
        from apps.core.transactions import durable
        from apps.wallets import ledger, services

        source = services.account(self.parties[2 * client], "USDC")
        mine = self.payees[client * BATCH // CLIENTS : (client + 1) * BATCH // CLIENTS]
        legs = [ledger.Leg(source, mine[i % len(mine)], 1, "listings.payout") for i in range(BATCH)]
        with durable():
            ledger.post(legs, now=now())
        return BATCH

    def _pay(self, source: int, target: int) -> int:
        from apps.wallets import services

        services.send(
            party=self.parties[source], to=self.parties[target], asset="USDC", amount_micro=1
        )
        return 1

    def throughput(self) -> Iterator[dict[str, Any]]:
        for work in (self.spread, self.hot, self.settlement):
            yield _line(f"transfer_{work.__name__}", rate(work, SECONDS), "transfers/s")
        yield _line("swap", rate(self.swap, SECONDS), "swaps/s")

    def log_share(self) -> Iterator[dict[str, Any]]:
        """What the leaf costs of a transfer, service and all; and of a settlement."""
        from apps.wallets import ledger

        bare = (*_functions_without_leaves(), lambda body: "")
        whole = ledger.FUNCTION, ledger.PAY, ledger._tail
        for work in (self.spread, self.settlement):
            rates: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(2 * SLICES):
                with_log = turn % 2 == 0
                ledger.FUNCTION, ledger.PAY, ledger._tail = whole if with_log else bare
                rates[with_log].append(rate(work, SLICE_S))
            ledger.FUNCTION, ledger.PAY, ledger._tail = whole
            with_leaf, without = (statistics.median(rates[k]) for k in (True, False))
            name = f"transfer_{work.__name__}_without_log"
            yield _line(name, without, "transfers/s")
            yield _line(name, 100 * (without / with_leaf - 1), "%", "log_adds")

    def growth(self, *sizes: int) -> Iterator[dict[str, Any]]:
        ends = [self.payees[0], self.payees[1]]
        for size in sizes:
            log.fill(ends, size)
            self.spread(0)
            spent_ms = []
            for _ in range(SAMPLES):
                began = time.perf_counter()
                self.spread(0)
                spent_ms.append(1000 * (time.perf_counter() - began))
            name = f"transfer_at_{size}"
            p50_ms = statistics.median(spent_ms)
            self.first_ms = self.first_ms or p50_ms
            yield _line(name, p50_ms, "ms", "p50")
            yield _line(name, p50_ms / self.first_ms, f"times at {GROWTH[0]}", "growth")
            yield from log.measure(size)


def rate(work: Work, seconds: float) -> float:
    """Units of work per second by CLIENTS processes that start together."""
    from django.db import connection

    connection.close()  # a forked client must not inherit it
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(CLIENTS), fork.SimpleQueue()

    def client(index: int) -> None:
        work(index)
        barrier.wait()
        began, done = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            done += work(index)
        results.put(done / (time.monotonic() - began))
        connection.close()

    clients = [fork.Process(target=client, args=(i,)) for i in range(CLIENTS)]
    for process in clients:
        process.start()
    for process in clients:
        process.join()
    if any(process.exitcode for process in clients):
        raise RuntimeError("a client of the bench failed; its trace is above")
    return float(sum(results.get() for _ in clients))


def _functions_without_leaves() -> tuple[str, str]:
    """Copies of the SQL functions without what they do for the log; returns their names."""
    from django.db import connection

    from apps.wallets import ledger

    write, pay = "bench_write_without_log", "bench_pay_without_log"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [ledger.FUNCTION])
        source = cursor.fetchone()[0]
        bare, cut = re.subn(r"-- \[leaves\].*?-- \[/leaves\]", "", source, flags=re.DOTALL)
        if cut != 1:
            raise RuntimeError("the SQL function does not mark its leaves any more")
        cursor.execute(bare.replace(ledger.FUNCTION, write, 1))
        cursor.execute("SELECT pg_get_functiondef(%s::regproc)", [ledger.PAY])
        source = cursor.fetchone()[0]
        cursor.execute(source.replace(ledger.PAY, pay, 1).replace(ledger.FUNCTION, write))
    return write, pay


def _tpcb(home: Home) -> Iterator[dict[str, Any]]:
    postgres, _ = embedded(home.root, durable=True)
    pgbench = postgres_binaries(postgres.run_as) / "pgbench"
    if not pgbench.exists():
        return
    where = ["-h", str(postgres.sockets), "-U", "flai", "flai"]
    steps = (
        ["-i", "-q", "-s", str(TPCB_SCALE)],
        ["-n", "-c", str(CLIENTS), "-j", "2", "-T", str(int(SECONDS))],
    )
    for step in steps:
        done = subprocess.run(
            [str(pgbench), *step, *where], capture_output=True, text=True, check=True
        )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    assert found, done.stdout
    yield _line("pgbench_tpcb", float(found[1]), "transactions/s")
