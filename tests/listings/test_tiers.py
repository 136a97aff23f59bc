"""Large buyers pay by tier: voted, quoted with the rows answered before, held as quoted."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.listings import pricing, running
from apps.listings.models import Query
from apps.listings.quoting import quote_json
from apps.listings.running import query_cancel
from apps.listings.selectors import listing_json
from apps.listings.services import query_create
from apps.rfms.models import Rfm
from apps.subdaos.actions import SetTiers
from apps.subdaos.models import Dao
from tests.support.shelf import PRICE, Shelf

TIERS = [{"from_rows": 3, "off_bps": 1_000}, {"from_rows": 6, "off_bps": 5_000}]


@pytest.fixture
def shelf(transactional_db):
    made = Shelf()
    Dao.objects.filter(pk=made.dao.pk).update(params={**made.dao.params, "tiers": TIERS})
    return made


def quoted(shelf, buyer, rows: int) -> int:
    return int(quote_json(listing=shelf.listing, buyer=buyer, rows=rows, now=now())["price_micro"])


def ask(shelf, buyer, rows: int, *, price: int | None = None, **more) -> Query:
    price = quoted(shelf, buyer, rows) if price is None else price
    upload = shelf.upload(rows, price_micro=str(price))
    return query_create(slug=shelf.dao.slug, buyer=buyer, upload=upload, now=now(), **more)


def settle(shelf, query: Query) -> None:
    (claimed,) = running._claim_all([query.id])
    running._settle([(claimed, shelf.outcome(claimed))])


def test_rows_are_priced_by_those_that_were_answered_this_month(shelf) -> None:
    buyer = shelf.buyer(100 * PRICE)
    assert quoted(shelf, buyer, 8) == 3 * PRICE + 3 * PRICE * 9 // 10 + 2 * PRICE // 2
    first = ask(shelf, buyer, 4)
    assert first.price_micro == 3 * PRICE + PRICE * 9 // 10
    assert quoted(shelf, buyer, 1) == PRICE  # what only waits gives nothing
    settle(shelf, first)
    assert quoted(shelf, buyer, 3) == 2 * PRICE * 9 // 10 + PRICE // 2
    cancelled = ask(shelf, buyer, 5)
    query_cancel(query_id=cancelled.id, now=now())
    assert quoted(shelf, buyer, 1) == PRICE * 9 // 10
    assert quoted(shelf, shelf.buyer(), 1) == PRICE  # another buyer has its own
    Query.objects.update(created_at=pricing.month_of(now())[0] - timedelta(days=1))
    assert quoted(shelf, buyer, 1) == PRICE  # so has another month


def test_the_price_is_the_quotes_and_no_other(shelf) -> None:
    buyer = shelf.buyer(100 * PRICE)
    quote = quote_json(listing=shelf.listing, buyer=buyer, rows=4, now=now())
    settle(shelf, ask(shelf, buyer, 4))
    with pytest.raises(DomainError) as caught:
        ask(shelf, buyer, 4, price=4 * PRICE)
    assert caught.value.code == "ticket_mismatch" and caught.value.args_["field"] == "price_micro"
    held = ask(shelf, buyer, 4, price=int(quote["price_micro"]), quote=quote["quote"])
    assert held.price_micro == int(quote["price_micro"])  # as promised, though the tier has come


def test_the_api_says_the_tiers_and_the_volume(shelf) -> None:
    said = listing_json(shelf.listing)
    prices = [(t["from_rows"], t["price_micro"]) for t in said["tiers"]]
    assert prices == [(3, str(PRICE * 9 // 10)), (6, str(PRICE // 2))]
    buyer = shelf.buyer(100 * PRICE)
    settle(shelf, ask(shelf, buyer, 4))
    _, key = api_key_create(user=User.objects.create_user("a@example.org", "x"), party=buyer)
    client = APIClient(headers={"Authorization": f"Bearer {key}"})
    quote = client.post(f"/api/v1/listings/{shelf.dao.slug}/quote/", {"rows": 2}).json()
    assert (quote["volume_rows"], quote["price_micro"]) == (4, str(2 * PRICE * 9 // 10))


def test_the_author_of_the_request_pays_less_of_each_row(shelf) -> None:
    dao, author = Dao.objects.get(pk=shelf.dao.pk), shelf.buyer(100 * PRICE)
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "rebate_bps": 2_000})
    Rfm.objects.create(slug="asked", title="Asked", submitter=author, subdao=dao, spec={})
    own = PRICE * 8 // 10
    assert quoted(shelf, author, 4) == 3 * own + own * 9 // 10
    assert quoted(shelf, shelf.buyer(), 1) == PRICE
    settle(shelf, ask(shelf, author, 4))
    assert quoted(shelf, author, 1) == own * 9 // 10
    assert listing_json(shelf.listing)["rebate_bps"] == 2_000


def test_a_vote_checks_and_shows_the_tiers(shelf) -> None:
    dao, action = Dao.objects.get(pk=shelf.dao.pk), SetTiers()
    for raw, code in (
        ({"tiers": TIERS}, "no_change"),
        ({"tiers": TIERS[::-1]}, "bad_tiers"),
        ({"tiers": TIERS, "more": 1}, "bad_payload"),
        ({}, "bad_payload"),
        ({"tiers": [{"from_rows": 1, "off_bps": 10_000}]}, "bad_tiers"),
    ):
        with pytest.raises(DomainError) as caught:
            action.validate(raw, dao)
        assert caught.value.code == code
    asked = action.validate({"tiers": [TIERS[0], {"from_rows": 10, "off_bps": 2_500}]}, dao)
    label = "Off the price, after {} rows in a month"
    assert action.describe(asked, dao) == [
        {"label": label.format(6), "before": "50.00 %", "after": ""},
        {"label": label.format(10), "before": "", "after": "25.00 %"},
    ]
    with durable():
        action.execute(asked, dao=dao, proposal_id=dao.id, now=now())
    assert [t["from_rows"] for t in listing_json(shelf.listing)["tiers"]] == [3, 10]
