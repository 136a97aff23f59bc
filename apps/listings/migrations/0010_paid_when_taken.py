"""Holds outlive the ticket, and no query is claimed in its last seconds: what nodes took is paid."""

from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("listings", "0009_huge_queries")]

    operations = [
        migrations.RunSQL((HERE / name).read_text(), migrations.RunSQL.noop)
        for name in ("hold.sql", "claim.sql")
    ]
