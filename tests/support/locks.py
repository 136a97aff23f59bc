"""Waiting for another transaction to wait for this one's locks."""

from __future__ import annotations

import time

from django.db import connection

# Not by pg_stat_activity, of which a transaction sees what was there when it first looked.
BLOCKED_BY_ME = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))
)
"""


def until_blocked(seconds: float = 60) -> bool:
    """Has some transaction come to wait for this one? Waits so long for it at most."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with connection.cursor() as cursor:
            cursor.execute(BLOCKED_BY_ME)
            if cursor.fetchone()[0]:
                return True
        time.sleep(0.02)
    return False
