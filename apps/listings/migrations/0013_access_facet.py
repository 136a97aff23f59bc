"""Listings are found by the credential that asking takes."""

from pathlib import Path

from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("listings", "0012_taken")]

    operations = [
        migrations.AddField(
            model_name="listing",
            name="access",
            field=models.TextField(default="*", editable=False),
        ),
        migrations.RunSQL(
            (HERE / "shelf_access.sql").read_text(), migrations.RunSQL.noop
        ),
    ]
