"""Every circuit of this release, by id, and the hash that names the whole set.

A circuit is part of a node's own release: nodes run what they carry, never what they are sent.
Two nodes agree to compute together only when their circuits hash is equal.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from apps.protocol.circuits import linear, logistic, mlp, moments, multinomial, poisson
from apps.protocol.circuits.declare import BadParams, Circuit, Opening, Outcome, Slot
from apps.protocol.circuits.descent import sgd_circuit
from apps.protocol.circuits.family import ModelClass, infer_circuit, round_circuit

__all__ = [
    "CIRCUITS",
    "CLASSES",
    "INFERS",
    "BadParams",
    "Circuit",
    "ModelClass",
    "Opening",
    "Outcome",
    "Slot",
    "circuits_hash",
]

# The model classes, by name: one file each.
CLASSES: dict[str, ModelClass] = {
    model.name: model
    for model in (
        *(logistic.CLASS, multinomial.CLASS, linear.CLASS, poisson.CLASS),
        *(mlp.ONE, mlp.TWO),
    )
}

CIRCUITS: dict[str, Circuit] = {
    circuit.id: circuit
    for circuit in (
        moments.CIRCUIT,
        *(round_circuit(model) for model in CLASSES.values() if model.averages),
        *(infer_circuit(model, of) for model in CLASSES.values() for of in model.resolutions),
        *(
            sgd_circuit(model, goes_on=goes_on)
            for model in CLASSES.values()
            if model.descends
            for goes_on in (False, True)
        ),
    )
}

# Which class and resolution a circuit of paid queries answers.
INFERS: dict[str, tuple[ModelClass, str]] = {
    model.infer_id(of): (model, of) for model in CLASSES.values() for of in model.resolutions
}


@cache
def circuits_hash() -> str:
    """SHA-256 over this package's source files: sorted name, length, content. Hex."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        total.update(f"{path.name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
