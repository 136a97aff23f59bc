from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0006_share_parts")]

    operations = [
        migrations.RemoveField(model_name="submission", name="upload"),
        migrations.AlterField(
            model_name="submission",
            name="state",
            field=models.CharField(
                choices=[
                    ("receiving", "Receiving"),
                    ("received", "Received"),
                    ("delivered", "Delivered"),
                    ("refused", "Refused"),
                    ("replaced", "Replaced"),
                ],
                default="receiving",
                max_length=9,
            ),
        ),
        migrations.RemoveIndex(model_name="submission", name="training_share_due"),
        migrations.AddIndex(
            model_name="submission",
            index=models.Index(
                condition=models.Q(("state__in", ["receiving", "received"])),
                fields=["due_at"],
                name="training_share_due",
            ),
        ),
    ]
