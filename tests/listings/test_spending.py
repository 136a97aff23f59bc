"""A key spends what it may, and the usage is what was charged."""

from __future__ import annotations

import csv
import io
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import close_old_connections
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.core.clock import now
from apps.listings.models import Query
from apps.listings.spending import month_of
from tests.listings.test_queries import ROWS, balance
from tests.support.market import PRICE, drain


def client_with(market, **terms) -> APIClient:
    user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
    _, key = api_key_create(user=user, party=market.buyer.party, **terms)
    return APIClient(headers={"Authorization": f"Bearer {key}"})


def buy(market, client, rows=1):
    return client.post(
        f"/api/v1/listings/{market.listing.slug}/inferences/",
        {"input": market.row(market.listing, ROWS[:rows])},
        headers={"Idempotency-Key": uuid.uuid4().hex},
    )


@pytest.mark.parametrize(
    ("at", "start", "end"),
    [
        ((2026, 12, 31, 23, 59), (2026, 12), (2027, 1)),
        ((2026, 1, 1, 0, 0), (2026, 1), (2026, 2)),
        ((2024, 2, 29, 12, 0), (2024, 2), (2024, 3)),
    ],
)
def test_a_month_is_the_calendars_in_utc(at, start, end) -> None:
    wanted = (datetime(*start, 1, tzinfo=UTC), datetime(*end, 1, tzinfo=UTC))
    assert month_of(datetime(*at, tzinfo=UTC)) == wanted


def test_a_key_spends_its_limit_and_no_more_and_a_release_gives_it_back(sale) -> None:
    sale.fund()
    client = client_with(sale, spend_limit_micro=2 * PRICE)
    held = buy(sale, client, rows=2)
    assert held.status_code == 202
    over = buy(sale, client)
    assert (over.status_code, over.json()["code"]) == (402, "spend_limit_reached")
    facts = {name: over.json()[name] for name in ("left_micro", "limit_micro", "short_micro")}
    assert facts == {"left_micro": "0", "limit_micro": str(2 * PRICE), "short_micro": str(PRICE)}
    assert balance(sale) == (10_000_000, 2 * PRICE)
    assert client.get("/api/v1/quotas/").json()["spending"]["spent_micro"] == str(2 * PRICE)
    assert client_with(sale).get("/api/v1/quotas/").json()["spending"] is None
    client.post(held.headers["Location"] + "cancel/")
    assert buy(sale, client).status_code == 202
    assert buy(sale, client_with(sale)).status_code == 202  # another key has its own
    earlier = month_of(now())[0] - timedelta(days=1)
    Query.objects.update(created_at=earlier)
    assert buy(sale, client, rows=2).status_code == 202  # a new month


def test_requests_at_once_do_not_spend_a_limit_twice(sale) -> None:
    sale.fund()
    client = client_with(sale, spend_limit_micro=PRICE)
    url = f"/api/v1/listings/{sale.listing.slug}/inferences/"
    bodies = [{"input": sale.row(sale.listing, ROWS[:1])} for _ in range(4)]
    codes, barrier = [], threading.Barrier(len(bodies))

    def post(body) -> None:
        try:
            barrier.wait(timeout=60)
            headers = {"Idempotency-Key": uuid.uuid4().hex}
            codes.append(client.post(url, body, headers=headers).status_code)
        finally:
            close_old_connections()

    threads = [threading.Thread(target=post, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [202, 402, 402, 402]
    assert balance(sale) == (10_000_000, PRICE)


def test_a_limited_key_makes_and_renews_no_other(sale) -> None:
    client = client_with(sale, spend_limit_micro=PRICE)
    assert client.post("/api/v1/keys/", {}).json()["code"] == "limited_key"
    rich = client_with(sale)
    made = rich.post("/api/v1/keys/", {"spend_limit_micro": str(PRICE)}).json()
    assert made["spend_limit_micro"] == str(PRICE)
    other = rich.post("/api/v1/keys/", {}).json()["id"]
    assert client.post(f"/api/v1/keys/{other}/rotate/").json()["code"] == "limited_key"


def test_the_usage_is_what_was_charged_by_day_listing_and_key(sale) -> None:
    sale.fund()
    one, two = client_with(sale), client_with(sale)
    for client, rows in ((one, 1), (one, 2), (two, 1)):
        assert buy(sale, client, rows=rows).status_code == 202
    cancelled = buy(sale, two)
    two.post(cancelled.headers["Location"] + "cancel/")
    drain()
    usage = one.get("/api/v1/usage/").json()
    assert usage["price_micro"] == str(4 * PRICE) == str(10_000_000 - balance(sale)[0])
    counts = sorted((row["inferences"], row["rows"]) for row in usage["results"])
    assert counts == [(1, 1), (2, 3)]
    assert {row["listing"] for row in usage["results"]} == {sale.listing.slug}
    text = one.get("/api/v1/usage.csv")
    assert text["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text.content.decode())))
    assert sum(int(row["price_micro"]) for row in rows) == 4 * PRICE
    later = {"since": (now() + timedelta(days=1)).isoformat()}
    assert one.get("/api/v1/usage/", later).json()["results"] == []
    assert one.get("/api/v1/usage/", {"since": "yesterday"}).status_code == 400
    sale.buyer = sale.backer
    assert client_with(sale).get("/api/v1/usage/").json()["results"] == []
