"""Statements that are written once: rows of several models, rows for a SQL function.

For the few reads that nearly every request makes: the ORM composes its SQL anew each time, which
takes longer than PostgreSQL needs for the answer, and PostgreSQL plans it anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg
from django.db import connection, models

# One more item of the FROM of a statement that is a transaction by itself: its commit does not wait
# for the disk. Only for what nobody is told of before a commit that does wait (ADR 24).
UNWAITED = "(SELECT set_config('synchronous_commit', 'off', true)) AS unwaited"
PREPARE = 5  # any number: what is executed here asks for it


def prepared(statement: str, values: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement that a connection plans once, until it rolls back; JSON as text.

    Django tells the driver to prepare nothing. With a threshold it would keep the texts of the
    ORM's statements, too, values and all, to count them: so it has one here only.
    """
    connection.ensure_connection()
    link = connection.connection
    with connection.wrap_database_errors, psycopg.Cursor(link) as cursor:
        if not connection.settings_dict["PREPARE"]:
            return cursor.execute(statement, values).fetchall()
        link.prepare_threshold = PREPARE
        try:
            return cursor.execute(statement, values, prepare=True).fetchall()
        finally:
            link.prepare_threshold = None


def row_json(row: models.Model, *, but: Collection[str] = ()) -> str:
    """A row that is to be written, but for some columns, as `jsonb_populate_record` takes it."""
    columns = ((field.column, field.attname) for field in row._meta.concrete_fields)
    return json.dumps({c: getattr(row, name) for c, name in columns if c not in but}, default=str)


class Joined:
    """`Joined("FROM a_thing a JOIN b_owner b ON … WHERE a.id = %s", a=Thing, b=Owner)`.

    The models' columns are read under the aliases that name them: whole rows, or `only` some
    columns of an alias, and the others when they are asked for.
    """

    def __init__(
        self,
        tail: str,
        only: Mapping[str, Collection[str]] | None = None,
        **aliases: type[models.Model],
    ) -> None:
        self._parts = [
            (model, _fields(model, (only or {}).get(alias))) for alias, model in aliases.items()
        ]
        columns = ", ".join(
            f'{alias}."{field.column}"'
            for alias, (_, fields) in zip(aliases, self._parts)
            for field in fields
        )
        self._sql = f"SELECT {columns} {tail}"

    def all(self, *values: Any) -> list[Sequence[Any]]:
        """The instances of each row, in the order of the aliases."""
        return [self._instances(row) for row in prepared(self._sql, values)]

    def first(self, *values: Any) -> Sequence[Any] | None:
        return next(iter(self.all(*values)), None)

    def _instances(self, row: Sequence[Any]) -> list[Any]:
        made, start = [], 0
        for model, fields in self._parts:
            part = row[start : start + len(fields)]
            start += len(fields)
            names = [field.attname for field in fields]
            made.append(model.from_db(connection.alias, names, list(map(_value, fields, part))))
        return made


def _fields(model: type[models.Model], only: Collection[str] | None) -> list[Any]:
    return [f for f in model._meta.concrete_fields if only is None or f.column in only]


def _value(field: models.Field[Any, Any], value: Any) -> Any:
    """JSON comes as text, as Django reads it."""
    read = getattr(field, "from_db_value", None)
    return value if read is None else read(value, None, connection)
