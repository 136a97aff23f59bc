"""What listings are found, counted and sorted by, in their own rows: triggers copy it."""

from pathlib import Path

from django.db import migrations, models

SQL = Path(__file__).with_suffix(".sql").read_text()
BACK = """
DROP TRIGGER shelve ON training_modelversion; DROP FUNCTION listings_shelve_version;
DROP TRIGGER shelve ON subdaos_dao; DROP FUNCTION listings_shelve_dao;
DROP TRIGGER shelve ON listings_listing; DROP FUNCTION listings_shelve;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('listings', '0010_hold'),
        ('subdaos', '0010_training'),
        ('training', '0010_stakes'),
    ]

    operations = [
        migrations.AddField(
            model_name='listing',
            name='domain',
            field=models.TextField(default='', editable=False),
        ),
        migrations.AddField(
            model_name='listing',
            name='lead_milli',
            field=models.IntegerField(default=-1000000, editable=False),
        ),
        migrations.AddField(
            model_name='listing',
            name='licence',
            field=models.TextField(default='', editable=False),
        ),
        migrations.AddField(
            model_name='listing',
            name='model_class',
            field=models.TextField(default='', editable=False),
        ),
        migrations.AddField(
            model_name='listing',
            name='row_price_micro',
            field=models.BigIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name='listing',
            name='standard',
            field=models.TextField(default='', editable=False),
        ),
        migrations.AddIndex(
            model_name='listing',
            index=models.Index(fields=['row_price_micro', 'id'], name='listings_cheapest'),
        ),
        migrations.AddIndex(
            model_name='listing',
            index=models.Index(fields=['-lead_milli', '-id'], name='listings_best'),
        ),
        migrations.RunSQL(SQL, BACK),
    ]
