"""What asks to be prepared is planned once, and nothing else is prepared or kept to be counted."""

from __future__ import annotations

import pytest
from django.db import connection

from apps.accounts.models import Party
from apps.core.joined import prepared
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
