from django.db import migrations, models
from django.db.models.fields.json import KT
from django.db.models.functions import Cast


LEADING = ('auc', 'accuracy', 'r2', 'c_index')


class Migration(migrations.Migration):
    # PostgreSQL has no other way to give a generated column another expression.

    dependencies = [
        ('training', '0013_engine'),
    ]

    operations = [
        migrations.RemoveField(model_name='modelversion', name='lead_milli'),
        migrations.AddField(
            model_name='modelversion',
            name='lead_milli',
            field=models.GeneratedField(
                db_persist=True,
                expression=models.Case(
                    *(
                        models.When(
                            evidence__has_key=f'{name}_milli',
                            then=Cast(KT(f'evidence__{name}_milli'), models.IntegerField()),
                        )
                        for name in LEADING
                    )
                ),
                output_field=models.IntegerField(null=True),
            ),
        ),
    ]
