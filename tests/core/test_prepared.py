"""What asks to be prepared is planned once, and nothing else is prepared or kept to be counted."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg_pool import ConnectionPool

from apps.accounts.models import Party
from apps.core.joined import prepared
from flai_site import database
from flai_site.database import database_from_url

pytestmark = pytest.mark.django_db
ASKED = "SELECT %s::text || 'asked of the database by its own name'"


def test_a_statement_that_asks_for_it_is_prepared_and_no_other() -> None:
    for name in ("ada", "ben"):
        assert prepared(ASKED, [name])[0][0].startswith(name)
        assert not Party.objects.filter(slug=f"{name}, who is looked for by the ORM").exists()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%%asked of%%'"
            " OR statement LIKE '%%by the ORM%%'"
        )
        [(statement,)] = cursor.fetchall()
    assert statement.startswith("SELECT $1::text")
    counted = connection.connection._prepared
    kept = [query for query, _types in (*counted._names, *counted._counts)]
    assert any(b"asked of" in text for text in kept)
    assert not any(b"looked for by" in text for text in kept)  # nor any row's content


def test_behind_a_pooler_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    on, off = (database_from_url(f"postgresql:///flai{q}") for q in ("", "?prepare=off"))
    assert (on["PREPARE"], off["PREPARE"]) == (True, False)
    assert not {"prepare", "prepare_threshold"} & {*on["OPTIONS"], *off["OPTIONS"]}
    monkeypatch.setitem(connection.settings_dict, "PREPARE", False)
    assert prepared("SELECT 'not ' || %s::text", ["prepared"]) == [("not prepared",)]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_prepared_statements WHERE statement LIKE '%%not%%'")
        assert cursor.fetchall() == []


def test_a_kept_connection_is_asked_again_only_where_it_may_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool asks whenever it hands one out; what the server closed is replaced at once."""
    asked = []
    execute = psycopg.Connection.execute

    def counted(self: Any, query: Any, *arguments: Any, **how: Any) -> Any:
        asked.append(query)
        return execute(self, query, *arguments, **how)

    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    options = database_from_url("postgresql:///flai", pool_max=1)["OPTIONS"]["pool"]
    where = connection.get_connection_params() | {"autocommit": True}
    check = ConnectionPool.check_connection
    with ConnectionPool(kwargs=where, check=check, open=True, **options) as pool:

        def backend() -> int:
            with pool.connection() as link:
                return int(link.info.backend_pid)

        first = backend()
        assert [backend() for _ in range(3)] == [first] * 3 and asked == [""]
        monkeypatch.setattr(database, "QUIET_S", 0.0)
        assert backend() == first and asked == ["", ""]
        monkeypatch.undo()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
            assert cursor.fetchone() == (True,)
        assert backend() != first
