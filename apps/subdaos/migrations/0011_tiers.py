"""A SubDAO that was founded before there were tiers has none."""

from typing import Any

from django.db import migrations


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="tiers"):
        if "price_micro" in dao.params:
            dao.params["tiers"] = []
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0010_training")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
