"""What names a query's circuit is what it computes, however that is written down."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, INFERS, BadParams, query_hash
from apps.protocol.circuits.declare import Outcome
from apps.protocol.circuits.family import NORMALISATION
from apps.protocol.circuits.graph import Recorder, graph_of
from workers.mpc.engines.plain import run_plain

RELEASED = Path(__file__).parent / "query_circuits.json"
LOGIT = CIRCUITS["logistic_infer@1"]
MADE = {"features": 3}


def made_with(circuit_id: str) -> dict[str, Any]:
    model, _ = INFERS[circuit_id]
    return MADE | {name: least + 1 for name, (least, _) in model.extras.items()}


def test_a_released_circuit_is_changed_under_another_name_only() -> None:
    """Nodes don't ask a model what its makers did not sign for. So a query's circuit that shall
    compute something else becomes NAME@2, beside the one that is here: add a line to the file for
    it, and change none."""
    now = {circuit_id: query_hash(circuit_id, made_with(circuit_id)) for circuit_id in INFERS}
    assert now == json.loads(RELEASED.read_text())


@pytest.mark.parametrize("circuit_id", INFERS)
def test_a_graph_has_the_shapes_of_what_is_computed(circuit_id: str) -> None:
    circuit, params = CIRCUITS[circuit_id], made_with(circuit_id) | {"rows": 2}
    shapes = {name: slot.shape(params, 0) for name, slot in circuit.slots.items()}
    zeros = {name: [np.zeros(shape, np.int64)] for name, shape in shapes.items()}
    computed: Any = run_plain(circuit, zeros, params).sealed
    ops: Any = Recorder()
    secrets = {n: [ops.secret(shape, circuit.slots[n].f)] for n, shape in shapes.items()}
    recorded: Any = circuit.run(ops, secrets, params).sealed
    assert (recorded.shape, recorded.f) == (computed.shape, computed.f)


def graph(run: Callable[[Any, Any], Any], **declared: Any) -> dict[str, Any]:
    """Of a circuit that does this with its rows, declared as the logit's otherwise."""
    circuit = replace(LOGIT, run=lambda ops, s, params: Outcome(sealed=run(ops, s["row"][0])))
    return graph_of(replace(circuit, **declared), MADE | {"rows": 2})


def test_the_same_steps_are_the_same_graph_however_they_are_written() -> None:
    def by_name(ops: Any, rows: Any) -> Any:
        kept = ops.sum(rows, axis=1)
        return ops.scale(a=kept, ints=np.array([2, 3]))

    assert graph(by_name) == graph(lambda ops, rows: ops.scale(ops.sum(rows, 1), np.r_[2, 3], 0))


def test_whatever_is_computed_otherwise_is_another_graph() -> None:
    def row(ops: Any, rows: Any) -> Any:
        return ops.clamp(ops.sum(rows, 1), -5, 5)

    others = [
        graph(lambda ops, rows: ops.clamp(ops.sum(rows, 1), -5, 6)),
        graph(lambda ops, rows: ops.clamp(ops.index(rows, np.s_[:, 1]), -5, 5)),
        graph(lambda ops, rows: ops.sum(ops.clamp(rows, -5, 5), 1)),
        graph(lambda ops, rows: ops.neg(row(ops, rows))),
        graph(row, resolution="label"),
        graph(row, version=2),
        graph(row, of_model=()),
        graph(row, slots={**LOGIT.slots, "model": replace(LOGIT.slots["model"], f=16)}),
    ]
    assert graph(row) not in others
    constants = [
        graph(lambda ops, rows, c=c: ops.add_public(ops.sum(rows, 1), np.array(c)))
        for c in ([1, 2], [2, 1], [1, 3])
    ]
    assert constants[0] not in constants[1:] and constants[1] != constants[2]


def test_what_opens_or_is_no_integer_has_no_graph() -> None:
    with pytest.raises(AttributeError, match="open"):
        graph(lambda ops, rows: ops.open(rows))
    with pytest.raises(ValueError, match="integers"):
        graph(lambda ops, rows: ops.scale(rows, np.array([0.5, 1.5, 2.0])))


def test_the_hash_is_of_the_models_sizes_and_of_nothing_else_that_it_was_made_with() -> None:
    hashed = query_hash("logistic_infer@1", MADE)
    made = MADE | {"rows": [24], "strata": 1, "scoring": "taylor", NORMALISATION: "ab" * 32}
    assert query_hash("logistic_infer@1", made) == hashed
    assert query_hash("logistic_infer@1", {"features": 4}) != hashed
    with pytest.raises(BadParams):
        query_hash("logistic_infer@1", {"features": 0})
    with pytest.raises(KeyError):
        query_hash("logistic_infer@7", MADE)
