"""Hands events from the outbox to their handlers."""

from __future__ import annotations

from celery import shared_task

import flai_site.wiring  # noqa: F401 - ties handlers to events
from apps.core import handlers
from apps.core.clock import now


@shared_task(name="flai.dispatch_events")
def dispatch_events() -> None:
    """Until nothing is due. Woken by every emit, and by the sweep."""
    while handlers.dispatch_due(clock=now):
        pass
