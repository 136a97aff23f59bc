"""A stack of a bench's own, in which the demonstration was played: so there is a model on sale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flai_site.stack.layout import Home, Ports, StackError
from flai_site.stack.supervisor import Service
from flai_site.stack.up import Stack, free_ports, python, run_stack

ROWS_PER_EPOCH = "10000000"  # more than a day's
VOTE_S = "15"  # on a machine that may have much else to do
Lines = Iterator[dict[str, Any]]


def run(module: str) -> Lines:
    """Start a stack, let `module` be its story, which calls `play`, stop it, and pass on what it
    measured: where it fails, that as well. Raises: StackError."""
    with TemporaryDirectory(prefix="flai-bench-") as folder:
        measured = Path(folder) / "measured.jsonl"
        measured.touch()
        web, *nodes = free_ports(7)
        ports = Ports(web=web, control=tuple(nodes[:3]), mesh=tuple(nodes[3:]))
        home = Home(Path(folder) / "flai")
        home.prepare()
        os.environ.setdefault("FLAI_VOTING_PERIOD_MIN_S", VOTE_S)
        os.environ["FLAI_ROWS_PER_EPOCH"] = ROWS_PER_EPOCH
        stack = Stack(home, ports)
        story = Service(
            "bench",
            lambda: python("-m", module, str(measured)),
            environment=stack.environment(pool_max=0),
            attached=True,
            guarded=True,
        )
        try:
            code = run_stack(stack, story=story, stay=False, say=_progress)
        finally:
            stack.wipe()
        yield from map(json.loads, measured.read_text().splitlines())
        if code:
            raise StackError(f"The stack of {module}'s own failed; see above.", code)


def play(out: Path, measure: Callable[[str], Lines], *, network: bool = False) -> int:
    """The story of such a stack: the demonstration, with `network` a second one that puts a neural
    network on sale, then what is measured at its address, into `out`."""
    home = Home.from_environment()
    running = home.running()
    assert running is not None
    where = ["--url", running["url"], "--home", str(home.demo)]
    stories = [python("-m", "workers.demo", *where, "--once")]
    if network:
        where = ["--url", running["url"], "--home", str(home.root / "network")]
        nodes = str(home.node(0).parent)
        stories.append(python("-m", "workers.demo.network", *where, "--nodes", nodes))
    for story in stories:
        code = subprocess.run(story, stdout=sys.stderr.fileno(), check=False).returncode
        if code:
            return code
    with out.open("w") as file:
        try:
            for line in measure(running["url"]):
                print(json.dumps(line), file=file, flush=True)
        except StackError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    return 0


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
