"""What each buyer has asked of a version in the nodes' epoch: `listings_hold` counts it.

What was asked before this migration counts for nobody.
"""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

HERE = Path(__file__).parent
# Before, another argument said how many may wait.
DROP = """
DROP FUNCTION IF EXISTS listings_hold(jsonb, bytea, jsonb, text, text, jsonb, uuid, text, bool, jsonb,
    timestamptz, int, text, timestamptz)
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_pid_collation"),
        ("training", "0016_refusal"),
        ("listings", "0011_retired_before"),
    ]

    operations = [
        migrations.CreateModel(
            name="Taken",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "buyer",
                        "version",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("since", models.DateTimeField()),
                ("rows", models.BigIntegerField()),
                (
                    "buyer",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.party",
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="training.modelversion",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("rows__gte", 0)), name="listings_taken_not_negative"
                    )
                ],
            },
        ),
        migrations.RunSQL(DROP, migrations.RunSQL.noop),
        migrations.RunSQL((HERE / "hold.sql").read_text(), migrations.RunSQL.noop),
    ]
