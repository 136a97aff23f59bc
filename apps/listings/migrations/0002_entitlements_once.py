"""Entitlements are written once, and their trees keep the hashes of all wider subtrees.

The trees of epochs that are divided are built anew from their entitlements; an epoch that is being
divided begins with that again.
"""

from typing import Any

from django.db import migrations, models
from django.db.models import Q, deletion

from apps.protocol import entitlements, merkle

LEVEL = 6
BATCH = 5_000

_AGAIN = """
DELETE FROM listings_entitlement e USING listings_closing c
WHERE c.epoch_id = e.epoch_id AND c.step IN ('quiet', 'weigh', 'divide') AND e.role = 'holder';
UPDATE listings_closing SET cursor = '', holdings = 0, size = 0, frontier = '',
    step = CASE WHEN sdt_micro > 0 THEN 'quiet' ELSE 'divide' END,
    entitled_micro = (SELECT coalesce(sum(e.amount_micro), 0) FROM listings_entitlement e
        WHERE e.epoch_id = listings_closing.epoch_id)
WHERE step IN ('quiet', 'weigh', 'divide')
"""


def grow(apps: Any, schema_editor: Any) -> None:
    Entitlement = apps.get_model("listings", "Entitlement")
    Node = apps.get_model("listings", "EntitlementNode")
    Closing = apps.get_model("listings", "Closing")
    for epoch in Closing.objects.filter(size__gt=0).values_list("epoch", flat=True):
        rows = Entitlement.objects.filter(epoch=epoch, amount_micro__gt=0)
        rows = rows.order_by("asset", "role", "pid")
        found = rows.values_list("asset", "role", "pid", "amount_micro").iterator(BATCH)
        size, frontier, part = 0, [], []
        for row in found:
            part.append(entitlements.Entitlement(*row))
            if len(part) == BATCH:
                size, frontier = _grown(Node, epoch, size, frontier, part)
                part = []
        _grown(Node, epoch, size, frontier, part)


def _grown(Node: Any, epoch: Any, size: int, frontier: list[bytes], part: list[Any]) -> Any:
    hashes = (entitlements.leaf_hash(str(epoch), one) for one in part)
    before = size
    size, frontier, nodes = merkle.extend(size, frontier, hashes)
    Node.objects.bulk_create(
        Node(
            epoch_id=epoch, level=level, index=index, hash=hash_,
            last=" ".join(part[((index + 1) << LEVEL) - 1 - before].key) if level == LEVEL else "",
        )
        for level, index, hash_ in nodes
        if level >= LEVEL
    )  # fmt: skip
    return size, frontier


class Migration(migrations.Migration):
    dependencies = [
        ("listings", "0001_squashed_0013_plan_prices"),
        ("subdaos", "0001_squashed_0013_divided_epochs"),
    ]

    operations = [
        migrations.CreateModel(
            "EntitlementNode",
            [
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "epoch", "level", "index",
                        blank=True, editable=False, primary_key=True, serialize=False,
                    ),
                ),
                (
                    "epoch",
                    models.ForeignKey(
                        "subdaos.Epoch", deletion.PROTECT, related_name="+", db_constraint=False,
                        db_index=False,
                    ),
                ),
                ("level", models.PositiveSmallIntegerField()),
                ("index", models.BigIntegerField()),
                ("hash", models.BinaryField()),
                ("last", models.CharField(max_length=90, db_collation="C", blank=True)),
            ],
            {
                "indexes": [
                    models.Index(
                        fields=["epoch", "last"],
                        condition=~Q(last=""),
                        name="listings_node_last",
                    )
                ]
            },
        ),
        migrations.RunSQL(_AGAIN, migrations.RunSQL.noop),
        migrations.RunPython(grow, migrations.RunPython.noop, elidable=True),
        migrations.DeleteModel("EntitlementBlock"),
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.RemoveField("entitlement", "weight"),
        migrations.RemoveConstraint("entitlement", "listings_entitlement_not_negative"),
        migrations.AlterField("entitlement", "amount_micro", models.BigIntegerField()),
        migrations.AddConstraint(
            "entitlement",
            models.CheckConstraint(
                condition=Q(amount_micro__gte=0), name="listings_entitlement_not_negative"
            ),
        ),
        migrations.RunSQL(
            "ALTER TABLE listings_entitlement RESET (fillfactor)",
            "ALTER TABLE listings_entitlement SET (fillfactor = 50)",
        ),
        migrations.RemoveConstraint("closing", "listings_closing_known_step"),
        migrations.AlterField(
            "closing",
            "step",
            models.CharField(
                choices=[
                    ("quiet", "Quiet"), ("weigh", "Weigh"), ("divide", "Divide"),
                    ("prove", "Prove"), ("pay", "Pay"), ("done", "Done"),
                ],
                default="quiet",
                max_length=6,
            ),
        ),
        migrations.RunSQL(
            "UPDATE listings_closing SET step = 'prove' WHERE step = 'divide'",
            migrations.RunSQL.noop,
        ),
        migrations.AddConstraint(
            "closing",
            models.CheckConstraint(
                condition=Q(step__in=["quiet", "weigh", "divide", "prove", "pay", "done"]),
                name="listings_closing_known_step",
            ),
        ),
    ]
