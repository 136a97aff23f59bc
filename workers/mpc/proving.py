"""A circuit's proof: that its words stay in range for these parameters, whatever its inputs.

What is opened decides what comes next: which cells are shown, which sites count, whether training
goes on. The proof plays it in nine ways: the first opening (as which updates are copies), and all
that follow, show the most that they may, the least, or the most but for the last entry. What two of
them have in common before their openings differ is computed once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from apps.protocol.circuits import CIRCUITS, Circuit
from apps.protocol.wire import canonical
from workers.mpc.engines.base import Ints
from workers.mpc.engines.bounds import Bounds, Choose, LeavesTheWord

KEPT = 256


def _most(least: Ints, most: Ints) -> Ints:
    return most


def _least(least: Ints, most: Ints) -> Ints:
    return least


def _most_but_the_last(least: Ints, most: Ints) -> Ints:
    found = most.copy()
    found.reshape(-1)[-1:] = least.reshape(-1)[-1:]
    return found


WAYS = (_most, _least, _most_but_the_last)


def prove(circuit: Circuit, params: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """counts: how many inputs each slot has, 1 where it is not said.

    Raises: LeavesTheWord; BadParams, or whatever the circuit makes of such inputs.
    """
    circuit.validate(params)
    _prove(circuit, circuit.proved_at(params), counts)


def proved(circuit_id: str, params: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """The same of a circuit of this release, once for all parameters of one proof."""
    circuit = CIRCUITS[circuit_id]
    circuit.validate(params)
    at = canonical(dict(circuit.proved_at(params)))
    error = _remembered(circuit_id, at, tuple(sorted(counts.items())))
    if error is not None:
        raise LeavesTheWord(error)


@lru_cache(maxsize=KEPT)
def _remembered(circuit_id: str, at: bytes, counts: tuple[tuple[str, int], ...]) -> str | None:
    try:
        _prove(CIRCUITS[circuit_id], json.loads(at), dict(counts))
    except LeavesTheWord as error:
        return str(error)
    return None


class Playing:
    """The language of one way: results are those of an earlier one while openings are its too.

    known: by what has been opened so far, what each operation since then gave.
    """

    def __init__(self, first: Choose, later: Choose, known: dict[tuple[bytes, ...], list[Any]]):
        self._ways, self._known = (first, later), known
        self._opened: tuple[bytes, ...] = ()
        self._given = known.setdefault((), [])
        self._at = 0
        self.bounds = Bounds(self._choose)

    def _choose(self, least: Ints, most: Ints) -> Ints:
        shown = self._ways[bool(self._opened)](least, most)
        self._opened = (*self._opened, shown.tobytes())
        self._given, self._at = self._known.setdefault(self._opened, []), 0
        return shown

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.bounds, name)
        if name in ("open", "open_rounded"):
            return operation

        def given(*arguments: Any, **named: Any) -> Any:
            if self._at == len(self._given):
                self._given.append(operation(*arguments, **named))
            self._at += 1
            return self._given[self._at - 1]

        return given


def _prove(circuit: Circuit, params: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Raises: LeavesTheWord."""
    known: dict[tuple[bytes, ...], list[Any]] = {}
    for first, later in product(WAYS, WAYS):
        ops: Any = Playing(first, later, known)
        secrets = {
            name: [
                ops.any_words(slot.shape(params, at), slot.f, slot.bound)
                for at in range(counts.get(name, 1))
            ]
            for name, slot in circuit.slots.items()
        }
        with np.errstate(over="ignore", invalid="ignore"):
            outcome = circuit.run(ops, secrets, params)
        ops.stays(circuit.id, outcome.result, circuit.result_bound)
        ops.stays(circuit.id, outcome.sealed, None)
        if len(known) == 1:
            return  # it opens nothing
