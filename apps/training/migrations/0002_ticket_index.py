"""A ticket is found by its id."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0001_initial")]

    operations = [
        migrations.AddIndex("submission", models.Index(fields=["ticket_id"], name="training_ticket")),
    ]
