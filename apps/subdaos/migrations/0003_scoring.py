"""A SubDAO that was founded before there was a choice scores by `taylor`, as it did."""

from typing import Any

from django.db import migrations


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="scoring"):
        if "gates" in dao.params:
            dao.params["scoring"] = "taylor"
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0002_search")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
