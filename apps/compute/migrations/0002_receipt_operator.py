import django.db.models.deletion
from django.db import migrations, models


def operators_of_now(apps, schema_editor):
    """Receipts of before count as they did until now: for who runs their node."""
    for node in apps.get_model("compute", "Node").objects.exclude(operator=None):
        node.receipts.filter(operator=None).update(operator=node.operator_id)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("compute", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="receipt",
            name="operator",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="receipts",
                to="accounts.party",
            ),
        ),
        migrations.RunPython(operators_of_now, migrations.RunPython.noop),
    ]
