"""Rows used under a plan keep the price of the term that they were asked in."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("listings", "0012_plans")]

    operations = [
        migrations.AddField(
            model_name="subscription", name="earlier", field=models.JSONField(default=list)
        ),
    ]
