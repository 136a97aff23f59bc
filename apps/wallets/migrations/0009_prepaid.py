from django.db import migrations, models

PURPOSES = (
    "main",
    "staked",
    "unstaking",
    "escrow",
    "treasury",
    "revenue",
    "fees",
    "issuance",
    "reserve",
    "conversion",
    "sponsors",
    "pool",
    "vault",
    "prepaid",
)


class Migration(migrations.Migration):
    dependencies = [("wallets", "0008_payment_settings")]

    operations = [
        migrations.RemoveConstraint(model_name="account", name="account_purpose_known"),
        migrations.AddConstraint(
            model_name="account",
            constraint=models.CheckConstraint(
                condition=models.Q(("purpose__in", PURPOSES)), name="account_purpose_known"
            ),
        ),
    ]
