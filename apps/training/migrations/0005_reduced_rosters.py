from django.db import migrations, models
from django.db.models import Q

PHASES = ["moments", "normalising", "updates", "computing", "done", "void", "failed"]
STATES = ["received", "delivered", "refused", "replaced"]


class Migration(migrations.Migration):
    dependencies = [("training", "0004_model_class")]

    operations = [
        migrations.AddField("round", "due_at", models.DateTimeField(null=True)),
        migrations.AddField(
            "member",
            "left_phase",
            models.CharField(
                blank=True,
                choices=[(name, name.capitalize()) for name in PHASES],
                default="",
                max_length=12,
            ),
            preserve_default=False,
        ),
        migrations.AlterField(
            "submission",
            "state",
            models.CharField(
                choices=[(name, name.capitalize()) for name in STATES],
                default="received",
                max_length=9,
            ),
        ),
        migrations.RemoveConstraint("submission", "training_one_share_per_slot"),
        migrations.AddConstraint(
            "submission",
            models.UniqueConstraint(
                fields=["round", "stage", "slot", "party"],
                condition=~Q(state__in=["refused", "replaced"]),
                name="training_one_share_per_slot",
            ),
        ),
    ]
