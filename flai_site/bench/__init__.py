"""`manage.py bench [GROUP] [--json FILE]`: measurements as JSON lines.

One module a group, each with `run() -> Iterator[dict]` yielding
{"workload", "engine", "metric", "value", "unit"}. What is printed was measured in this run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from flai_site.stack.layout import StackError

GROUPS = {
    "mpc": "flai_site.bench.rounds",
    "api": "flai_site.bench.api",
    "soak": "flai_site.bench.soak",
    "pages": "flai_site.bench.pages",
    # last: it binds this process to a database of its own
    "ledger": "flai_site.bench.ledger",
}
# Some of a group's lines by themselves, which "all" does not measure twice.
PARTS = {"growth": "flai_site.bench.growth"}
FIELDS = ("workload", "engine", "metric", "value", "unit")


def run_bench(group: str, file: Path | None) -> int:
    """Print every measurement of `group` ("all": of each), into `file` as well.

    Raises StackError for a group that does not exist.
    """
    if group not in ("all", *GROUPS, *PARTS):
        known = ", ".join([*GROUPS, *PARTS, "all"])
        raise StackError(f"No bench group {group!r}; there are: {known}.", 2)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    lines = []
    for name in GROUPS if group == "all" else [group]:
        for measured in _measure(name):
            lines.append(json.dumps({"group": name} | {key: measured[key] for key in FIELDS}))
            print(lines[-1], flush=True)
    if file is not None:
        file.write_text("".join(line + "\n" for line in lines))
    return 0


def _measure(group: str) -> Iterator[dict[str, Any]]:
    yield from import_module((GROUPS | PARTS)[group]).run()
