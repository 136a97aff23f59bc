from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('training', '0015_privacy'),
    ]

    operations = [
        migrations.AddField(
            model_name='submission',
            name='refusal',
            field=models.CharField(blank=True, max_length=32),
        ),
    ]
