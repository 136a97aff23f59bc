"""A version goes on sale: at the price of its place in the log, whatever is voted at once."""

from __future__ import annotations

import json
import secrets
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import close_old_connections

from apps.core.clock import now
from apps.core.transactions import durable
from apps.listings.services import listing_open
from apps.subdaos.services import dao_lock, param_set
from apps.training.models import ModelVersion
from apps.wallets.models import LogLeaf
from tests.support.locks import until_blocked
from tests.support.shelf import PRICE, Shelf

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_price_on_sale_is_that_of_its_place_in_the_log() -> None:
    """Its SubDAO is locked first, as a vote on the price locks it."""
    shelf = Shelf()
    known = shelf.listing.version
    made_in = known.round
    made_in.pk, made_in.number = uuid.uuid4(), 2
    made_in.save(force_insert=True)
    version = ModelVersion.objects.create(
        dao=shelf.dao, number=2, round=made_in, model=secrets.token_hex(32), evidence={},
        status=ModelVersion.Status.ACCEPTED, decided_at=now(),
    )  # fmt: skip

    def opened() -> Any:
        try:
            return listing_open(version_id=version.id, now=now())
        finally:
            close_old_connections()

    with ThreadPoolExecutor(1) as pool:
        with durable():
            dao_lock(shelf.dao)
            work = pool.submit(opened)
            assert until_blocked()
            param_set(
                dao=shelf.dao, key="price_micro", value=str(2 * PRICE), proposal_id=uuid.uuid4(),
                now=now(),
            )  # fmt: skip
        assert work.result(timeout=60).version_id == version.id
    rows = LogLeaf.objects.filter(type__in=["listings.opened", "subdaos.params"]).order_by("pk")
    first, voted, then = (json.loads(bytes(row.data))["body"] for row in rows)
    assert (first["price_micro"], then["price_micro"]) == (str(PRICE), voted["value"])
