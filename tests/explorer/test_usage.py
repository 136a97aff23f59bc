"""The usage page: its sums are those of the payments, by day, model and key; it is the buyer's."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.selectors import keys_of
from apps.accounts.services import api_key_create
from apps.core import clock
from apps.listings.models import Listing, Query
from apps.listings.spending import month_of
from tests.explorer import world as worlds


def world_month() -> datetime:
    """When the month began in which the world's own query, of three minutes ago, was paid."""
    return month_of(clock.now() - timedelta(minutes=5))[0]


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


def test_the_page_sums_what_was_paid_by_day_model_and_key(built: worlds.World) -> None:
    start = world_month()
    before, _ = month_of(start - timedelta(seconds=1))
    _, key = api_key_create(user=built.buyer, party=built.party, label="night run")
    row = keys_of(built.party).first()
    for day, rows, by_key in ((0, 3, True), (0, 2, False), (4, 5, True)):
        query = worlds.query_of(built.listing, built.party, clock.now())
        Query.objects.filter(pk=query.pk).update(
            ended_at=before + timedelta(days=day, hours=1),
            rows=rows,
            price_micro=rows * 500_000,
            api_key=row if by_key else None,
        )
    client = Client()
    client.force_login(built.buyer)
    address = reverse("explorer:usage")
    page = client.get(f"{address}?month={before:%Y-%m}")
    context = page.context
    assert (context["total"].inferences, context["total"].rows) == (3, 10)
    assert context["total"].price_micro == 5_000_000
    assert [(line.slug, line.price_micro) for line in context["by_model"]] == [
        (built.listing.slug, 5_000_000)
    ]
    assert [(line.name, line.price_micro) for line in context["by_key"]] == [
        (f"{row.prefix}…", 4_000_000),
        ("in the browser", 1_000_000),
    ]
    days = [(line.name, line.price_micro) for line in context["days"]]
    assert days == [(f"{before:%Y-%m}-01", 2_500_000), (f"{before:%Y-%m}-05", 2_500_000)]
    text = page.content.decode()
    assert "Statement" in text and built.dao.name in text and key not in text

    link = "/api/v1/usage.csv" + text.split('href="/api/v1/usage.csv')[1].split('"')[0]
    lines = client.get(link.replace("&amp;", "&")).content.decode().splitlines()
    assert sum(int(line.split(",")[-1]) for line in lines[1:]) == 5_000_000


def test_the_present_month_goes_to_today_and_nonsense_is_no_month(built: worlds.World) -> None:
    client = Client()
    client.force_login(built.buyer)
    address = reverse("explorer:usage")
    context = client.get(address).context
    assert context["start"] == month_of(clock.now())[0] and context["later"] == ""
    for odd in ("2026-13", "26-01", "x", "2026-1", "2026-01-01"):
        assert client.get(f"{address}?month={odd}").status_code == 404
    assert client.get(f"{address}?month=2099-12").status_code == 200
    assert Client().get(address).status_code == 302


def test_models_stand_on_pages_dearest_first_under_the_sum_of_all(
    built: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.explorer.usage.PAGE_SIZE", 1)
    worlds.grow(built, 1)
    dear, cheap = Listing.objects.order_by("-created_at")
    for listing, rows in ((dear, 3), (cheap, 1)):
        query = worlds.query_of(listing, built.party, clock.now())
        Query.objects.filter(pk=query.pk).update(rows=rows, price_micro=rows * 500_000)
    month = world_month()
    Query.objects.filter(state="settled").update(ended_at=month + timedelta(hours=1))
    client = Client()
    client.force_login(built.buyer)
    address, seen = reverse("explorer:usage"), []
    first = client.get(f"{address}?month={month:%Y-%m}").context
    assert not first["by_model"].newer
    more = f"{address}?month={month:%Y-%m}&{first['by_model'].older}"
    for context in (first, client.get(more).context):
        seen += [line.slug for line in context["by_model"]]
        assert context["total"].price_micro == sum(
            Query.objects.filter(buyer=built.party, state="settled").values_list(
                "price_micro", flat=True
            )
        )
    assert seen == [dear.slug, cheap.slug] and not context["by_model"].older
