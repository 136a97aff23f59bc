"""The sites' agents as processes of their own, two at a time; their words go to a file each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workers.client.api import ClientError

AT_ONCE = 2
DEADLINE_S = 180


def run(module: str, arguments: Sequence[str], *, log: Path) -> str:
    """Run `python -m module arguments`; its standard output. Raises: ClientError with its error."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=environment,
            cwd=Path(__file__).resolve().parents[2],
        )
    except subprocess.TimeoutExpired:
        raise ClientError(f"{module} did not end within {DEADLINE_S} s. See {log}.") from None
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ python -m {module} {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ClientError(f"{lines[-1] if lines else 'It failed'} (all of it in {log})")
    return done.stdout


def each(keys: Sequence[str], work: Callable[[str], None], done: Callable[[str], None]) -> None:
    """`work(key)` for all keys, two at a time; `done(key)` as each ends. Raises its first error."""

    def one(key: str) -> str:
        work(key)
        return key

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for key in pool.map(one, keys):
            done(key)
