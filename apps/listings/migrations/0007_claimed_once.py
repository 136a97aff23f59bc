"""Entitlements stay as the log's root has them: a trigger lets only `claimed_at` be set, once."""

from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent
BACK = """
DROP TRIGGER claimed_once ON listings_entitlement;
DROP TRIGGER refuse_truncate ON listings_entitlement;
DROP FUNCTION listings_claimed_once();
"""


class Migration(migrations.Migration):
    dependencies = [("listings", "0006_plan_renewals")]

    operations = [migrations.RunSQL((HERE / "claimed.sql").read_text(), BACK)]
