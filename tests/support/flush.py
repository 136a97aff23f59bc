"""Between tests all tables are emptied, the append-only ones too, which their triggers refuse.

Only here, and only for the flush, the session plays a replica, for which triggers do not fire. It
needs a superuser, as the embedded PostgreSQL's is. Most tests fill few of the many tables, and
truncating an empty one costs as much as a full one: only those with rows are emptied. What Django
writes about the models themselves is kept, so that it need not be written anew. Sequences go on,
also where the command is asked to reset them: rows that are put back (`snapshots`) have their ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.management import create_permissions
from django.contrib.contenttypes.management import create_contenttypes
from django.core.management.color import Style
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.signals import post_migrate

KEPT = {"django_content_type", "auth_permission"}
DELETED_PAGES_MAX = 64  # a table of more pages is truncated: that costs the same at any size


def _sql_flush(
    self: DatabaseOperations, style: Style, tables: Iterable[str], **kwargs: Any
) -> list[str]:
    post_migrate.disconnect(create_contenttypes)
    post_migrate.disconnect(
        create_permissions, dispatch_uid="django.contrib.auth.management.create_permissions"
    )
    return [
        "SET session_replication_role = replica",
        _empty(self, sorted(set(tables) - KEPT)),
        "SET session_replication_role = origin",
    ]


def _empty(operations: DatabaseOperations, tables: list[str]) -> str:
    names = ", ".join(f"'{operations.quote_name(table)}'" for table in tables)
    return f"""
        DO $$
        DECLARE name text; large text[] := '{{}}';
        BEGIN
            FOREACH name IN ARRAY ARRAY[{names}] LOOP
                IF pg_relation_size(name::regclass) > {DELETED_PAGES_MAX} * 8192 THEN
                    large := large || name;
                ELSIF pg_relation_size(name::regclass) > 0 THEN
                    EXECUTE 'DELETE FROM ' || name;
                END IF;
            END LOOP;
            IF large <> '{{}}' THEN
                EXECUTE 'TRUNCATE ' || array_to_string(large, ', ') || ' CASCADE';
            END IF;
        END $$
    """


DatabaseOperations.sql_flush = _sql_flush  # type: ignore[method-assign]
