"""A paid private query through a running stack, as a buyer sees it: share, seal, pay, open.

Measures the stack that runs here, or else one of its own, in which the demonstration was played and
a neural network put on sale, too. The buyer is made for the run.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from apps.protocol.circuits import CLASSES, INFERS
from apps.protocol.encoding import width
from apps.protocol.targets import extras_of
from flai_site.bench import browser, bundles, owned, processes
from flai_site.stack.layout import Home, StackError

if TYPE_CHECKING:
    from workers.client.buyer import Buyer
    from workers.client.home import Home as ClientHome

QUERIES = 40
WARM_UP = 6
CLIENTS, EACH = 32, 12
ROWS, WIDE_CLIENTS, WIDE_EACH = 100, 4, 8
JOB_ROWS, JOB_TURNS = 10_000, 3
PART_ROWS, PART_CLIENTS = 1000, 2  # of the same job in several queries
LOGISTIC = CLASSES["logistic"].infer_id("logit")
STAGES = ("seal", "web", "queue", "claim", "nodes", "open")
FAUCET_MICRO = 100_000 * 1_000_000


def run() -> Iterator[dict[str, Any]]:
    running = Home.from_environment().running()
    if running is not None:
        yield from measure(running["url"])
    else:
        yield from owned.run("flai_site.bench.api")


def listing_open(url: str) -> str:
    """The name of something that is on sale, a logistic model where there is one.
    Raises: StackError."""
    found = _on_sale(url)
    if not found:
        raise StackError("No listing is open: `manage.py demo` opens one.")
    return min(found, key=lambda slug: found[slug] != LOGISTIC)


def _on_sale(url: str) -> dict[str, str]:
    """{short name of each open listing: the circuit that answers it}"""
    from workers.client.api import Api

    listings = Api(url).every("listings/")
    return {str(x["slug"]): str(x["circuit"]) for x in listings if x["status"] == "open"}


def measure(url: str) -> Iterator[dict[str, Any]]:
    slug = listing_open(url)
    with TemporaryDirectory(prefix="flai-bench-") as folder:
        home = make_buyer(url, Path(folder))
        yield from _networks(url, home)
        yield from _measure(url, slug, home)


def _networks(url: str, home: ClientHome) -> Iterator[dict[str, Any]]:
    """A lone query of each network that is on sale, called by the sizes of its layers."""
    from workers.client.buyer import Buyer

    for slug, circuit in _on_sale(url).items():
        model, _ = INFERS[circuit]
        if model.hidden:
            buyer = Buyer(home, slug)
            extras = extras_of(model, buyer.listing)
            layers = model.layers({"features": width(buyer.features), **extras})
            sizes = [layers[0][0], *(out for _, out in layers)]
            yield from _alone(buyer, f"paid_query_mlp_{'_'.join(map(str, sizes))}")[1]


def _alone(buyer: Buyer, workload: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what `ask` says of queries of a row, one after the other; their lines)"""
    row = [[0.0] * len(buyer.columns)]
    for _ in range(WARM_UP):
        ask(buyer, row)
    with Spent() as spent:
        asked = [ask(buyer, row) for _ in range(QUERIES)]
    stages = (
        _line(f"{workload}/{stage}", "p50", median(a[stage] for a in asked), "ms")
        for stage in STAGES
    )
    return asked, [*_lines(workload, asked), *stages, *spent.lines(workload, len(asked))]


def _measure(url: str, slug: str, home: ClientHome) -> Iterator[dict[str, Any]]:
    from workers.client.buyer import Buyer

    buyer = Buyer(home, slug)
    row = [[0.0] * len(buyer.columns)]
    alone, lines = _alone(buyer, "paid_query_one_row")  # makes the signing key before threads do
    yield from lines
    buyers = [Buyer(home, slug) for _ in range(CLIENTS)]
    crowd(buyers, row, each=1)  # as above: they connect, the site's threads prepare statements
    with Spent() as spent:
        many = crowd(buyers, row, each=EACH)
    yield from _lines(f"paid_query_{CLIENTS}_clients", many)
    yield _line(f"paid_query_{CLIENTS}_clients", "rate", len(many) / spent.clock_s, "queries/s")
    yield from spent.lines(f"paid_query_{CLIENTS}_clients", len(many))
    nodes = {
        size: [a["nodes"] for a in alone + many if a["together"] == size] for size in range(65)
    }
    most = max(size for size, took in nodes.items() if took)
    yield _line("nodes/together", "most", most, "queries")
    for size in (1, most):
        yield _line(f"nodes/together_{size}", "p50", median(nodes[size]), "ms")
    rows = row * ROWS
    with Spent() as spent:
        wide = crowd(buyers[:WIDE_CLIENTS], rows, each=WIDE_EACH)
    yield from _lines(f"paid_query_{ROWS}_rows", wide)
    yield _line(f"paid_query_{ROWS}_rows", "rate", ROWS * len(wide) / spent.clock_s, "rows/s")
    yield from spent.lines(f"paid_query_{ROWS}_rows", len(wide))
    if buyer.rows_max >= JOB_ROWS:
        yield from _jobs(buyers[:PART_CLIENTS], row)
    yield from browser.run(url, buyer.listing, home.api_key_path.read_text().strip())
    yield from bundles.run(lambda: buyer.make_query(row)[0])


def _jobs(buyers: list[Buyer], row: list[list[float]]) -> Iterator[dict[str, Any]]:
    """So many rows in one query, in turn with the same in several; and lone queries beside one."""
    name, buyer, other = f"paid_job_{JOB_ROWS}_rows", buyers[0], buyers[-1]
    each = JOB_ROWS // PART_ROWS // len(buyers)
    whole, parts = [], []
    for _ in range(JOB_TURNS):
        with Spent() as spent:
            one = ask(buyer, row * JOB_ROWS)
        whole.append((spent, one))
        with Spent() as spent:
            crowd(buyers, row * PART_ROWS, each=each)
        parts.append(spent)
    yield _line(name, "elapsed", 1000 * median(s.clock_s for s, _ in whole), "ms")
    for stage in STAGES:
        yield _line(f"{name}/{stage}", "p50", median(one[stage] for _, one in whole), "ms")
    yield from whole[-1][0].lines(name, 1)
    in_parts = f"{name}_in_{JOB_ROWS // PART_ROWS}_queries"
    yield _line(in_parts, "elapsed", 1000 * median(s.clock_s for s in parts), "ms")
    yield from parts[-1].lines(in_parts, 1)

    beside = []
    with ThreadPoolExecutor(1) as threads:
        for _ in range(JOB_TURNS):
            large = threads.submit(ask, buyer, row * JOB_ROWS)
            while not large.done():
                beside.append(ask(other, row))
    yield from _lines("paid_query_one_row_beside_a_job", beside)


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


def crowd(buyers: list[Buyer], rows: list[list[float]], *, each: int) -> list[dict[str, Any]]:
    """All at once, each asks one question after the other. Returns what `ask` says of each."""

    def work(buyer: Buyer) -> list[dict[str, Any]]:
        return [ask(buyer, rows) for _ in range(each)]

    with ThreadPoolExecutor(len(buyers)) as threads:
        return [one for answers in threads.map(work, buyers) for one in answers]


class Spent:
    """Time on the clock, and processor time of each kind of process, of what happens inside; where
    another machine's stack is asked, this client's alone."""

    def __init__(self) -> None:
        running = Home.from_environment().running()
        self._supervisor = running["pid"] if running else 0

    def __enter__(self) -> Spent:
        self._before = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        after = self._now()
        spent = {name: after[name] - before for name, before in self._before.items()}
        self.clock_s = spent.pop("clock")
        self.processor_s = spent

    def _now(self) -> dict[str, float]:
        ours = {"clock": time.perf_counter(), "client": time.process_time()}
        return ours | processes.spent_s(self._supervisor)

    def lines(self, workload: str, queries: int) -> Iterator[dict[str, Any]]:
        """Per query."""
        for name, spent_s in (self.processor_s | {"all": sum(self.processor_s.values())}).items():
            yield _line(f"{workload}/{name}", "processor", 1000 * spent_s / queries, "ms")


def _lines(workload: str, asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    took_ms = sorted(one["all"] for one in asked)
    yield _line(workload, "p50", median(took_ms), "ms")
    yield _line(workload, "p95", took_ms[int(0.95 * len(took_ms))], "ms")


def _line(workload: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    facts = {"workload": workload, "engine": "ring", "metric": metric}
    return facts | {"value": round(value, 1), "unit": unit}


def make_buyer(url: str, folder: Path) -> ClientHome:
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
    sys.exit(owned.play(Path(sys.argv[1]), measure, network=True))
