"""`listings_hold` names no query of more than 1 000 rows to a worker: it waits for its turn."""

from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("listings", "0008_retired_at")]

    operations = [
        migrations.RunSQL((HERE / "hold.sql").read_text(), migrations.RunSQL.noop),
    ]
