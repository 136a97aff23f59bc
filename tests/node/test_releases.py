"""Models outlive releases: nodes of another one ask them if, and only if, it computes the same.

The test holds the coordinator's key and may buy, as the server can. It cannot have a model asked by
a circuit that its makers did not sign for, even with nodes that carry such a circuit.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.protocol.circuits import circuits_hash, query_hash
from tests.support.nodes import REPOSITORY, Buyer, NodeSet, Round, trained_model

CIRCUIT, MADE = "logistic_infer@1", {"features": 2}
ROWS = [[0.5, -1.0]]


def release(directory: Path, file: str, old: str, new: str) -> Path:
    """A node's code with one change to its circuits."""
    for package in ("apps/protocol", "workers"):
        shutil.copytree(REPOSITORY / package, directory / package)
    (directory / "apps/__init__.py").touch()
    path = directory / "apps/protocol/circuits" / file
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return directory


def says(release: Path, expression: str) -> str:
    """What that release's circuits make of an expression."""
    script = f"from apps.protocol.circuits import *; print({expression})"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=release, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[NodeSet]:
    nodes = NodeSet(tmp_path / "nodes", {"rows_per_epoch": 1000, "rows_per_query": 100})
    nodes.start()
    yield nodes
    nodes.stop()


def restart(nodes: NodeSet, where: Path, *indices: int) -> None:
    for i in indices:
        nodes.kill(i)
        nodes.releases[i] = where
    nodes.start(*indices)


def asked(nodes: NodeSet, model: str, **changes: Any) -> list[Any]:
    buyer = Buyer(nodes, model)
    upload = buyer.query(ROWS, **changes)
    job = buyer.job(upload, **changes)
    answers = nodes.ask(job, uploads=[upload])
    if all(answer.status_code == 200 for answer in answers):
        assert {a.json()["receipt"]["circuits_hash"] for a in answers} == {job["circuits_hash"]}
        return list(buyer.open(upload, answers))
    return [answer.json()["code"] for answer in answers]


def test_a_model_is_asked_by_every_release_that_computes_what_its_makers_signed_for(
    nodes: NodeSet, tmp_path: Path
) -> None:
    model = trained_model(nodes)
    before = asked(nodes, model)

    # a release with other rounds, and the same queries
    later = release(
        tmp_path / "later", "family.py", "PHI_MIN_POSITIVE = 3\n", "PHI_MIN_POSITIVE = 4\n"
    )
    assert says(later, "circuits_hash()") != circuits_hash()
    assert says(later, f"query_hash({CIRCUIT!r}, {MADE})") == query_hash(CIRCUIT, MADE)
    restart(nodes, later, 2)
    assert asked(nodes, model) == pytest.approx(before, abs=2**-15)
    restart(nodes, later, 0, 1)
    assert asked(nodes, model) == pytest.approx(before, abs=2**-15)
    assert (
        circuits_hash() != nodes.http.get(f"{nodes.control[0]}/descriptor").json()["circuits_hash"]
    )
    # while the owners of a round signed for all of it
    refused = nodes.post_all("/shares", Round(nodes).uploads["update"][0])
    assert [answer.json()["code"] for answer in refused] == ["circuits_differ"] * 3

    # a release in which the same name computes something else
    other = release(
        tmp_path / "other",
        "family.py",
        "            scores = ops.matmul(taken[-1], columns[-1], f=INPUT_F)\n",
        "            scores = ops.halve(ops.matmul(taken[-1], columns[-1], f=INPUT_F), 1)\n",
    )
    hashed = says(other, f"query_hash({CIRCUIT!r}, {MADE})")
    assert hashed != query_hash(CIRCUIT, MADE)
    restart(nodes, other, 2)
    assert asked(nodes, model) == ["peer_refused", "peer_refused", "circuit_changed"]
    restart(nodes, other, 0, 1)
    for named in (query_hash(CIRCUIT, MADE), hashed):
        assert asked(nodes, model, circuits_hash=named) == ["circuit_changed"] * 3

    # a release whose features nothing bounds
    loose = release(
        tmp_path / "loose",
        "family.py",
        "        inputs = with_intercept(ops, ops.clamp(rows, -limit, limit))\n",
        "        inputs = with_intercept(ops, rows)\n",
    )
    restart(nodes, loose, 0, 1, 2)
    assert asked(nodes, model) == ["not_proved"] * 3

    # nothing of it has spoilt the model
    restart(nodes, REPOSITORY, 0, 1, 2)
    assert asked(nodes, model, circuits_hash=hashed) == ["circuits_differ"] * 3
    assert asked(nodes, model) == pytest.approx(before, abs=2**-15)
