"""Plans keep what asking took when they began: the log has told it of those that run."""

from django.db import migrations, models

BEGAN_WITH = """
UPDATE listings_subscription s
SET access = (
    SELECT said.it -> 'body' -> 'value'
    FROM wallets_logleaf leaf, LATERAL (SELECT convert_from(leaf.data, 'UTF8')::jsonb AS it) said
    WHERE leaf.type = 'subdaos.params' AND leaf.ref_id = l.dao_id::text
        AND said.it -> 'body' ->> 'key' = 'access'
        AND (said.it ->> 'at')::bigint <= extract(epoch FROM s.starts_at) * 1000
    ORDER BY leaf.id DESC LIMIT 1
)
FROM listings_listing l
WHERE l.id = s.listing_id AND s.ended_at IS NULL
"""


class Migration(migrations.Migration):
    dependencies = [("listings", "0013_access_facet")]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="access",
            field=models.JSONField(null=True),
        ),
        migrations.RunSQL(BEGAN_WITH, migrations.RunSQL.noop),
    ]
