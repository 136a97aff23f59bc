"""Between tests the append-only tables are emptied too, which their triggers rightly refuse.

Only here, and only for the flush, the session plays a replica, for which triggers do not fire. It
needs a superuser, as the embedded PostgreSQL's is.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.operations import DatabaseOperations

_flush = DatabaseOperations.sql_flush


def _sql_flush(self: DatabaseOperations, *args: Any, **kwargs: Any) -> list[str]:
    statements = _flush(self, *args, **kwargs)
    if not statements:
        return []
    return [
        "SET session_replication_role = replica",
        *statements,
        "SET session_replication_role = origin",
    ]


DatabaseOperations.sql_flush = _sql_flush
