"""The hot write of the ledger as one SQL function, and accounts that can be closed.

A transfer costs two index entries less: (debit, created_at) and (credit, created_at) serve the
foreign keys too. Half-empty pages let the balance of an account change in place.
"""

from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

WRITE = Path(__file__).with_suffix(".sql").read_text()
SIGNATURE = (
    "uuid[], uuid[], int[], int[], numeric[], text[], text[], uuid[], timestamptz[], text[],"
    " text[], text[], text[], timestamptz, jsonb"
)


def _side(name: str) -> migrations.AlterField:
    return migrations.AlterField(
        "transfer",
        name,
        models.ForeignKey(
            db_index=False,
            on_delete=django.db.models.deletion.PROTECT,
            related_name=f"{name}s",
            to="wallets.account",
        ),
    )


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial"), ("wallets", "0002_append_only")]

    operations = [
        migrations.AddField("account", "closed_at", models.DateTimeField(null=True)),
        migrations.AddConstraint(
            "account",
            models.CheckConstraint(
                condition=models.Q(closed_at=None) | models.Q(posted_micro=0),
                name="account_closed_is_empty",
            ),
        ),
        _side("debit"),
        _side("credit"),
        migrations.RunSQL(
            "ALTER TABLE wallets_account SET (fillfactor = 50)",
            "ALTER TABLE wallets_account RESET (fillfactor)",
        ),
        migrations.RunSQL(WRITE, f"DROP FUNCTION wallets_write({SIGNATURE})"),
    ]
