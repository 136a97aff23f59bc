"""A head is found by its root."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("wallets", "0003_hot_write")]

    operations = [
        migrations.AddIndex("treehead", models.Index(fields=["root"], name="head_root")),
    ]
