"""Every circuit of this release, by id, and the hashes that name what they compute.

A circuit is part of a node's own release: nodes run what they carry, never what they are sent.
Owners sign a hash of it: of a round, which is over in days, the hash of all source files here; of a
query, whose model outlives many releases, that of its circuit's graph alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from apps.protocol.circuits import family, moments, network_round
from apps.protocol.circuits.declare import BadParams, Circuit, Opening, Outcome, Slot
from apps.protocol.circuits.descent import sgd_circuit
from apps.protocol.circuits.family import LABELS, ModelClass, infer_circuit, round_circuit
from apps.protocol.circuits.graph import circuit_hash

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
    "query_hash",
]


def _found() -> Iterator[ModelClass]:
    """Each model class that a file of this package declares: a new one is one file."""
    for module in iter_modules(__path__):
        declared = vars(import_module(f"{__name__}.{module.name}")).values()
        yield from (value for value in declared if isinstance(value, ModelClass))


def by_name(found: Iterable[ModelClass]) -> dict[str, ModelClass]:
    """By kind of label, series and networks last. Raises: ValueError for two of one name."""
    once = {id(model): model for model in found}.values()  # a file may import another's
    ordered = sorted(once, key=lambda m: (LABELS.index(m.label), m.series, m.hidden))
    classes = {model.name: model for model in ordered}
    if len(classes) < len(ordered):
        raise ValueError("two files declare model classes of the same name")
    return classes


CLASSES: dict[str, ModelClass] = by_name(_found())

CIRCUITS: dict[str, Circuit] = {
    circuit.id: circuit
    for circuit in (
        moments.CIRCUIT,
        *(
            round_circuit(model, (network_round if model.hidden else family).run_round)
            for model in CLASSES.values()
        ),
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


def query_hash(circuit_id: str, made: Mapping[str, Any]) -> str:
    """What a query's ticket names as its circuits hash: that of the graph of this one circuit, for
    a model made with these parameters (circuits/graph.py).

    Raises: KeyError for a circuit that this release does not have, BadParams.
    """
    return circuit_hash(CIRCUITS[circuit_id], made)
