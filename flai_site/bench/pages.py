"""Server time and queries of every page and API list, on a database of its own, OBJECTS of each.

In this process, through all of the site's middleware, against embedded PostgreSQL and Valkey: what
a server does for an answer, without network and queueing. Each address is asked for SAMPLES times
by a stranger and by the busiest member; queries are the most that any of these needed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flai_site.garbage import settle
from flai_site.stack.layout import ROOT, StackError, site_environment
from flai_site.stack.services import throwaway
from flai_site.stack.up import python

if TYPE_CHECKING:
    from django.test import Client

OBJECTS = 10_000
SAMPLES = 30
WARM_UP = 3
P95_MS_MAX = 80
QUERIES_MAX = 12
URL = "http://localhost"


def run() -> Iterator[dict[str, Any]]:
    """In a child: Django is bound to one database for the life of its process."""
    with throwaway("flai-bench-") as (home, database_url, valkey_url):
        ours = site_environment(
            home, database_url=database_url, valkey_url=valkey_url, url=URL, faucet=True
        )
        command = python("-m", "flai_site.bench.pages")
        with subprocess.Popen(
            command, cwd=ROOT, env=os.environ | ours, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            yield from map(json.loads, child.stdout)
        if child.returncode:
            raise StackError("The pages could not be measured; see above.", child.returncode)


def main() -> None:
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    try:
        for line in _measure():
            print(json.dumps(line), flush=True)
    finally:
        connection.close()


def _measure() -> Iterator[dict[str, Any]]:
    from django.test import Client

    from apps.accounts.models import User
    from apps.core import clock
    from apps.explorer.scale import EMAIL, Plan, addresses, seed

    plan = Plan(OBJECTS, 1, clock.now())
    began = time.perf_counter()
    seed(plan, say=_progress)
    yield _line("seed", "time", time.perf_counter() - began, "s")
    settle()  # as flai_site/asgi.py does
    stranger, member = (Client(SERVER_NAME="localhost") for _ in range(2))
    member.force_login(User.objects.get(email=EMAIL))
    shared = addresses.pages(plan) | addresses.api(plan)
    above = []
    for who, client, asked in (
        ("stranger", stranger, shared),
        ("member", member, shared | addresses.api_own(plan)),
    ):
        for name, address in asked.items():
            if addresses.ask(client, name, address) != 200:
                continue  # not for strangers, or no page at all but a form's target
            spent_ms, queries = _sample(client, name, address)
            p95_ms = spent_ms[95 * len(spent_ms) // 100]
            place = f"{who}: {name}"
            yield _line(place, "p50", statistics.median(spent_ms), "ms")
            yield _line(place, "p95", p95_ms, "ms")
            yield _line(place, "queries", queries, "queries")
            if p95_ms > P95_MS_MAX or queries > QUERIES_MAX:
                above.append(f"{place} ({p95_ms:.0f} ms, {queries} queries)")
    yield _line("all", "addresses_above_goal", len(above), "addresses")
    for place in above:
        _progress(f"above the goal: {place}")


def _sample(client: Client, name: str, address: str) -> tuple[list[float], int]:
    """(sorted ms, most queries) of SAMPLES answers."""
    from django.db import connection

    from apps.explorer.scale import addresses

    most, spent_ms = 0, []
    for turn in range(WARM_UP + SAMPLES):
        counted: list[str] = []

        def count(execute: Any, sql: str, *rest: Any, made: list[str] = counted) -> Any:
            made.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(count):
            began = time.perf_counter()
            addresses.ask(client, name, address)
            spent = time.perf_counter() - began
        most = max(most, len(counted))
        if turn >= WARM_UP:
            spent_ms.append(1000 * spent)
    return sorted(spent_ms), most


def _line(workload: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    return {
        "workload": workload,
        "engine": "django",
        "metric": metric,
        "value": round(value, 1),
        "unit": unit,
    }


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
