"""Plans that are paid ahead; holds and claims know which account pays."""

import uuid
from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import F, Q

import apps.core.clock

SQL = Path(__file__).with_suffix(".sql").read_text()
PROTECT = django.db.models.deletion.PROTECT


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_key_spend_limit"),
        ("wallets", "0009_prepaid"),
        ("listings", "0011_shelf"),
    ]

    operations = [
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("created_at", models.DateTimeField(default=apps.core.clock.now, editable=False)),
                ("plan", models.CharField(max_length=20)),
                ("rows", models.BigIntegerField()),
                ("row_micro", models.BigIntegerField()),
                ("price_micro", models.BigIntegerField()),
                ("began_at", models.DateTimeField()),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "account",
                    models.ForeignKey(on_delete=PROTECT, related_name="+", to="wallets.account"),
                ),
                (
                    "buyer",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="subscriptions", to="accounts.party"
                    ),
                ),
                (
                    "listing",
                    models.ForeignKey(
                        on_delete=PROTECT, related_name="subscriptions", to="listings.listing"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=Q(ended_at=None), fields=["ends_at"], name="listings_plan_runs"
                    ),
                    models.Index(
                        fields=["buyer", "-began_at", "-id"], name="listings_plan_newest"
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=Q(ended_at=None),
                        fields=("buyer", "listing"),
                        name="listings_one_plan_at_a_time",
                    ),
                    models.CheckConstraint(
                        condition=Q(rows__gt=0, row_micro__gt=0, ends_at__gt=F("starts_at")),
                        name="listings_plan_is_something",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="query",
            name="subscription",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=PROTECT,
                related_name="queries",
                to="listings.subscription",
            ),
        ),
        migrations.AddIndex(
            model_name="query",
            index=models.Index(
                condition=Q(subscription__isnull=False),
                fields=["subscription", "state"],
                name="listings_query_of_plan",
            ),
        ),
        migrations.RunSQL(SQL, migrations.RunSQL.noop),
    ]
