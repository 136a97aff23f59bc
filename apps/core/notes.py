"""PostgreSQL's NOTIFY, heard by one thread a process and channel.

A note is a wake-up only: the database says what is to be done, and whoever misses a note looks
there by himself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from django.db import connection

logger = logging.getLogger(__name__)
RECONNECT_S = 1.0


def announce(channel: str, *notes: Any) -> None:
    """Tell who listens when the present transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_notify(%s, note) FROM unnest(%s::text[]) AS note",
            [channel, [str(note) for note in notes]],
        )


class Listener:
    """Calls `hear` with each note of a channel, in a thread of its own; it must not block."""

    def __init__(self, channel: str, hear: Callable[[str], None]) -> None:
        self._channel = channel
        self._hear = hear
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._stop = threading.Event()

    def listen(self) -> None:
        """From now on, where the database is there; a lost connection is made again."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._listening.clear()
                parameters = connection.get_connection_params()
                self._thread = threading.Thread(
                    target=self._run, args=(parameters,), name=self._channel, daemon=True
                )
                self._thread.start()
        self._listening.wait(RECONNECT_S)

    def close(self) -> None:
        """Stop listening and give the connection back; for whoever takes the database away."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            announce(self._channel, "")  # so that it sees that it is to stop
            thread.join()
        self._stop.clear()

    def _run(self, parameters: dict[str, Any]) -> None:
        known = {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context")}
        known.pop("prepare_threshold", None)
        while not self._stop.is_set():
            try:
                with psycopg.connect(**known, autocommit=True) as link:
                    link.execute(f"LISTEN {self._channel}")
                    self._listening.set()
                    for note in link.notifies():
                        if self._stop.is_set():
                            return
                        self._hear(note.payload)
            except psycopg.Error as error:
                logger.warning("listening to %s: %s", self._channel, type(error).__name__)
            self._listening.clear()
            self._stop.wait(RECONNECT_S)
