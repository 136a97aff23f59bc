"""A SubDAO may fork another one; the SuperDAO says who may pledge first."""

import django.db.models.deletion
from django.db import migrations, models

_SPONSORING = """
UPDATE subdaos_dao SET params = params || '{"sponsoring": {"first_s": 0, "stake_bps": 1}}'
WHERE kind = 'super' AND NOT params ? 'sponsoring'
"""


class Migration(migrations.Migration):
    dependencies = [("subdaos", "0001_squashed_0013_divided_epochs")]

    operations = [
        migrations.AddField(
            "dao",
            "parent",
            models.ForeignKey(
                "subdaos.dao",
                django.db.models.deletion.PROTECT,
                related_name="forks",
                null=True,
                blank=True,
                editable=False,
            ),
        ),
        migrations.RunSQL(_SPONSORING, migrations.RunSQL.noop),
    ]
