"""A query that the database lost is none to be paid: whoever has its answer leaves it out."""

from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("listings", "0004_fewer_indexes")]

    operations = [
        migrations.RunSQL((HERE / "settle.sql").read_text(), migrations.RunSQL.noop),
    ]
