from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('compute', '0012_shareless'),
    ]

    operations = [
        migrations.RemoveField(
            model_name='job',
            name='shareless',
        ),
    ]
