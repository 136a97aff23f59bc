"""Every circuit of this release, by id, and the hash that names the whole set.

A circuit is part of a node's own release: nodes run what they carry, never what they are sent.
Two nodes agree to compute together only when their circuits hash is equal.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from apps.protocol.circuits import logistic_infer, logistic_round, moments
from apps.protocol.circuits.declare import BadParams, Circuit, Opening, Outcome, Slot

__all__ = ["CIRCUITS", "BadParams", "Circuit", "Opening", "Outcome", "Slot", "circuits_hash"]

CIRCUITS: dict[str, Circuit] = {
    circuit.id: circuit
    for circuit in (moments.CIRCUIT, logistic_round.CIRCUIT, logistic_infer.CIRCUIT)
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
