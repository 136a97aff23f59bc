"""Bytes of uploads to and from PostgreSQL as they are.

Django's cursor puts values into the statement's text: a part would go as four megabytes of hex, to
be read and undone by the server, and come back so.
"""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connection

from apps.training.models import Submission

_APPEND = "INSERT INTO training_sharepart (submission_id, offset_bytes, data) VALUES (%s, %s, %b)"
_READ = "SELECT data FROM training_sharepart WHERE submission_id = %s ORDER BY offset_bytes"


def append(submission: Submission, data: bytes) -> None:
    """Store what follows the bytes that are here. Inner writer, under the submission's lock."""
    with _cursor() as cursor, connection.wrap_database_errors:
        cursor.execute(_APPEND, (submission.pk, submission.offset_bytes, data))


def read(submission: Submission) -> list[bytes]:
    """All parts in their order."""
    with _cursor() as cursor, connection.wrap_database_errors:
        return [data for (data,) in cursor.execute(_READ, (submission.pk,), binary=True)]


def _cursor() -> psycopg.Cursor[Any]:
    connection.ensure_connection()
    return psycopg.Cursor(connection.connection)
