"""The first migrations stand for those they replace: all of them, or the database is refused."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder


def test_a_database_of_half_the_replaced_migrations_is_refused_by_name(db: None) -> None:
    gone = MigrationRecorder.Migration.objects.filter(app="listings", name="0013_plan_prices")
    assert gone.delete()[0] == 1
    with pytest.raises(CommandError, match=r"listings lacks 0013_plan_prices\. .* Nothing was"):
        call_command("migrate", verbosity=0)
