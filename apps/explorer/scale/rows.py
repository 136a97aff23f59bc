"""Rows in bulk: made by COPY, named by the seed, so that the same seed makes the same rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import connection, models
from psycopg import sql


def digest(*parts: object) -> str:
    """64 hex digits that the parts alone decide."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def ident(*parts: object) -> UUID:
    """A random-looking UUID that the parts alone decide."""
    return UUID(digest(*parts)[:32], version=4)


def fill(model: type[models.Model], rows: Iterable[Mapping[str, Any]]) -> None:
    """COPY rows {column: value} into the model's table; what a row leaves out takes its default.

    Constraints and triggers of the table hold as for any other insert. A value of a JSON field may
    be its text already: a specification that ten thousand rows share is written out once.
    """
    fields = [
        field
        for field in model._meta.concrete_fields
        if not (isinstance(field, models.BigAutoField) or field.generated)
    ]
    names = [field.attname for field in fields]
    usual = {field.attname: field.get_default() for field in fields}
    jsons = {f.attname for f in fields if isinstance(f, models.JSONField)}
    texts = {name: _json(usual[name]) for name in jsons}
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(model._meta.db_table), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            values = usual | texts | row
            for name in jsons & row.keys():
                values[name] = _json(row[name])
            copy.write_row([values[name] for name in names])


def _json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
