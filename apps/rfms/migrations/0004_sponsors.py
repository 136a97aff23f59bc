"""Whoever backed a SubDAO that was founded before now has its part in the emissions too."""

from collections import Counter
from typing import Any

from django.db import migrations


def known(apps: Any, schema_editor: Any) -> None:
    Sponsor = apps.get_model("subdaos", "Sponsor")
    for rfm in apps.get_model("rfms", "Rfm").objects.exclude(subdao=None):
        if Sponsor.objects.filter(dao=rfm.subdao_id).exists():
            continue
        standing = apps.get_model("rfms", "Pledge").objects.filter(
            crowdfund__rfm=rfm, withdrawn_at=None, refunded_at=None
        )
        pledged: Counter[Any] = Counter()
        for party, micro in standing.values_list("party", "amount_micro"):
            pledged[party] += micro
        Sponsor.objects.bulk_create(
            Sponsor(dao_id=rfm.subdao_id, party_id=party, pledged_micro=micro)
            for party, micro in pledged.items()
        )


class Migration(migrations.Migration):
    dependencies = [("rfms", "0003_newest_first"), ("subdaos", "0007_schedules")]

    operations = [migrations.RunPython(known, migrations.RunPython.noop)]
