"""Holders are divided in the order of the tree: an epoch that is being divided begins with that
again."""

from django.db import migrations

_AGAIN = """
DELETE FROM listings_entitlement e USING listings_closing c
WHERE c.epoch_id = e.epoch_id AND c.step IN ('divide', 'prove') AND e.role = 'holder';
DELETE FROM listings_entitlementnode n USING listings_closing c
WHERE c.epoch_id = n.epoch_id AND c.step IN ('divide', 'prove');
UPDATE listings_closing SET cursor = '', holdings = 0, size = 0, frontier = '',
    step = CASE WHEN sdt_micro > 0 THEN 'quiet' ELSE 'prove' END,
    entitled_micro = (SELECT coalesce(sum(e.amount_micro), 0) FROM listings_entitlement e
        WHERE e.epoch_id = listings_closing.epoch_id)
WHERE step IN ('divide', 'prove')
"""


class Migration(migrations.Migration):
    dependencies = [
        ("listings", "0002_entitlements_once"),
        ("accounts", "0006_others_than_payees"),
    ]

    operations = [migrations.RunSQL(_AGAIN, migrations.RunSQL.noop)]
