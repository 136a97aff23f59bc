"""Which handlers an event has, and their dispatch. flai_site/wiring.py fills the table.

A handler is `handle(payload: dict, *, event_id: UUID, now: datetime) -> None`. It runs outside any
transaction (it may call outermost services) and at least once: it must itself be harmless when
repeated, since a crash may fall between its commit and the note that it is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from apps.core.events import Event
from apps.core.models import HandledEvent, OutboxEvent
from apps.core.subscriptions import Handler, handlers_for, subscribe

logger = logging.getLogger(__name__)
LEASE = timedelta(seconds=60)
RETRY_MAX_S = 300


def on(event: str | type[Event], handler: Handler) -> None:
    """Call `handler` for each event of this name (or class); registering twice is once."""
    subscribe(event if isinstance(event, str) else event.event_name(), handler)


def dispatch_due(*, clock: Callable[[], datetime], limit: int = 100) -> int:
    """Hand up to `limit` due events to their handlers, oldest first. Returns how many were done.

    The clock is read for each event: handlers work, and many events may take long. An event whose
    handler fails comes back after 1, 2, 4 … seconds, at most five minutes; its other handlers are
    not called again.
    """
    done = 0
    for _ in range(limit):
        now = clock()
        event = _claim(now)
        if event is None:
            break
        done += _dispatch(event, now)
    return done


def _claim(now: datetime) -> OutboxEvent | None:
    with transaction.atomic():
        event = (
            OutboxEvent.objects.select_for_update(skip_locked=True)
            .filter(dispatched_at=None, due_at__lte=now)
            .order_by("due_at", "created_at")
            .first()
        )
        if event is not None:
            event.due_at = now + LEASE
            event.attempts = F("attempts") + 1
            event.save(update_fields=["due_at", "attempts"])
            event.refresh_from_db(fields=["attempts"])
    return event


def _dispatch(event: OutboxEvent, now: datetime) -> bool:
    finished = set(event.handled.values_list("handler", flat=True))
    failed = False
    for name, handler in handlers_for(event.name).items():
        if name in finished:
            continue
        try:
            handler(event.payload, event_id=event.id, now=now)
        except Exception:  # one handler's trouble is not the others'; it is tried again
            logger.exception("handler %s failed for %s %s", name, event.name, event.id)
            failed = True
        else:
            HandledEvent.objects.get_or_create(event=event, handler=name, defaults={"at": now})
    if failed:
        wait_s = min(2 ** (event.attempts - 1), RETRY_MAX_S)
        OutboxEvent.objects.filter(id=event.id).update(due_at=now + timedelta(seconds=wait_s))
    else:
        OutboxEvent.objects.filter(id=event.id).update(dispatched_at=now)
    return not failed
