"""What a query's circuit computes, as a graph of operations, and the hash that names it.

A circuit that opens nothing asks nothing of its inputs but their shapes: run once on placeholders
it leaves the list of its steps, each an operation of `Ops` on earlier ones and on public integers.
Its hash is of that list: releases that compute the same have the same, however their files read.

    circuit_hash = digest("flai/query-circuit/v1", {circuit, resolution, slots, steps, sealed})

Order counts: nodes that took the steps in another order would send each other other messages. The
graph is that of two rows of a model of these sizes; each row is computed by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from apps.protocol.circuits.declare import Circuit, Params
from apps.protocol.circuits.ops import Ops
from apps.protocol.wire import digest

CIRCUIT_DOMAIN = "flai/query-circuit/v1"
ROWS = 2


@dataclass(frozen=True)
class Placeholder:
    """A secret of which only place in the list, shape and fractional bits are known."""

    place: int
    shape: tuple[int, ...]
    f: int

    @property
    def like(self) -> Any:
        """An array of this shape that takes no memory."""
        return np.broadcast_to(np.zeros((), np.int8), self.shape)


Sized = tuple[tuple[int, ...], int]


def _like(array: Any, f: int) -> Sized:
    return np.atleast_1d(array).shape, f


def _product(shape: Callable[[Any, Any], tuple[int, ...]]) -> Callable[..., Sized]:
    return lambda a, b, f: (shape(a, b) or (1,), max(a.f, b.f) if f is None else f)


def _wide(*items: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(item.shape for item in items))


def _own(a: Any, *_: Any) -> Sized:
    return a.shape, a.f


def _at(a: Any, f: int, *_: Any, **__: Any) -> Sized:
    return a.shape, f


def _bit(a: Any, **_: Any) -> Sized:
    return a.shape, 0


# Shape and fractional bits of what each operation gives: workers/mpc/engines/base.py.
_RULES: dict[str, Callable[..., Sized]] = {
    "public": _like,
    "add": lambda a, b: (_wide(a, b), max(a.f, b.f)),
    "sub": lambda a, b: (_wide(a, b), max(a.f, b.f)),
    "neg": _own,
    "add_public": _own,
    "scale": lambda a, ints, f: (_wide(a, np.asarray(ints)), a.f + f),
    "combine": lambda a, table, f: ((np.asarray(table).shape[1], *a.shape[1:]), a.f + f),
    "lift": _at,
    "halve": lambda a, times: (a.shape, a.f + times),
    "sum": lambda a, axis: _like(a.like.sum(axis=axis), a.f),
    "index": lambda a, key: _like(a.like[key], a.f),
    "reshape": lambda a, shape: _like(a.like.reshape(tuple(shape)), a.f),
    "transpose": lambda a: (a.shape[::-1], a.f),
    "broadcast": lambda a, shape: _like(np.broadcast_to(a.like, tuple(shape)), a.f),
    "stack": lambda items, axis: _like(np.stack([i.like for i in items], axis), items[0].f),
    "concat": lambda items, axis: _like(np.concatenate([i.like for i in items], axis), items[0].f),
    "mul": _product(lambda a, b: _wide(a, b)),
    "dot": _product(lambda a, b: _wide(a, b)[:-1]),
    "matmul": _product(lambda a, b: (*a.shape[:-1], *b.shape[1:])),
    "trunc": _at,
    "ltz": _bit,
    "less_than": lambda a, b: (_wide(a, b), 0),
    "bit": _bit,
    "floor": _bit,
    "select": lambda bit, a, b: (_wide(bit, a, b), max(a.f, b.f)),
    "clamp": _own,
    "relu": _own,
    "max": lambda a: ((1, *a.shape[1:]), a.f),
    "reciprocal": _at,
    "rsqrt": _at,
    "sqrt": _at,
    "log": _at,
    "exp": _at,
    "sigmoid": _own,
    "sigmoid_hard": _own,
    "sigmoid_accurate": _own,
}


class Recorder:
    """An engine that computes nothing and writes down what it is asked for.

    It knows no opening: what is opened may decide what comes next, and that is no one graph.
    """

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self._places = 0

    def secret(self, shape: tuple[int, ...], f: int) -> Placeholder:
        self._places += 1
        return Placeholder(self._places - 1, shape, f)

    def within(self, a: Placeholder, low: int, high: int) -> Placeholder:
        """What is said of a value is no step."""
        return a

    def __getattr__(self, name: str) -> Callable[..., Placeholder]:
        rule, signature = _RULES.get(name), _signatures().get(name)
        if rule is None or signature is None:
            raise AttributeError(f"{name} is not an operation of a query's circuit")

        def record(*positional: Any, **named: Any) -> Placeholder:
            asked = signature.bind(*positional, **named)
            asked.apply_defaults()  # the same step however its arguments are written
            self.steps.append([name, {k: _written(v) for k, v in asked.arguments.items()}])
            return self.secret(*rule(*asked.args, **asked.kwargs))

        return record


@cache
def _signatures() -> dict[str, inspect.Signature]:
    """Of each operation, without `self`."""
    found = {}
    for name in _RULES:
        whole = inspect.signature(getattr(Ops, name))
        found[name] = whole.replace(parameters=list(whole.parameters.values())[1:])
    return found


def _written(value: Any) -> Any:
    """An argument in canonical form; integers as strings. Raises: ValueError for a float."""
    if isinstance(value, Placeholder):
        return {"of": value.place}
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iu":
            raise ValueError("a circuit's constants are integers")
        data = np.ascontiguousarray(value, dtype="<i8").tobytes()
        return {"ints": digest(CIRCUIT_DOMAIN, data), "shape": list(value.shape)}
    if isinstance(value, slice):
        return {"slice": [_written(x) for x in (value.start, value.stop, value.step)]}
    if isinstance(value, (list, tuple, range)):
        return [_written(x) for x in value]
    if value is None:
        return None
    raise ValueError(f"{type(value).__name__} is no argument of a circuit's step")


def graph_of(circuit: Circuit, params: Params) -> dict[str, Any]:
    """What this circuit of a query computes at these parameters, in canonical form.

    Raises: BadParams.
    """
    circuit.validate(params)
    ops = Recorder()
    slots = {
        name: ops.secret(tuple(slot.shape(params, 0)), slot.f)
        for name, slot in sorted(circuit.slots.items())
    }
    secrets: Any = {name: [secret] for name, secret in slots.items()}
    recording: Any = ops
    sealed: Any = circuit.run(recording, secrets, params).sealed
    return {
        "circuit": circuit.id,
        "resolution": circuit.resolution,
        "of_model": sorted([*circuit.of_model, *(set(circuit.of_model_too) & set(params))]),
        "slots": {
            name: {"role": circuit.slots[name].role, "f": secret.f, "shape": list(secret.shape)}
            for name, secret in slots.items()
        },
        "steps": ops.steps,
        "sealed": sealed.place,
    }


_hashes: dict[tuple[Any, ...], str] = {}


def circuit_hash(circuit: Circuit, made: Mapping[str, Any]) -> str:
    """The hash of a query's circuit for a model made with these parameters; others of them than the
    model's sizes play no part. Raises: BadParams where such a model can't enter it."""
    names = (*circuit.of_model, *circuit.of_model_too)
    sizes = {name: made[name] for name in names if type(made.get(name)) is int}
    key = circuit.id, *sizes.items()
    if key not in _hashes:
        _hashes[key] = digest(CIRCUIT_DOMAIN, graph_of(circuit, {**sizes, "rows": ROWS}))
    return _hashes[key]
