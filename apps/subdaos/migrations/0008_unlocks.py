"""A SubDAO that was founded before stakes unlocked anything goes on without early access."""

from typing import Any

from django.db import migrations


def choose(apps: Any, schema_editor: Any) -> None:
    for dao in apps.get_model("subdaos", "Dao").objects.exclude(params__has_key="unlocks"):
        if "split" in dao.params:
            dao.params["unlocks"] = {"early_access_s": 0, "stake_bps": 10}
            dao.save(update_fields=["params"])


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0007_schedules")]

    operations = [migrations.RunPython(choose, migrations.RunPython.noop)]
