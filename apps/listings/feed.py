"""The signed feed (apps.protocol.feed), from what is on sale now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models.functions import Collate

from apps.core.clock import unix_ms
from apps.listings.models import Listing
from apps.listings.pricing import CURRENCY
from apps.protocol import wire
from apps.protocol.evidence import METRIC_NAMES
from apps.protocol.feed import FEED_DOMAIN, PAGE_MAX
from apps.wallets import log, proofs

Json = dict[str, Any]
# The parameters of a SubDAO but this one, its schema with them, are left in the database.
FIELDS = (
    "slug",
    "dao__name",
    "domain",
    "model_class",
    "licence",
    "version__number",
    "version__model",
    "row_price_micro",
    "dao__asset__code",
    "version__evidence",
    "opened_at",
    "dao__params__access",
)


def feed_page(*, after: str = "", now: datetime) -> Json:
    """{"page", "signature"}: the models on sale after a slug, at most PAGE_MAX of them.

    Raises NotFound while the log has no head.
    """
    # By code points, as the verifier compares, whatever the database's locale says.
    rows = Listing.objects.annotate(place=Collate("slug", "C"))
    left = rows.filter(status=Listing.Status.OPEN, place__gt=after).order_by("place")
    found = list(left.values(*FIELDS)[: PAGE_MAX + 1])
    models = [_model(row) for row in found[:PAGE_MAX]]
    page = {
        "v": 1,
        "at": unix_ms(now),
        "log": log.public_key(),
        "head": proofs.head_json(proofs.head()),
        "after": after,
        "next": models[-1]["slug"] if len(found) > PAGE_MAX else None,
        "models": models,
    }
    return {"page": page, "signature": wire.sign(log.log_key(), FEED_DOMAIN, page)}


def _model(row: Json) -> Json:
    evidence = row["version__evidence"] or {}
    return {
        "slug": row["slug"],
        "title": row["dao__name"],
        "domain": row["domain"],
        "model_class": row["model_class"],
        "licence": row["licence"],
        "version": row["version__number"],
        "model": row["version__model"],
        "price_micro": str(row["row_price_micro"]),
        "currency": CURRENCY,
        "access": row["dao__params__access"] or None,
        "sdt": row["dao__asset__code"],
        "metrics": {
            name: {
                "milli": evidence[f"{name}_milli"],
                "by_stratum": evidence.get(f"{name}_by_stratum") or {},
            }
            for name in METRIC_NAMES
            if f"{name}_milli" in evidence
        },
        "gates_met": all(gate["met"] for gate in evidence.get("gates") or []),
        "opened_at": unix_ms(row["opened_at"]),
    }
