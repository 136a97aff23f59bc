"""Plans keep the part of a model's rows that their buyer could ask when they began; those that run
began before a buyer's part was one, or under a larger one that is not known here."""

from pathlib import Path

from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("listings", "0014_plan_access")]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="portion_bps",
            field=models.PositiveIntegerField(default=10_000),
        ),
        migrations.RunSQL((HERE / "hold.sql").read_text(), migrations.RunSQL.noop),
    ]
