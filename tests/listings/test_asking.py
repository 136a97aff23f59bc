"""A model of a release that computed its circuit otherwise is not sold, and says so everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from apps.core.clock import now
from apps.core.errors import Conflict
from apps.listings.models import Listing, Query
from apps.listings.quoting import quote_json
from apps.listings.selectors import listing_json
from apps.listings.services import query_create
from apps.protocol.circuits import query_hash
from apps.training.models import ModelVersion
from apps.wallets.models import Hold
from tests.support.shelf import FEATURES, Shelf

CIRCUIT = "logistic_infer@1"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "made",
    [
        {"asked_by": CIRCUIT, "asked_hash": "00" * 32},
        {"asked_by": "logistic_infer@9", "asked_hash": "00" * 32},
    ],
)
def test_a_model_that_nodes_would_not_ask_is_not_sold(made: dict[str, Any]) -> None:
    shelf = Shelf()
    buyer, before = shelf.buyer(10**6), shelf.upload()
    hashed = query_hash(CIRCUIT, {"features": FEATURES})
    assert listing_json(shelf.listing)["circuits_hash"] == hashed
    assert listing_json(shelf.listing)["obstacle"] == ""
    ModelVersion.objects.filter(dao=shelf.dao).update(asked_by=CIRCUIT, asked_hash=hashed)
    assert listing_json(shelf.listing)["obstacle"] == ""

    ModelVersion.objects.filter(dao=shelf.dao).update(**made)
    Listing.objects.filter(dao=shelf.dao).update(slug="other")  # as this process has not read it
    shown = listing_json(shelf.listing)
    assert shown["circuit"] == made["asked_by"] and shown["circuits_hash"] == "00" * 32
    assert made["asked_by"] in shown["obstacle"] and "next version" in shown["obstacle"]
    with pytest.raises(Conflict) as quoted:
        quote_json(listing=shelf.listing, buyer=buyer, rows=1, now=now())
    with pytest.raises(Conflict) as asked:
        query_create(slug="other", buyer=buyer, upload=before, now=now())
    assert quoted.value.code == asked.value.code == "circuit_changed"
    assert not Query.objects.exists() and not Hold.objects.exists()
