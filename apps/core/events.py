"""Events: frozen, past tense, ids only, written to the outbox in the caller's transaction.

    @dataclass(frozen=True)
    class WhitelistExecuted(Event):
        dao_id: str

`emit(WhitelistExecuted(dao_id=str(dao.id)), now=now)`; its name is "participants.WhitelistExecuted"
(app and class). Handlers are tied to names in flai_site/wiring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from apps.core.models import OutboxEvent
from apps.core.subscriptions import handlers_for
from apps.core.transactions import require_transaction
from apps.core.wake import wake_once

DISPATCH = "flai.dispatch_events"


@dataclass(frozen=True)
class Event:
    """Base of all events; fields are strings, integers, UUIDs or lists of them."""

    @classmethod
    def event_name(cls) -> str:
        parts = cls.__module__.split(".")
        return f"{parts[1] if parts[0] == 'apps' else parts[0]}.{cls.__name__}"

    def payload(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def emit(event: Event, *, now: datetime) -> OutboxEvent:
    """Write `event` to the outbox; it is dispatched after the commit, at least once a handler."""
    return emit_all([event], now=now)[0]


def emit_all(events: Sequence[Event], *, now: datetime) -> list[OutboxEvent]:
    """`emit` for many, by one statement. What nobody hears is written down as done."""
    require_transaction("core.events.emit")
    rows = [
        OutboxEvent(
            name=event.event_name(),
            payload=event.payload(),
            created_at=now,
            due_at=now,
            dispatched_at=None if handlers_for(event.event_name()) else now,
        )
        for event in events
    ]
    if any(row.dispatched_at is None for row in rows):
        wake_once(DISPATCH)
    return OutboxEvent.objects.bulk_create(rows)


def outbox_row(event: Event) -> dict[str, Any]:
    """{"id", "name", "payload"} for a writer that inserts the row itself, with its own statement;
    the dispatch is woken as by `emit`."""
    require_transaction("core.events.outbox_row")
    wake_once(DISPATCH)
    return {"id": str(uuid4()), "name": event.event_name(), "payload": event.payload()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, UUID) else value
