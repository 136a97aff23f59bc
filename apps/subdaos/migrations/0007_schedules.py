"""A SubDAO that was founded before its reserve had a schedule gets the usual one."""

from typing import Any

from django.db import migrations

SCHEDULE = {
    "rate_bps": 200,
    "contributors_bps": 6_000,
    "sponsors_bps": 2_000,
    "treasury_bps": 2_000,
    "convertible_bps": 2_500,
}


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="emission"):
        if "split" in dao.params:
            dao.params["emission"] = SCHEDULE
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0006_emission")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
