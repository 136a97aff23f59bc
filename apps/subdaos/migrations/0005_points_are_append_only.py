"""Points are appended and stay: the services have no path that changes a row, and neither has the
database. Who could change `party_id` of a row would have moved points."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0004_newest_first"), ("wallets", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            f"CREATE TRIGGER {name} BEFORE {when} ON subdaos_sbgtcheckpoint FOR EACH {each}"
            " EXECUTE FUNCTION wallets_refuse()",
            f"DROP TRIGGER {name} ON subdaos_sbgtcheckpoint",
        )
        for name, when, each in (
            ("refuse_change", "UPDATE OR DELETE", "ROW"),
            ("refuse_truncate", "TRUNCATE", "STATEMENT"),
        )
    ]
