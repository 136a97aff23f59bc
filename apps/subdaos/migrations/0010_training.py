"""A SubDAO that was founded before its members could choose how rounds train shares updates."""

from typing import Any

from django.db import migrations


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="training"):
        if "scoring" in dao.params:
            dao.params["training"] = {"kind": "fedavg"}
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0009_facets")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
