from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('subdaos', '0012_plans'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='epoch',
            index=models.Index(condition=models.Q(('settlement__isnull', False)), fields=['-ends_at'], name='subdaos_epoch_divided'),
        ),
    ]
