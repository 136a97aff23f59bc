"""Corrections of shares are bytes in parts; those that wait as base64 in JSON are taken over."""

import base64
import json

import django.db.models.deletion
from django.db import migrations, models


def take_over(apps, schema_editor):
    Submission = apps.get_model("training", "Submission")
    SharePart = apps.get_model("training", "SharePart")
    for row in Submission.objects.exclude(upload=None).iterator(chunk_size=1):
        upload = json.loads(bytes(row.upload))
        data = base64.b64decode(upload["correction"])
        SharePart.objects.create(submission=row, offset_bytes=0, data=data)
        row.sealed = {name: upload[name] for name in ("signature", "envelopes")}
        row.offset_bytes = len(data)
        row.save(update_fields=["sealed", "offset_bytes"])


class Migration(migrations.Migration):
    dependencies = [("training", "0005_reduced_rosters")]

    operations = [
        migrations.CreateModel(
            name="SharePart",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("offset_bytes", models.PositiveIntegerField()),
                ("data", models.BinaryField()),
                (
                    "submission",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="parts",
                        to="training.submission",
                    ),
                ),
            ],
            options={"ordering": ["offset_bytes"]},
        ),
        migrations.AddConstraint(
            model_name="sharepart",
            constraint=models.UniqueConstraint(
                fields=("submission", "offset_bytes"), name="training_part_once"
            ),
        ),
        migrations.AddField(
            model_name="submission", name="sealed", field=models.JSONField(null=True)
        ),
        migrations.AddField(
            model_name="submission",
            name="offset_bytes",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.RunPython(take_over, migrations.RunPython.noop),
    ]
