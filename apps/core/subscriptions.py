"""Who hears of an event. flai_site/wiring.py fills the table, in every process."""

from __future__ import annotations

from collections.abc import Callable

Handler = Callable[..., None]
_handlers: dict[str, dict[str, Handler]] = {}


def subscribe(name: str, handler: Handler) -> None:
    """Call `handler` for each event of this name; registering twice is once."""
    _handlers.setdefault(name, {})[f"{handler.__module__}.{handler.__qualname__}"] = handler


def handlers_for(name: str) -> dict[str, Handler]:
    """{full name: handler} of an event's name."""
    return dict(_handlers.get(name, {}))
