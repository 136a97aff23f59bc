"""Emissions from the reserve, who may take them, and the append-only triggers of what is history."""

import uuid

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q

import apps.core.clock

HISTORY = ("subdaos_emission", "subdaos_conversion")
TRIGGERS = (
    ("refuse_change", "UPDATE OR DELETE", "ROW"),
    ("refuse_truncate", "TRUNCATE", "STATEMENT"),
)
PROTECT = django.db.models.deletion.PROTECT


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_key_spend_limit"),
        ("subdaos", "0005_points_are_append_only"),
        ("wallets", "0007_emission_purposes"),
    ]

    operations = [
        migrations.CreateModel(
            name="Sponsor",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("pledged_micro", models.BigIntegerField()),
                ("taken_micro", models.BigIntegerField(default=0)),
                (
                    "dao",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="sponsors", to="subdaos.dao"
                    ),
                ),
                (
                    "party",
                    models.ForeignKey(on_delete=PROTECT, related_name="+", to="accounts.party"),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("dao", "party"), name="subdaos_sponsor_once"
                    ),
                    models.CheckConstraint(
                        condition=Q(pledged_micro__gt=0, taken_micro__gte=0),
                        name="subdaos_sponsor_amounts",
                    ),
                ]
            },
        ),
        migrations.CreateModel(
            name="Emission",
            fields=[
                (
                    "epoch",
                    models.OneToOneField(
                        on_delete=PROTECT,
                        primary_key=True,
                        related_name="emission",
                        serialize=False,
                        to="subdaos.epoch",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("reserve_micro", models.BigIntegerField()),
                ("rate_bps", models.PositiveIntegerField()),
                ("contributors_micro", models.BigIntegerField()),
                ("sponsors_micro", models.BigIntegerField()),
                ("treasury_micro", models.BigIntegerField()),
                (
                    "dao",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="emissions", to="subdaos.dao"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(
                            contributors_micro__gte=0, sponsors_micro__gte=0, treasury_micro__gte=0
                        )
                        & Q(
                            reserve_micro__gte=F("contributors_micro")
                            + F("sponsors_micro")
                            + F("treasury_micro")
                        ),
                        name="subdaos_emission_within_reserve",
                    )
                ],
                "indexes": [models.Index(fields=["dao", "-at"], name="subdaos_emissions")],
            },
        ),
        migrations.CreateModel(
            name="Conversion",
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
                ("asked_min_micro", models.BigIntegerField()),
                ("points_micro", models.BigIntegerField()),
                ("tokens_micro", models.BigIntegerField()),
                (
                    "emission",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="conversions", to="subdaos.emission"
                    ),
                ),
                (
                    "party",
                    models.ForeignKey(on_delete=PROTECT, related_name="+", to="accounts.party"),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(points_micro__gt=0, tokens_micro__gt=0),
                        name="subdaos_conversion_amounts",
                    )
                ],
                "indexes": [
                    models.Index(fields=["emission", "party"], name="subdaos_conversions")
                ],
            },
        ),
        *(
            migrations.RunSQL(
                f"CREATE TRIGGER {name} BEFORE {when} ON {table} FOR EACH {each}"
                " EXECUTE FUNCTION wallets_refuse()",
                f"DROP TRIGGER {name} ON {table}",
            )
            for table in HISTORY
            for name, when, each in TRIGGERS
        ),
    ]
