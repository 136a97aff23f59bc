"""Shares and masks come from the operating system or a keyed cipher, never from a plain generator.

Source: DESIGN.md, "Secret sharing and engines".
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRET_CODE = ("workers/mpc", "workers/node", "workers/client", "apps/protocol")


def plain_generators(source: str) -> list[str]:
    """What in `source` reaches for Python's or numpy's seeded generators."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            if name == "random" or name.startswith(
                ("random.", "numpy.random", "np.random", "uuid.uuid1")
            ):
                found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("folder", SECRET_CODE)
def test_no_plain_generator_where_shares_are_made(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"{folder} is empty: the check would prove nothing"
    bad = {
        str(f.relative_to(ROOT)): hits for f in files if (hits := plain_generators(f.read_text()))
    }
    assert not bad


def javascript() -> list[Path]:
    """Every script that the site serves, vendored ones too."""
    files = sorted((ROOT / "static").rglob("*.js"))
    assert {f.name for f in files} >= {"sealing.js", "buyer.js", "hpke.js"}
    return files


# A strict policy forbids evaluation anyway; a page that only fails in the browser fails too late.
UNSOUND = re.compile(r"Math\s*\.\s*random|\bMath\s*\[|\beval\s*\(|\bnew\s+Function\b")


def test_pages_draw_from_the_browsers_cryptography_alone_and_evaluate_nothing() -> None:
    found = {f.name: hits for f in javascript() if (hits := UNSOUND.findall(f.read_text()))}
    assert found == {}


@pytest.mark.parametrize("source", ["Math.random()", "Math . random", "Math['random']", "eval (x)"])
def test_the_check_of_scripts_finds_each_way_in(source: str) -> None:
    assert UNSOUND.search(source)


def test_every_module_imports_from_this_site_by_a_relative_path() -> None:
    imports = {
        (f.name, name)
        for f in javascript()
        if f.name != "hpke.js"
        for name in re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""", f.read_text())
    }
    assert ("sealing.js", "../vendor/hpke.js") in imports
    assert [pair for pair in imports if not pair[1].startswith(("./", "../"))] == []


@pytest.mark.parametrize(
    "source",
    ["import random", "from random import shuffle", "import numpy as np\nnp.random.rand(3)"]
    + ["from numpy.random import default_rng", "from numpy import random"],
)
def test_the_check_finds_each_way_in(source: str) -> None:
    assert plain_generators(source)


def test_the_check_lets_good_randomness_pass() -> None:
    assert plain_generators("import secrets, os\nos.urandom(16)\nsecrets.token_bytes(16)") == []
