"""What queries cost that the nodes compute together: one alone, against SIZE of them in a bundle.

The coordinator's own code asks the nodes of the stack that runs here; nothing is paid. Processor
time is that of the node processes, and of this one, which signs the bundle and checks the receipts:
unlike the time on the clock it hardly changes with what else the machine does. One and SIZE take
turns.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from statistics import mean, median
from typing import Any

from flai_site.bench import processes
from flai_site.stack.layout import Home, StackError

SIZE = 32
TURNS = 20
ALONE = 3  # in each turn, for a mean as good as the bundle's
WARM_UP = 3
SETTLE_S = 0.05

Upload = dict[str, Any]


def run(make_upload: Callable[[], Upload]) -> Iterator[dict[str, Any]]:
    """Measurements of the running stack. `make_upload` seals one query of a model that is there."""
    home = Home.from_environment()
    running = home.running()
    if running is None:
        raise StackError("No stack runs here.")
    os.environ |= running["environment"]
    import django

    django.setup()
    ask = _asker(home)
    for _ in range(WARM_UP):
        for size in (1, SIZE):
            ask([make_upload() for _ in range(size)])
    took: dict[int, list[tuple[float, float, float]]] = defaultdict(list)
    for _ in range(TURNS):
        for size in (*[1] * ALONE, SIZE):
            uploads = [make_upload() for _ in range(size)]
            nodes_s = processes.spent_s(running["pid"])["nodes"]
            before = (time.perf_counter(), time.process_time())
            ask(uploads)
            clock_s, site_s = time.perf_counter() - before[0], time.process_time() - before[1]
            time.sleep(SETTLE_S)  # until the nodes, too, have put everything away
            nodes_s = processes.spent_s(running["pid"])["nodes"] - nodes_s
            took[size].append((clock_s, site_s, nodes_s))
    for size, runs in took.items():
        clocks, site, nodes = zip(*runs)
        yield _line(f"bundle_of_{size}", "p50", 1000 * median(clocks), "ms")
        yield _line(f"bundle_of_{size}", "nodes_processor", 1000 * mean(nodes), "ms")
        yield _line(f"bundle_of_{size}", "site_processor", 1000 * mean(site), "ms")
    ratio = mean(n for *_, n in took[SIZE]) / mean(n for *_, n in took[1])
    yield _line(f"bundle_of_{SIZE}", "nodes_processor_of_one", ratio, "times")


def _asker(home: Home) -> Callable[[Sequence[Upload]], None]:
    """What has the nodes answer a bundle of these uploads. Raises: StackError if they do not."""
    from apps.compute import control, groups
    from apps.compute.services import job_new
    from apps.core.clock import now
    from apps.protocol import jobs, tickets

    published = json.loads(home.nodes_file.read_text())
    members = [
        control.Member(
            name=node["name"],
            fingerprint=jobs.fingerprint(node),
            sign_key=node["sign_key"],
            certificate=node["tls_cert"],
            url=url,
        )
        for node, url in zip(published["nodes"], published["control_urls"])
    ]

    def asked(upload: Upload) -> control.Asked:
        ticket = upload["ticket"]
        job = job_new(
            kind="query",
            circuit=ticket["circuits"][0],
            circuits_hash=ticket["circuits_hash"],
            engine=tickets.RING,
            nodes=ticket["nodes"],
            scope=ticket["scope"],
            roster=None,
            inputs={ticket["slot"]: [ticket["share_id"]]},
            model=ticket["model"],
            deadline_s=30,
            expires_at=now() + timedelta(minutes=5),
            now=now(),
        )
        descriptor = {**job.descriptor, **groups.group_any(job.descriptor), "attempt": 1}
        return control.Asked(descriptor, tickets.ticket_id(ticket), upload)

    def ask(uploads: Sequence[Upload]) -> None:
        for said in control.run_bundle(members[: tickets.TRIO], [asked(one) for one in uploads]):
            if isinstance(said, control.ControlError):
                raise StackError(f"The nodes did not answer: {said.text}")

    return ask


def _line(workload: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    facts = {"workload": workload, "engine": "ring", "metric": metric}
    return facts | {"value": round(value, 2), "unit": unit}
