"""What a circuit says about itself before anything runs.

A circuit is one synchronous function `run(ops, secrets, params) -> Outcome`. Its declaration
names every secret input (slot), the public parameters it accepts, everything it opens (its whole
leak), and where its result may go next. Nodes refuse what a declaration does not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apps.protocol.circuits.ops import Ops, Secret

Params = Mapping[str, Any]
Shape = tuple[int, ...]


class BadParams(ValueError):
    """The public parameters of a job do not fit the circuit; the text is safe to show."""


@dataclass(frozen=True)
class Slot:
    """One kind of secret input.

    role: who may fill it: "custodian", "validator", "buyer", or "model" (a stored result).
    shape: (params, index of the member in its role, in roster order) -> shape of that input.
    f: fractional bits of its words.
    bound: of a stored result |word| ≤ bound, as all circuits whose results may enter here have
        proved; None for any words, which is what a party may send.
    """

    role: str
    shape: Callable[[Params, int], Shape]
    f: int = 16
    bound: int | None = None


@dataclass(frozen=True)
class Opening:
    """A value that becomes public when the circuit runs."""

    name: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """What one run yields: public openings, a stored secret, a secret for the asker alone."""

    openings: dict[str, Any] = field(default_factory=dict)
    result: Secret | None = None
    sealed: Secret | None = None


@dataclass(frozen=True)
class Circuit:
    """Declaration of one circuit; `id` is how tickets and jobs name it.

    resolution: how finely a sealed output shows what the model says, one of
        circuits.resolution.RESOLUTIONS.
    of_model: parameters that must be those by which the model that enters was made; of_model_too:
        others that models may have been made without, and are asked without then.
    result_bound: every word of its result is within ±this.
    proved_at: parameters whose proof is that of these: with as few rows or turns as show all that
        there is to show.
    rowwise: the slot of whose `rows` each is answered by itself, so that those of several askers
        may be computed one below the other, and many of one in parts.
    """

    name: str
    version: int
    slots: Mapping[str, Slot]
    validate: Callable[[Params], None]
    run: Callable[[Ops, Mapping[str, Sequence[Secret]], Params], Outcome]
    opens: tuple[Opening, ...] = ()
    result_allows: tuple[str, ...] = ()
    result_f: int | None = None
    result_bound: int | None = None
    proved_at: Callable[[Params], Params] = lambda params: params
    sealed: bool = False
    rowwise: str | None = None
    resolution: str | None = None
    of_model: tuple[str, ...] = ()
    of_model_too: tuple[str, ...] = ()
    min_members: Mapping[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def min_custodians(self) -> int:
        return self.min_members.get("custodian", 0)

    @property
    def min_validators(self) -> int:
        return self.min_members.get("validator", 0)


def whole(params: Params, name: str, low: int, high: int) -> int:
    """The integer parameter `name` within low..high.

    Raises: BadParams when it is missing, not an integer or out of range.
    """
    value = params.get(name)
    if type(value) is not int or not low <= value <= high:
        raise BadParams(f"parameter {name!r} must be a whole number from {low} to {high}")
    return value


def only(params: Params, *names: str) -> None:
    """Raises BadParams when params has other names than these."""
    if set(params) != set(names):
        raise BadParams(f"parameters must be exactly: {', '.join(sorted(names))}")
