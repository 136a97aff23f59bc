"""Numbers the log's waiting leaves and signs a head."""

from __future__ import annotations

from celery import shared_task

from apps.core.clock import now
from apps.wallets import log


@shared_task(name="flai.sequence_log")
def sequence_log() -> None:
    """Until nothing waits: one batch, one head. An idle log's head is renewed."""
    while log.sequence(now=now()) is not None or log.pulse(now=now()):
        pass
