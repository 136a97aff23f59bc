"""Wake a Celery task by name once the transaction has committed.

A message is only a wake-up: the database says what is due and a sweep finds it too. So a broker
that is away costs latency, never the request.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from celery import current_app
from django.db import connection, transaction

from apps.core.broker import outage
from apps.core.clock import now as clock_now

ETA_MAX = timedelta(minutes=10)


def wake(task: str, *args: Any, eta: datetime | None = None) -> None:
    """Send `task` with `args` (ids; UUIDs become strings) after the commit, due at `eta` or now.

    A far `eta` is left to the sweep: a worker keeps such a message unacknowledged until then, and
    after the visibility timeout (an hour) the broker hands it out again, and again.
    """
    if eta is not None and eta - clock_now() > ETA_MAX:
        return
    texts = [a if isinstance(a, (int, bool, str)) or a is None else str(a) for a in args]
    transaction.on_commit(lambda: _send(task, texts, eta), robust=True)


def wake_once(task: str) -> None:
    """Like `wake`, but one message however often the same transaction asks."""
    waiting = {getattr(callback, "task", None) for _, callback, *_ in connection.run_on_commit}
    if task in waiting:
        return

    def send() -> None:
        _send(task, [], None)

    send.task = task  # type: ignore[attr-defined]
    transaction.on_commit(send, robust=True)


def _send(task: str, args: list[Any], eta: datetime | None) -> None:
    try:
        current_app.send_task(task, args=args, eta=eta, retry=False)
    except Exception as error:  # any broker's own error classes; the sweep does the work later
        outage.failed(error)
    else:
        outage.back()
