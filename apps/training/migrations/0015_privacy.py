from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0014_lead_c_index'),
    ]

    operations = [
        migrations.AddField(
            model_name='round',
            name='privacy',
            field=models.JSONField(default=dict),
        ),
    ]
