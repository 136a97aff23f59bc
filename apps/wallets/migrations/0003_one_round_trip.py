"""A payment in one round trip; a leaf costs its writer two indexes less, the sequencer keeps them."""

from pathlib import Path

from django.db import migrations, models
from django.db.models import Q

HERE = Path(__file__).parent
NUMBERED = Q(seq__isnull=False)


class Migration(migrations.Migration):
    dependencies = [("wallets", "0002_quiet_assets")]

    operations = [
        migrations.RemoveIndex("transfer", "transfer_ref"),  # nobody looks for these
        migrations.AlterField("logleaf", "seq", models.BigIntegerField(null=True)),
        migrations.AddConstraint(
            "logleaf",
            models.UniqueConstraint(fields=["seq"], condition=NUMBERED, name="leaf_seq_once"),
        ),
        migrations.RemoveIndex("logleaf", "leaf_hash"),
        migrations.AddIndex(
            "logleaf", models.Index(fields=["hash"], condition=NUMBERED, name="leaf_hash")
        ),
        migrations.RunSQL((HERE / "write.sql").read_text(), migrations.RunSQL.noop),
        migrations.RunSQL(
            (HERE / "pay.sql").read_text(), "DROP FUNCTION IF EXISTS wallets_pay"
        ),
    ]
