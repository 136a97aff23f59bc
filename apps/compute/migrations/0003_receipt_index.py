"""A receipt is found by its signature."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("compute", "0002_receipt_operator")]

    operations = [
        migrations.AddIndex("receipt", models.Index(fields=["signature"], name="compute_receipt_signature")),
    ]
