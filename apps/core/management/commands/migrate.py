"""`manage.py migrate`: Django's, which names a database that the first migrations can't go on from.

An app's first migration stands for all those it `replaces`. Where some of these were run and some
not, Django leaves it out without a word, and with it whatever the database lacks.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> str | None:
        applied = MigrationRecorder(connections[options["database"]]).applied_migrations()
        for (app, _), migration in MigrationLoader(None).replacements.items():
            missing = [name for key, name in migration.replaces if (key, name) not in applied]
            if 0 < len(missing) < len(migration.replaces):
                raise CommandError(
                    f"This database is older than what this version goes on from: {app} lacks"
                    f" {', '.join(missing)}. Migrate it first with the last version that has the"
                    f" file apps/{app}/migrations/{migration.replaces[-1][1]}.py, then with this"
                    " one. Nothing was changed."
                )
        return super().handle(*args, **options)
