"""Lists of pools and vaults, newest first."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("exchange", "0003_volume")]

    operations = [
        migrations.AddIndex(
            model_name="pool",
            index=models.Index(fields=["-created_at", "-id"], name="exchange_pool_newest"),
        ),
        migrations.AddIndex(
            model_name="vault",
            index=models.Index(fields=["-created_at", "-id"], name="exchange_vault_newest"),
        ),
    ]
