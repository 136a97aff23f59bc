"""What must always be true of divided epochs; run with what must of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.db.models import Sum

from apps.listings.models import Entitlement
from apps.subdaos.models import Epoch

Breaches = Iterator[str]


def validate_entitlements_are_the_settlements() -> Breaches:
    """Σ over the entitlements of a divided epoch is what its leaf says of each role, and with the
    treasury's part all of its revenue."""
    divided = Epoch.objects.exclude(settlement=None)
    sums: dict[object, dict[str, int]] = {}
    owed = Entitlement.objects.filter(epoch__in=divided.values("id")).values("epoch", "role")
    for row in owed.annotate(sum=Sum("amount_micro")).filter(sum__gt=0).order_by():
        sums.setdefault(row["epoch"], {})[row["role"]] = int(row["sum"])
    for epoch in divided:
        body, found = epoch.settlement, sums.get(epoch.id, {})
        assert body is not None
        told = {role: int(micro) for role, micro in body["owed_micro"].items() if int(micro)}
        whole = sum(found.values()) + int(body["treasury_micro"])
        if (told, int(body["revenue_micro"])) != (found, whole):
            name = f"epoch {epoch.number} of {epoch.dao_id}"
            yield f"{name}: its entitlements are {found}, not {told}"


LISTINGS_INVARIANTS: list[Callable[[], Breaches]] = [validate_entitlements_are_the_settlements]
