"""The import contract of DESIGN.md runs and holds; the protocol package stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPURE = {"time", "socket", "subprocess", "threading", "asyncio", "os", "secrets", "logging"}


def test_import_contract_holds() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Imports run down only KEPT" in done.stdout


def test_protocol_has_no_clock_no_io_no_randomness() -> None:
    bad = []
    for file in sorted((ROOT / "apps/protocol").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
                *("open", "datetime.now", "datetime.utcnow", "date.today", "print", "input"),
            ):
                names = [next(iter(IMPURE))]
            bad += [f"{file.name}:{node.lineno}" for n in names if n.split(".")[0] in IMPURE]
    assert bad == []


def test_only_the_shamir_engine_knows_mpyc() -> None:
    allowed = "workers/mpc/engines/shamir"
    users = [
        str(file.relative_to(ROOT))
        for top in ("apps", "workers", "flai_site")
        for file in (ROOT / top).rglob("*.py")
        if any(
            isinstance(node, ast.Import | ast.ImportFrom) and "mpyc" in ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text()))
        )
    ]
    assert [user for user in users if not user.startswith(allowed)] == []
