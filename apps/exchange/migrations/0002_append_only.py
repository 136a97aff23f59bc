"""A pool's history stays as it was written: the trigger of the ledger's own rows."""

from django.db import migrations

TRIGGERS = [
    ("refuse_change", "UPDATE OR DELETE", "ROW"),
    ("refuse_truncate", "TRUNCATE", "STATEMENT"),
]


class Migration(migrations.Migration):
    dependencies = [("exchange", "0001_initial"), ("wallets", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            f"CREATE TRIGGER {name} BEFORE {when} ON exchange_poolevent FOR EACH {each}"
            " EXECUTE FUNCTION wallets_refuse()",
            f"DROP TRIGGER {name} ON exchange_poolevent",
        )
        for name, when, each in TRIGGERS
    ]
