import uuid

import django.db.models.deletion
from django.db import migrations, models

import apps.core.clock

PROTECT = django.db.models.deletion.PROTECT


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_key_spend_limit"),
        ("listings", "0005_query_api_key"),
    ]

    operations = [
        migrations.CreateModel(
            name="Mandate",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=apps.core.clock.now, editable=False),
                ),
                ("public_key", models.CharField(max_length=64)),
                ("listing", models.CharField(max_length=60)),
                ("limit_micro", models.BigIntegerField()),
                ("until", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "api_key",
                    models.ForeignKey(
                        null=True, on_delete=PROTECT, related_name="mandates", to="accounts.apikey"
                    ),
                ),
                (
                    "party",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="mandates", to="accounts.party"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(limit_micro__gt=0),
                        name="listings_mandate_limit_positive",
                    )
                ],
                "indexes": [models.Index(fields=["party", "until"], name="listings_mandates")],
            },
        ),
        migrations.AddField(
            model_name="query",
            name="mandate",
            field=models.ForeignKey(
                null=True, on_delete=PROTECT, related_name="queries", to="listings.mandate"
            ),
        ),
    ]
