"""Claiming and settling queries as SQL functions."""

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).with_suffix(".sql").read_text()


class Migration(migrations.Migration):
    dependencies = [
        ("notify", "0001_webhooks"),
        ("compute", "0008_answered"),
        ("listings", "0008_room_for_amounts"),
    ]

    operations = [
        migrations.RunSQL(SQL, "DROP FUNCTION listings_settle; DROP FUNCTION listings_claim")
    ]
