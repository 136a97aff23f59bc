"""Holding a query as one SQL function; what of a buyer waits, found without what has ended."""

from pathlib import Path

from django.db import migrations, models
from django.db.models import Q

SQL = Path(__file__).with_suffix(".sql").read_text()


class Migration(migrations.Migration):
    dependencies = [
        ("core", "0001_initial"),
        ("listings", "0009_claim_and_settle"),
    ]

    operations = [
        migrations.AddIndex(
            "query",
            models.Index(fields=["buyer"], condition=Q(ended_at=None), name="listings_query_waiting"),
        ),
        migrations.RunSQL(SQL, "DROP FUNCTION listings_hold"),
    ]
