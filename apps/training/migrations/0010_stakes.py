from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0009_secure_sgd")]

    operations = [migrations.AddField("round", "stakes", models.JSONField(default=dict))]
