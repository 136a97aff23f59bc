"""docs/equations.md names functions and tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (\([^|]*\)) \| [^|]+ \| `([\w.]+)` \| `([\w./]+)::(\w+)` \|$")
LINES = [
    line for line in (ROOT / "docs/equations.md").read_text().splitlines() if line.startswith("| (")
]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def test_the_table_covers_every_equation_of_the_paper():
    named = {
        int(number) for line in LINES for number in re.findall(r"\((\d+)\)", line.split("|")[1])
    }
    assert named == set(range(1, 13))


@pytest.mark.parametrize("line", LINES)
def test_function_and_test_exist(line):
    match = ROW.match(line)
    assert match, "a row is: | (n) | what it says | `module.function` | `tests/file.py::test` |"
    _, function, file, test = match.groups()
    module, name = function.rsplit(".", 1)
    assert name in functions(ROOT / (module.replace(".", "/") + ".py"))
    assert test in functions(ROOT / file)
