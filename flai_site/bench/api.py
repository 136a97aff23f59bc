"""A paid private query through a running stack, as a buyer sees it: share, seal, pay, open.

Measures the stack that runs here, or else one of its own, in which the demonstration was played.
The buyer is made for the run.
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flai_site.stack.layout import Home, Ports, StackError
from flai_site.stack.supervisor import Service
from flai_site.stack.up import Stack, free_ports, python, run_stack

if TYPE_CHECKING:
    from workers.client.home import Home as ClientHome

QUERIES = 30
WARM_UP = 3
FAUCET_MICRO = 10_000 * 1_000_000


def run() -> Iterator[dict[str, Any]]:
    running = Home.from_environment().running()
    if running is not None:
        yield from _of(running["url"])
        return
    with TemporaryDirectory(prefix="flai-bench-") as folder:
        yield from _on_own_stack(Path(folder))


def _on_own_stack(folder: Path) -> Iterator[dict[str, Any]]:
    """Start a stack, let this module be its story, stop it, and pass on what was measured."""
    measured = folder / "measured.jsonl"
    web, *nodes = free_ports(7)
    ports = Ports(web=web, control=tuple(nodes[:3]), mesh=tuple(nodes[3:]))
    stack = Stack(Home(folder / "flai"), ports)
    story = Service(
        "bench",
        lambda: python("-m", "flai_site.bench.api", str(measured)),
        environment=stack.environment(pool_max=0),
        attached=True,
        guarded=True,
    )
    try:
        code = run_stack(stack, story=story, stay=False, say=_progress)
    finally:
        stack.wipe()
    if code:
        raise StackError("The stack of the api group's own could not be measured; see above.", code)
    yield from map(json.loads, measured.read_text().splitlines())


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _play_and_measure(out: Path) -> int:
    """The story of the own stack: the demonstration, then the measurement, into `out`."""
    home = Home.from_environment()
    running = home.running()
    assert running is not None
    demo = python("-m", "workers.demo", "--url", running["url"], "--home", str(home.demo), "--once")
    code = subprocess.run(demo, stdout=sys.stderr.fileno(), check=False).returncode
    if code == 0:
        out.write_text("".join(json.dumps(line) + "\n" for line in _of(running["url"])))
    return code


def _of(url: str) -> Iterator[dict[str, Any]]:
    from workers.client.api import Api

    listing = next(filter(_is_open, Api(url).every("listings/")), None)
    if listing is None:
        raise StackError("No listing is open: `manage.py demo` opens one.")
    with TemporaryDirectory(prefix="flai-bench-") as folder:
        yield from _measure(url, listing["slug"], Path(folder))


def _is_open(listing: dict[str, Any]) -> bool:
    return listing.get("status", "open") == "open"


def _measure(url: str, slug: str, folder: Path) -> Iterator[dict[str, Any]]:
    from workers.client.buyer import Buyer

    buyer = Buyer(_make_buyer(url, folder), slug)
    row = [[0.0] * len(buyer.columns)]
    took_s = []
    for _ in range(WARM_UP + QUERIES):
        began = time.perf_counter()
        buyer.predict(row)
        took_s.append(time.perf_counter() - began)
    took_ms = sorted(1000 * t for t in took_s[WARM_UP:])
    for metric, value in (
        ("p50", statistics.median(took_ms)),
        ("p90", took_ms[int(0.9 * len(took_ms))]),
    ):
        yield {
            "workload": "paid_query_one_row",
            "engine": "ring",
            "metric": metric,
            "value": round(value, 1),
            "unit": "ms",
        }


def _make_buyer(url: str, folder: Path) -> ClientHome:
    """A new person with test money enough for every query."""
    from workers.client.api import Api
    from workers.client.home import Home as ClientHome

    account = {
        "email": f"bench-{secrets.token_hex(6)}@example.org",
        "password": secrets.token_urlsafe(24),
        "name": "Bench buyer",
        "kind": "person",
    }
    api_key = Api(url).post("accounts/", account)["api_key"]
    home = ClientHome(folder)
    home.connect(url=url, api_key=api_key)
    money = {"asset": "USDC", "amount_micro": str(FAUCET_MICRO)}
    home.api().post("wallet/faucet/", money, idempotency_key=secrets.token_hex(16))
    return home


if __name__ == "__main__":
    sys.exit(_play_and_measure(Path(sys.argv[1])))
