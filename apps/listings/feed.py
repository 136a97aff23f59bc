"""The signed feed (apps.protocol.feed), from what is on sale now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apps.core.clock import unix_ms
from apps.listings.models import Listing
from apps.listings.pricing import CURRENCY, price_micro
from apps.protocol import wire
from apps.protocol.feed import FEED_DOMAIN, PAGE_MAX
from apps.training.evidence import METRIC_NAMES
from apps.wallets import log, proofs

Json = dict[str, Any]


def feed_page(*, after: str = "", now: datetime) -> Json:
    """{"page", "signature"}: the models on sale after a slug, at most PAGE_MAX of them.

    Raises NotFound while the log has no head.
    """
    rows = Listing.objects.filter(status=Listing.Status.OPEN, slug__gt=after).select_related(
        "dao__asset", "version"
    )
    found = list(rows.order_by("slug")[: PAGE_MAX + 1])
    models = [_model(listing) for listing in found[:PAGE_MAX]]
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


def _model(listing: Listing) -> Json:
    dao, version = listing.dao, listing.version
    evidence = version.evidence or {}
    return {
        "slug": listing.slug,
        "title": dao.name,
        "domain": dao.domain,
        "model_class": dao.model_class,
        "licence": dao.licence,
        "version": version.number,
        "model": version.model,
        "price_micro": str(price_micro(listing)),
        "currency": CURRENCY,
        "sdt": dao.asset.code if dao.asset else None,
        "metrics": {
            name: {
                "milli": evidence[f"{name}_milli"],
                "by_stratum": evidence.get(f"{name}_by_stratum") or {},
            }
            for name in METRIC_NAMES
            if f"{name}_milli" in evidence
        },
        "gates_met": all(gate["met"] for gate in evidence.get("gates") or []),
        "opened_at": unix_ms(listing.opened_at),
    }
