"""Rounds that go on from a version, under the normalisation it was made with."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0010_stakes")]

    operations = [
        migrations.AddField(
            model_name="round",
            name="start",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="continued",
                to="training.modelversion",
            ),
        ),
        migrations.AddField(
            model_name="round",
            name="summed",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="training.round",
            ),
        ),
    ]
