from django.db import migrations


class Migration(migrations.Migration):
    # SubDAOs that were founded before there were budgets may vote for one, too.

    dependencies = [
        ('subdaos', '0002_lineage'),
    ]

    operations = [
        migrations.RunSQL(
            "UPDATE subdaos_dao SET params = params || '{\"privacy\": {}}'"
            " WHERE kind = 'sub' AND NOT params ? 'privacy'",
            migrations.RunSQL.noop,
        ),
    ]
