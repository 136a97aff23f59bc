"""A query is written three times, each time into every index: those go that another one covers, and
those that find names by their beginnings, which nobody asks for."""

from django.db import migrations, models
from django.db.models import deletion

_BY_BEGINNINGS = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
        AND tablename = 'listings_query' AND indexdef LIKE '%varchar_pattern_ops%'
    LOOP EXECUTE format('DROP INDEX %I', name); END LOOP;
END $$
"""


def _covered(to: str, **more: object) -> models.ForeignKey:
    return models.ForeignKey(
        to, deletion.PROTECT, related_name="queries", db_index=False, **more
    )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_others_than_payees"),
        ("listings", "0003_divided_in_order"),
        ("subdaos", "0002_lineage"),
    ]

    operations = [
        migrations.AlterField("query", "buyer", _covered("accounts.party")),
        migrations.AlterField("query", "epoch", _covered("subdaos.epoch", null=True)),
        migrations.AlterField("query", "listing", _covered("listings.listing")),
        migrations.RunSQL(_BY_BEGINNINGS, migrations.RunSQL.noop),
    ]
