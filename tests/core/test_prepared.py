"""What asks to be prepared is planned once a connection, and nothing else is prepared."""

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


def test_behind_a_pooler_nothing_is_prepared() -> None:
    on, off = (database_from_url(f"postgresql:///flai{q}")["OPTIONS"] for q in ("", "?prepare=off"))
    assert on["prepare_threshold"] > 10**9
    assert not {"prepare", "prepare_threshold"} & set(off)
