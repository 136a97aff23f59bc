"""A SubDAO that was founded before there were plans offers none."""

from typing import Any

from django.db import migrations


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="plans"):
        if "price_micro" in dao.params:
            dao.params["plans"] = []
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0011_tiers")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
