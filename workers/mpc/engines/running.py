"""What surrounds every run on shares: inputs of the declared shapes, nothing out undeclared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apps.protocol.circuits import Circuit, Outcome
from workers.mpc.engines.base import Engine, Shared
from workers.mpc.engines.counted import Disagreement

# So many rows of a query are computed in one go, so that what a node needs of memory does not grow
# with all of them. All members must do it alike.
ROWS_AT_ONCE = 2500

# (this node's share, its shape, its fractional bits) -> the secret; raises ValueError
Enter = Callable[[Any, tuple[int, ...], int], Shared]
Secrets = dict[str, list[Shared]]


def entered(
    circuit: Circuit,
    shares: Mapping[str, Sequence[Any]],
    params: Mapping[str, Any],
    enter: Enter,
) -> Secrets:
    """This node's shares as the engine's secrets, slot by slot. Raises: BadParams, ValueError."""
    circuit.validate(params)
    secrets = {
        name: [enter(item, slot.shape(params, at), slot.f) for at, item in enumerate(given)]
        for name, slot in circuit.slots.items()
        for given in [shares.get(name, ())]
    }
    for name, items in secrets.items():
        if len(items) < circuit.min_members.get(circuit.slots[name].role, 1):
            raise ValueError(f"too few inputs for slot {name!r}")
    return secrets


def run_declared(
    circuit: Circuit, engine: Engine, secrets: Secrets, params: Mapping[str, Any]
) -> Outcome:
    """The circuit's outcome. Raises: Disagreement for what it yields without declaring it."""
    outcome = _run(circuit, engine, secrets, params)
    undeclared = set(outcome.openings) - {opening.name for opening in circuit.opens}
    if undeclared or (outcome.sealed is not None and not circuit.sealed):
        raise Disagreement("the circuit yields what it does not declare")
    return outcome


def _run(circuit: Circuit, engine: Engine, secrets: Secrets, params: Mapping[str, Any]) -> Outcome:
    slot = circuit.rowwise
    if slot is None or params["rows"] <= ROWS_AT_ONCE:
        return circuit.run(engine, secrets, params)
    (rows,) = secrets[slot]
    sealed: list[Any] = []
    for start in range(0, params["rows"], ROWS_AT_ONCE):
        part = engine.index(rows, np.s_[start : start + ROWS_AT_ONCE])
        asked = {**params, "rows": part.shape[0]}
        sealed.append(circuit.run(engine, secrets | {slot: [part]}, asked).sealed)
    return Outcome(sealed=engine.concat(sealed))
