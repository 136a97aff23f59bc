"""Recording what nodes answered as one SQL function."""

from pathlib import Path

from django.db import migrations

ANSWERED = Path(__file__).with_suffix(".sql").read_text()


class Migration(migrations.Migration):
    dependencies = [("compute", "0007_job_behind")]

    operations = [migrations.RunSQL(ANSWERED, "DROP FUNCTION compute_answered")]
