"""An asset says before which time none of its transfers is stamped any more."""

from pathlib import Path

from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("wallets", "0001_squashed_0009_prepaid")]

    operations = [
        migrations.AddField("asset", "quiet_at", models.DateTimeField(null=True)),
        migrations.RunSQL((HERE / "write.sql").read_text(), migrations.RunSQL.noop),
    ]
