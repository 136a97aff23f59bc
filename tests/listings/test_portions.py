"""One buyer gets a part of what a model's nodes answer in a day, by vote; the rest is others'."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.accounts.models import ApiKey, Party, User
from apps.accounts.services import api_key_create
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.listings.actions import SetPortion
from apps.listings.models import Query, Taken
from apps.listings.portions import PortionUsedUp, portion_of, portions_json
from apps.listings.quoting import quote_json
from apps.listings.running import query_cancel
from apps.listings.selectors import listing_json
from apps.listings.services import query_create
from apps.protocol.portion import epoch_span_ms, portion_rows
from apps.subdaos.models import Dao
from tests.listings.test_plans import ask as ask_by_plan
from tests.listings.test_plans import choose, draw
from tests.support.shelf import PRICE, Shelf

pytestmark = pytest.mark.django_db
FUNDS = 1_000 * PRICE
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def shelf(transactional_db, settings) -> Iterator[Shelf]:
    settings.ROWS_PER_EPOCH = 20
    yield Shelf()


def ask(shelf: Shelf, buyer: Party, rows: int, at: datetime) -> Query:
    upload = shelf.upload(rows, now=at)
    return query_create(slug=shelf.dao.slug, buyer=buyer, upload=upload, now=at)


def vote(shelf: Shelf, bps: int) -> None:
    with durable():
        dao = Dao.objects.get(pk=shelf.dao.pk)
        SetPortion().execute({"portion_bps": bps}, dao=dao, proposal_id=shelf.dao.id, now=now())


def test_a_part_is_rounded_down_and_one_row_at_least() -> None:
    assert [portion_rows(2000, bps) for bps in (10_000, 5_000, 3_333, 1)] == [2000, 1000, 666, 1]
    for bps in (0, 10_001, -1, True, "5000", 0.5, None):
        with pytest.raises(ValueError, match="between 1 and 10000 basis points"):
            portion_rows(2000, bps)  # type: ignore[arg-type]
    day = 86_400_000
    assert epoch_span_ms(20_000 * day + 5, 1) == (20_000 * day, 20_001 * day)
    assert epoch_span_ms(20_000 * day - 1, 7) == (19_999 * day - 0, 20_006 * day)


def test_who_has_had_a_part_waits_for_the_next_day_and_others_do_not(shelf: Shelf) -> None:
    first, second = shelf.buyer(FUNDS), shelf.buyer(FUNDS)
    ask(shelf, first, 7, NOON)
    with pytest.raises(DomainError) as refused:
        ask(shelf, first, 4, NOON)
    facts = refused.value.args_
    assert (refused.value.code, refused.value.status) == ("buyer_rows_used_up", 429)
    assert facts == {
        "rows": 4, "rows_left": 3, "rows_max": 10, "retry_after_s": 12 * 3600,
        "resets_at": "2027-03-02T00:00:00+00:00",
    }  # fmt: skip
    assert refused.value.text.startswith("You asked 4 row(s), and have 3 left of the 10 ")
    ask(shelf, first, 3, NOON)
    ask(shelf, second, 10, NOON)
    assert portion_of(first, shelf.listing, now=NOON).left == 0
    tomorrow = NOON + timedelta(hours=12)
    assert portion_of(first, shelf.listing, now=tomorrow).left == 10
    ask(shelf, first, 10, tomorrow)
    assert portion_of(first, shelf.listing, now=tomorrow).left == 0
    # A clock that is behind by a moment opens no second day.
    with pytest.raises(DomainError, match="buyer_rows_used_up"):
        ask(shelf, first, 1, tomorrow - timedelta(milliseconds=1))
    assert Taken.objects.count() == 2


def test_released_rows_are_given_back_to_the_day_that_they_were_of(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    old = ask(shelf, buyer, 10, NOON)
    tomorrow = NOON + timedelta(hours=12)
    new = ask(shelf, buyer, 4, tomorrow)
    query_cancel(query_id=old.id, now=tomorrow)
    assert portion_of(buyer, shelf.listing, now=tomorrow).left == 6
    for _ in range(2):
        query_cancel(query_id=new.id, now=tomorrow)
    assert portion_of(buyer, shelf.listing, now=tomorrow).left == 10
    # What waits since before rows were counted counts for nothing when it goes.
    kept = ask(shelf, buyer, 4, tomorrow)
    Taken.objects.update(rows=1)
    query_cancel(query_id=kept.id, now=tomorrow)
    assert Taken.objects.get().rows == 0


def test_a_vote_changes_the_part_from_then_on(shelf: Shelf) -> None:
    buyer, action, dao = shelf.buyer(FUNDS), SetPortion(), Dao.objects.get(pk=shelf.dao.pk)
    for payload, code in (
        ({"portion_bps": 5_000}, "no_change"),
        ({"portion_bps": 0}, "bad_portion"),
        ({"portion_bps": 10_001}, "bad_portion"),
        ({"portion_bps": "5000"}, "bad_portion"),
        ({"portion_bps": True}, "bad_portion"),
        ({}, "bad_payload"),
        ({"portion_bps": 1, "more": 1}, "bad_payload"),
    ):
        with pytest.raises(DomainError, match=code):
            action.validate(payload, dao)
    offer = [{"name": "basic", "rows": 150, "days": 30, "off_bps": 100}]
    dao.params["plans"] = offer
    with pytest.raises(DomainError, match=r"“basic” has 150 rows, and one buyer gets 120 of a"):
        action.validate({"portion_bps": 2_000}, dao)
    assert action.validate({"portion_bps": 2_500}, dao) == {"portion_bps": 2_500}
    label = "Of the model's rows of a day, one buyer may ask"
    row = {"label": label, "before": "50.00 %", "after": "25.00 %"}
    assert action.describe({"portion_bps": 2_500}, dao) == [row]

    ask(shelf, buyer, 4, NOON)
    vote(shelf, 2_500)
    told = listing_json(shelf.listing)
    assert (told["portion_bps"], told["rows_per_buyer"], told["rows_per_query"]) == (2_500, 5, 5)
    ask(shelf, buyer, 1, NOON)
    with pytest.raises(DomainError, match="buyer_rows_used_up"):
        ask(shelf, buyer, 1, NOON)
    vote(shelf, 10_000)
    ask(shelf, buyer, 15, NOON)
    with pytest.raises(DomainError, match="buyer_rows_used_up"):
        ask(shelf, buyer, 1, NOON)


def test_a_plan_keeps_the_part_that_it_began_with_and_none_begins_that_none_could_use_up(
    shelf: Shelf,
) -> None:
    offer = [
        {"name": "basic", "rows": 150, "days": 30, "off_bps": 1_000},
        {"name": "pro", "rows": 300, "days": 30, "off_bps": 2_000},
    ]
    Dao.objects.filter(pk=shelf.dao.pk).update(params={**shelf.dao.params, "plans": offer})
    ahead, other = shelf.buyer(FUNDS), shelf.buyer(FUNDS)
    choose(shelf, ahead, "basic")
    vote(shelf, 2_500)
    assert portion_of(other, shelf.listing, now=now()).most == 5
    # quoted before anything was asked: the hold counts
    quotes = [quote_json(listing=shelf.listing, buyer=ahead, rows=5, now=now()) for _ in range(3)]
    uploads = [shelf.upload(5, price_micro=one["price_micro"]) for one in quotes]
    for upload, quote in zip(uploads[:2], quotes):
        draw(shelf, ahead, upload, quote)
    with pytest.raises(PortionUsedUp) as refused:
        draw(shelf, ahead, uploads[2], quotes[2])
    assert (refused.value.args_["rows_left"], refused.value.args_["rows_max"]) == (0, 10)
    with pytest.raises(PortionUsedUp):
        ask_by_plan(shelf, ahead, 1)
    [told] = portions_json(ahead, now=now())
    assert (told["rows"], told["rows_max"]) == (10, 10)
    with pytest.raises(DomainError, match="plan_too_large"):
        choose(shelf, other, "pro")
    choose(shelf, other, "basic")
    ask_by_plan(shelf, other, 5)
    with pytest.raises(PortionUsedUp):
        ask_by_plan(shelf, other, 1)


def test_the_api_says_what_is_left_before_anything_is_signed(shelf: Shelf, monkeypatch) -> None:
    for place in ("apps.listings.apis.now", "apps.explorer.listings.clock.now"):
        monkeypatch.setattr(place, lambda: NOON)
    buyer = shelf.buyer(FUNDS)
    user = User.objects.create_user(f"{secrets.token_hex(4)}@example.org", "x")
    _, secret = api_key_create(user=user, party=buyer)
    ApiKey.objects.update(created_at=NOON)
    client, url = APIClient(headers={"Authorization": f"Bearer {secret}"}), "/api/v1/"
    listing = f"{url}listings/{shelf.dao.slug}/"

    def quoted(rows: int) -> Any:
        return client.post(f"{listing}quote/", {"rows": rows}, format="json")

    quote = quoted(10).json()
    reset = "2027-03-02T00:00:00+00:00"
    assert (quote["buyer_rows_left"], quote["buyer_rows_reset_at"]) == (10, reset)
    more = quoted(11)
    assert (more.status_code, more.json()["code"]) == (422, "too_many_rows")
    assert "since one buyer gets 10 in 1 day" in more.json()["detail"]
    assert client.get(f"{url}quotas/").json()["models"] == []
    ask(shelf, buyer, 7, NOON)
    refused = quoted(4)
    assert (refused.status_code, refused.json()["code"]) == (429, "buyer_rows_used_up")
    assert refused.headers["Retry-After"] == str(12 * 3600)
    assert (refused.json()["rows_left"], refused.json()["resets_at"]) == (3, reset)
    body = {"input": shelf.upload(4, now=NOON)}
    headers = {"Idempotency-Key": "k"}
    asked = client.post(f"{listing}inferences/", body, format="json", headers=headers)
    assert (asked.status_code, asked.json()["code"]) == (429, "buyer_rows_used_up")
    quotas = client.get(f"{url}quotas/").json()
    assert quotas["models"] == [
        {"listing": shelf.dao.slug, "rows": 7, "rows_max": 10, "resets_at": reset}
    ]
    assert (quotas["waiting"], quotas["waiting_rows"], quotas["waiting_rows_max"]) == (1, 7, 50_000)
    quote_json(listing=shelf.listing, buyer=buyer, rows=3, now=NOON)
    assert Query.objects.count() == 1
