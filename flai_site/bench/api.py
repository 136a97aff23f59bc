"""A paid private query through a running stack, as a buyer sees it: share, seal, pay, open.

Measures the stack that runs here, or else one of its own, in which the demonstration was played.
The buyer is made for the run.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flai_site.bench import bundles
from flai_site.stack.layout import Home, Ports, StackError
from flai_site.stack.supervisor import Service
from flai_site.stack.up import Stack, free_ports, python, run_stack

if TYPE_CHECKING:
    from workers.client.buyer import Buyer
    from workers.client.home import Home as ClientHome

QUERIES = 40
WARM_UP = 5
CLIENTS, EACH = 32, 12
ROWS, WIDE_CLIENTS, WIDE_EACH = 100, 4, 8
STAGES = ("seal", "web", "queue", "claim", "nodes", "open")
LIMITS = {"rows_per_epoch": 10_000_000, "rows_per_query": 1000}
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
    home = Home(folder / "flai")
    home.prepare()
    for index in range(len(ports.control)):  # nodes that answer more than a day's rows
        home.node(index).mkdir(parents=True)
        (home.node(index) / "policy.json").write_text(json.dumps(LIMITS))
    stack = Stack(home, ports)
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

    home = _make_buyer(url, folder)
    buyer = Buyer(home, slug)
    row = [[0.0] * len(buyer.columns)]
    ask(buyer, row)  # makes the signing key before threads do
    for _ in range(WARM_UP):
        ask(buyer, row)
    alone = [ask(buyer, row) for _ in range(QUERIES)]
    yield from _lines("paid_query_one_row", alone)
    for stage in STAGES:
        yield _line(f"paid_query_one_row/{stage}", "p50", median(a[stage] for a in alone), "ms")
    spent_s, many = crowd(url, home, slug, row, clients=CLIENTS, each=EACH)
    yield from _lines(f"paid_query_{CLIENTS}_clients", many)
    yield _line(f"paid_query_{CLIENTS}_clients", "rate", len(many) / spent_s, "queries/s")
    nodes = {
        size: [a["nodes"] for a in alone + many if a["together"] == size] for size in range(65)
    }
    most = max(size for size, took in nodes.items() if took)
    yield _line("nodes/together", "most", most, "queries")
    for size in (1, most):
        yield _line(f"nodes/together_{size}", "p50", median(nodes[size]), "ms")
    rows = row * ROWS
    spent_s, wide = crowd(url, home, slug, rows, clients=WIDE_CLIENTS, each=WIDE_EACH)
    yield from _lines(f"paid_query_{ROWS}_rows", wide)
    yield _line(f"paid_query_{ROWS}_rows", "rate", ROWS * len(wide) / spent_s, "rows/s")
    yield from bundles.run(lambda: buyer.make_query(row)[0])


def ask(buyer: Buyer, rows: list[list[float]]) -> dict[str, Any]:
    """One paid query, and where its time went (ms): seal, hold and reply, queue, nodes, settle."""
    began = time.perf_counter()
    key = secrets.token_hex(16)
    body, reply_private = buyer._quoted_query(rows, key)
    sealed = time.perf_counter()
    query = buyer._ended(buyer._post(body, key))
    ended = time.perf_counter()
    buyer._open(query, body["input"]["ticket"], reply_private)
    opened = time.perf_counter()
    at = {m["state"]: datetime.fromisoformat(m["at"]).timestamp() for m in query["timeline"]}
    marks = {m["state"]: m for m in query["timeline"]}
    nodes_ms = marks["settled"]["nodes_ms"]
    inside_ms = 1000 * (at["settled"] - at["held"])
    return {
        "all": 1000 * (opened - began),
        "seal": 1000 * (sealed - began),
        "queue": 1000 * (at["running"] - at["held"]),
        "nodes": nodes_ms,
        "claim": 1000 * (at["settled"] - at["running"]) - nodes_ms,
        "web": 1000 * (ended - sealed) - inside_ms,
        "open": 1000 * (opened - ended),
        "together": marks["running"]["together"],
    }


def crowd(
    url: str, home: ClientHome, slug: str, rows: list[list[float]], *, clients: int, each: int
) -> tuple[float, list[dict[str, Any]]]:
    """So many clients ask one question after the other. Returns (seconds, what `ask` says)."""
    from workers.client.buyer import Buyer

    buyers = [Buyer(home, slug) for _ in range(clients)]

    def work(buyer: Buyer) -> list[dict[str, Any]]:
        return [ask(buyer, rows) for _ in range(each)]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        done = [one for answers in threads.map(work, buyers) for one in answers]
    return time.perf_counter() - began, done


def _lines(workload: str, asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    took_ms = sorted(one["all"] for one in asked)
    yield _line(workload, "p50", median(took_ms), "ms")
    yield _line(workload, "p95", took_ms[int(0.95 * len(took_ms))], "ms")


def _line(workload: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    facts = {"workload": workload, "engine": "ring", "metric": metric}
    return facts | {"value": round(value, 1), "unit": unit}


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
