"""The registry of what a proposal can do. Apps register kinds; governance only looks them up.

@action("participants.whitelist", house="sbgt")
class Whitelist:
    def validate(self, payload, dao): ...              # -> payload to be hashed, or DomainError
    def describe(self, payload, dao): ...              # -> [{"label", "before", "after"}]
    def execute(self, payload, *, dao, proposal_id, now): ...  # inner writer
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from apps.core.errors import BadInput

Payload = dict[str, Any]


class Action(Protocol):
    """One kind of decision: its check, its words for the page, its effect."""

    kind: str
    house: str
    by_system: bool

    def validate(self, payload: Payload, dao: Any) -> Payload: ...

    def describe(self, payload: Payload, dao: Any) -> list[dict[str, Any]]: ...

    def execute(self, payload: Payload, *, dao: Any, proposal_id: UUID, now: datetime) -> None: ...


_actions: dict[str, Action] = {}
T = TypeVar("T", bound=type)


def action(kind: str, *, house: str, by_system: bool = False) -> Callable[[T], T]:
    """Class decorator: make one instance and register it under `kind` for `house`.

    by_system: only other parts of the program propose it, never a member.
    Raises ValueError when another class holds the kind.
    """

    def register(cls: T) -> T:
        held = _actions.get(kind)
        if held is not None and type(held).__qualname__ != cls.__qualname__:
            raise ValueError(f"the action kind {kind!r} is taken by {type(held).__qualname__}")
        instance = cls()
        instance.kind, instance.house, instance.by_system = kind, house, by_system
        _actions[kind] = instance
        return cls

    return register


def get(kind: str) -> Action:
    """The action registered under `kind`. Raises BadInput for an unknown one."""
    try:
        return _actions[kind]
    except KeyError:
        raise BadInput("unknown_action", f"There is no kind of proposal named “{kind}”.") from None


def kinds(house: str | None = None) -> list[str]:
    """All registered kinds, sorted; those of one house if given."""
    return sorted(k for k, a in _actions.items() if house in (None, a.house))
