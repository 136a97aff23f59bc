"""Half-empty pages: an entitlement's amount is written beside its weight without touching an index."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("listings", "0007_use")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE listings_entitlement SET (fillfactor = 50)",
            "ALTER TABLE listings_entitlement RESET (fillfactor)",
        )
    ]
