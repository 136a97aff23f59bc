"""What many tests begin with is made once a process; each test gets its rows back, and a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from django.core.management.color import no_style
from django.db import connection, transaction

from tests.support.flush import KEPT

TABLES = """
    SELECT c.relname,
        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0
"""


T = TypeVar("T")
_kept: dict[Hashable, tuple[Rows, Any]] = {}


def kept(key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns, and in the database what it wrote there, which was empty before.

    Made once for this key: it is as old as the first test that asked for it.
    """
    if key not in _kept:
        made = make()
        _kept[key] = Rows(), made
    rows, made = _kept[key]
    rows.put_back()
    return copy.deepcopy(made)


class Rows:
    """What is in the database now."""

    def __init__(self) -> None:
        self.copies: dict[str, bytes] = {}  # by `table (columns that are not generated)`
        with connection.cursor() as cursor:
            cursor.execute(TABLES)
            for table, columns in cursor.fetchall():
                if table not in KEPT | {"django_migrations"}:
                    whole = f"{connection.ops.quote_name(table)} ({columns})"
                    with cursor.copy(f"COPY {whole} TO STDOUT") as copy:
                        if data := b"".join(copy):
                            self.copies[whole] = data

    def put_back(self) -> None:
        """In place of whatever is there, without a trigger. Sequences go on from where they are."""
        tables = [t for t in connection.introspection.table_names() if t != "django_migrations"]
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in connection.ops.sql_flush(no_style(), tables):
                cursor.execute(statement)
            cursor.execute("SET LOCAL session_replication_role = replica")
            for whole, data in self.copies.items():
                with cursor.copy(f"COPY {whole} FROM STDIN") as copy:
                    copy.write(data)
