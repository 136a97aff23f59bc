"""Receipts are found by indexes that begin with their job or node; nobody looks for a job by the
beginning of its name."""

from django.db import migrations, models
from django.db.models import deletion

_BY_BEGINNINGS = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
        AND tablename = 'compute_job' AND indexdef LIKE '%varchar_pattern_ops%'
    LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
END $$
"""


def _covered(to: str) -> models.ForeignKey:
    return models.ForeignKey(to, deletion.PROTECT, related_name="receipts", db_index=False)


class Migration(migrations.Migration):
    dependencies = [("compute", "0010_refreshes")]

    operations = [
        migrations.AlterField("receipt", "job", _covered("compute.job")),
        migrations.AlterField("receipt", "node", _covered("compute.node")),
        migrations.RunSQL(_BY_BEGINNINGS, migrations.RunSQL.noop),
    ]
