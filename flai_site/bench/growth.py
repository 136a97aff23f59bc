"""`bench growth`: how rounds grow with sites and rows, and the picture of it in docs/learning.md.

Three processes as in `bench mpc`; processor time is of the node that needs most of it, all its
threads, and hardly changes with what else the machine does.

    python3 manage.py bench growth --json docs/growth.jsonl
    python -m flai_site.bench.growth docs/growth.jsonl docs/growth.svg
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from workers.mpc.bench import AnyOutcome, Members, Once, federated_round, secure_sgd
from workers.mpc.workloads import Workload

REPEATS = 3
# title: (what a tick counts, the workload of so many, how many at 1, 2, 4 and 8 times)
PANELS = {
    "Sites": ("{} sites × 1 000 rows that judge, shapley", (4, 8, 16, 32)),
    "Rows that judge": ("8 sites × {} rows that judge, shapley", (250, 500, 1000, 2000)),
    "Rows trained on": ("5 sites × {} rows, 50 steps on shared rows", (200, 400, 800, 1600)),
}
LINES = {"processor": "#b3541e", "sent": "#2e7d4f", "rounds": "#6b4fa0"}
NAMES = {
    "processor": "processor, a node",
    "sent": "sent by a node",
    "rounds": "rounds of messages",
    "latency": "time on this machine",
}
UNITS = {"processor": "ms", "latency": "ms", "sent": "bytes", "rounds": "rounds"}
WIDE, HIGH, LEFT, TOP, GAP = 230, 230, 46, 52, 64


def run() -> Iterator[dict[str, Any]]:
    """Measurements as manage.py prints them; workload "PANEL/count"."""
    for title, (_, counts) in PANELS.items():
        for count in counts:
            for metric, value in _weighed(_workload(title, count)).items():
                yield {
                    "workload": f"{title}/{count}",
                    "engine": "ring",
                    "metric": metric,
                    "value": value,
                    "unit": UNITS[metric],
                }


def _workload(title: str, count: int) -> Workload:
    if title == "Rows trained on":
        return secure_sgd(rows=count)
    sites, rows = (count, 1000) if title == "Sites" else (8, count)
    return federated_round(sites, 1, rows, 1, scoring="shapley")


def _weighed(workload: Workload) -> dict[str, float]:
    by_member = Members(workload, repeats=REPEATS, work=_repeated).answers()
    outcomes: list[AnyOutcome] = [runs[-1][2] for runs in by_member]
    return {
        "latency": round(statistics.median(max(r[0] for r in runs) for runs in zip(*by_member)), 1),
        "processor": round(max(statistics.median(r[1] for r in runs) for runs in by_member), 1),
        "sent": max(outcome.bytes_sent for outcome in outcomes),
        "rounds": outcomes[0].rounds,
    }


def _repeated(once: Once, repeats: int) -> list[tuple[float, float, AnyOutcome]]:
    """(ms, processor ms, outcome) of each run after a warm-up."""
    found = []
    for number in range(1 + repeats):
        began = time.process_time()
        latency_ms, _, outcome = once(number)
        found.append((latency_ms, (time.process_time() - began) * 1e3, outcome))
    return found[1:]


def picture(lines: Iterable[Mapping[str, Any]]) -> str:
    """An SVG: each panel's costs as multiples of those at its first count, both axes by doubling;
    what is less than there is drawn there. Raises KeyError where a measurement is missing."""
    measured = {(line["workload"], line["metric"]): float(line["value"]) for line in lines}
    width = LEFT + len(PANELS) * (WIDE + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HIGH + 128}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        "<title>What a round costs at one, two, four and eight times the sites or rows</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for place, (title, (what, counts)) in enumerate(PANELS.items()):
        parts.append(f'<g transform="translate({LEFT + place * (WIDE + GAP)},{TOP})">')
        parts += _panel(title, what, counts, measured)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    title: str, what: str, counts: tuple[int, ...], measured: Mapping[tuple[str, str], float]
) -> Iterator[str]:
    yield f'<text y="-30" font-weight="600">{title}</text>'
    yield f'<text y="-12" font-size="10.5">{escape(what.format("n"))}</text>'
    for step in range(5):  # 1 to 16 times
        y = _y(2**step)
        yield f'<path d="M0 {y:.1f}H{WIDE}" stroke="#ddd"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{2**step}×</text>'
    xs = [WIDE * i / (len(counts) - 1) for i in range(len(counts))]
    for x, count in zip(xs, counts, strict=True):
        yield f'<text x="{x:.1f}" y="{HIGH + 18}" text-anchor="middle">{count}</text>'
    yield f'<path d="M0 {_y(1):.1f}L{WIDE} {_y(8):.1f}" stroke="#999" stroke-dasharray="4 4"/>'
    for row, (metric, name) in enumerate(NAMES.items()):
        values = [measured[f"{title}/{count}", metric] for count in counts]
        below, ends = HIGH + 42 + 18 * row, (values[0], values[-1])
        told = " → ".join(_said(value, metric) for value in ends)
        yield f'<text x="16" y="{below}">{name}: {told}</text>'
        if metric not in LINES:  # it says more of what else the machine did
            continue
        colour, ys = LINES[metric], [_y(value / values[0]) for value in values]
        yield f'<rect y="{below - 9}" width="10" height="10" fill="{colour}"/>'
        points = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]
        yield f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in zip(xs, ys, strict=True):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _y(times: float) -> float:
    return HIGH * (1 - math.log2(max(times, 1.0)) / 4)


def _said(value: float, metric: str) -> str:
    if metric == "rounds":
        return f"{value:.0f}"
    return f"{value / 1e6:.1f} MB" if metric == "sent" else f"{value / 1000:.2f} s"


def main(measured: Path, drawn: Path) -> None:
    drawn.write_text(picture(map(json.loads, measured.read_text().splitlines())))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
