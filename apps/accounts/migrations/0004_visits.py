"""When a person was last here, so that a page can say what has changed since."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_key_purposes")]

    operations = [
        migrations.AddField("user", "visited_at", models.DateTimeField(null=True)),
        migrations.AddField("user", "visited_before_at", models.DateTimeField(null=True)),
    ]
