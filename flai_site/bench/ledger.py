"""Transfers per second through the wallets' services, on a durable database of its own.

spread: every thread pays between accounts of its own; hot: all pay into one account; batch: one
linked group of 100 legs a transaction.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flai_site.stack.layout import site_environment
from flai_site.stack.services import throwaway

THREADS = 4
SECONDS = 3.0
BATCH = 100


def run() -> Iterator[dict[str, Any]]:
    with throwaway("flai-bench-", durable=True) as (home, database_url, valkey_url):
        os.environ |= site_environment(
            home, database_url=database_url, valkey_url=valkey_url, url="http://bench", faucet=True
        )
        os.environ["FLAI_DB_POOL"] = str(THREADS + 1)
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        try:
            yield from _measure()
        finally:
            connection.close_pool()


def _measure() -> Iterator[dict[str, Any]]:
    from apps.accounts.services import party_create
    from apps.core.clock import now
    from apps.core.transactions import durable
    from apps.wallets import ledger, services

    with durable():
        parties = [
            party_create(kind="person", name=f"bench {i}", now=now())
            for i in range(2 * THREADS + 1)
        ]
    for party in parties:
        services.faucet(party=party, asset="USDC", amount_micro=services.FAUCET_MAX_MICRO)
        services.account(party, "USDC")

    def pay(source: int, target: int) -> int:
        services.send(party=parties[source], to=parties[target], asset="USDC", amount_micro=1)
        return 1

    def pay_batch(source: int, target: int) -> int:
        debit, credit = (services.account(parties[i], "USDC") for i in (source, target))
        legs = [ledger.Leg(debit, credit, 1, "wallets.send") for _ in range(BATCH)]
        with durable():
            ledger.post(legs, now=now())
        return BATCH

    workloads: dict[str, Callable[[int], int]] = {
        "transfer_spread": lambda i: pay(2 * i, 2 * i + 1),
        "transfer_hot": lambda i: pay(2 * i, 2 * THREADS),
        "transfer_batch": lambda i: pay_batch(2 * i, 2 * i + 1),
    }
    for name, work in workloads.items():
        yield {
            "workload": name,
            "engine": "postgresql",
            "metric": "throughput",
            "value": round(_rate(work), 1),
            "unit": "transfers/s",
        }


def _rate(work: Callable[[int], int]) -> float:
    """Transfers per second over THREADS threads and SECONDS seconds."""

    def loop(index: int) -> int:
        from django.db import connection

        done = 0
        while time.monotonic() < ends:
            done += work(index)
        connection.close()
        return done

    began = time.monotonic()
    ends = began + SECONDS
    with ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(loop, range(THREADS)))
    return total / (time.monotonic() - began)
