"""A node of the bench: as every other, but that it carries the bench's round as well.

Run as `python -m flai_site.bench.node --home DIR`.
"""

from __future__ import annotations

import sys

from apps.protocol.circuits import CIRCUITS
from workers.mpc.workloads import gated_mean
from workers.node.__main__ import main

if __name__ == "__main__":
    circuit = gated_mean(1).circuit
    CIRCUITS[circuit.id] = circuit
    sys.exit(main())
