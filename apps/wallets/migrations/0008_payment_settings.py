import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_key_purposes"),
        ("wallets", "0007_emission_purposes"),
    ]

    operations = [
        migrations.CreateModel(
            name="PaymentSettings",
            fields=[
                (
                    "party",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="accounts.party",
                    ),
                ),
                ("low_micro", models.BigIntegerField(null=True)),
                ("low_since", models.DateTimeField(null=True)),
                ("billing", models.TextField(blank=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=Q(low_micro=None) | Q(low_micro__gt=0),
                        name="low_balance_positive",
                    ),
                    models.CheckConstraint(
                        condition=Q(low_since=None) | Q(low_micro__isnull=False),
                        name="low_since_with_threshold",
                    ),
                ]
            },
        ),
    ]
