"""Of models that were voted off sale before anybody kept when: the log has told it.

Their plans are paid back by the next sweep, as of that vote.
"""

from django.db import migrations

RETIRED = """
UPDATE listings_listing l
SET retired_at = 'epoch'::timestamptz + voted.at_ms * interval '1 millisecond'
FROM (
    SELECT DISTINCT ON (leaf.ref_id) leaf.ref_id, (said.it ->> 'at')::bigint AS at_ms,
        said.it -> 'body' -> 'value' AS on_sale
    FROM wallets_logleaf leaf, LATERAL (SELECT convert_from(leaf.data, 'UTF8')::jsonb AS it) said
    WHERE leaf.type = 'subdaos.params' AND said.it -> 'body' ->> 'key' = 'on_sale'
    ORDER BY leaf.ref_id, leaf.id DESC
) voted
WHERE voted.ref_id = l.dao_id::text AND voted.on_sale = 'false'::jsonb
    AND l.status = 'closed' AND l.retired_at IS NULL
"""


class Migration(migrations.Migration):
    dependencies = [
        ("listings", "0010_paid_when_taken"),
        ("subdaos", "0003_privacy"),
        ("wallets", "0004_credentials"),
    ]

    operations = [migrations.RunSQL(RETIRED, migrations.RunSQL.noop)]
