"""An invoice says to the micro-unit what a month's answers cost, and says it again the same."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.services import sign_up
from apps.core.clock import now
from apps.core.months import month_of
from apps.core.transactions import durable
from apps.listings import running
from apps.listings.models import Query
from apps.listings.services import query_create
from apps.wallets.services import faucet
from tests.support.shelf import PRICE, Shelf


@pytest.fixture
def shelf(transactional_db):
    return Shelf()


def test_an_invoice_is_what_was_paid_in_its_month(shelf) -> None:
    user, buyer = sign_up(
        email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
    )
    faucet(party=buyer, asset="USDC", amount_micro=20 * PRICE)
    shelf.dao.name = "=HYPERLINK(0)"
    shelf.dao.save(update_fields=["name"])
    asked = [
        query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(rows), now=now())
        for rows in (1, 3)
    ]
    claimed = running._claim_all([query.id for query in asked])
    running._settle([(query, shelf.outcome(query)) for query in claimed])
    last = month_of(month_of(now())[0] - timedelta(seconds=1))[0]
    Query.objects.update(ended_at=last)
    query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
    page = Client()
    page.force_login(user)

    url = f"/api/v1/invoices/{last:%Y-%m}/"
    with CaptureQueriesContext(connection) as queries:
        made = page.get(url).json()
    [paid] = [q["sql"] for q in queries if '"wallets_transfer"' in q["sql"]]
    with durable(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # there are few rows here
        cursor.execute(f"EXPLAIN {paid}")
        way = str(cursor.fetchall())
    # By the two accounts, which are indexed; what few rows deserve is the planner's choice.
    assert '"debit_id" = ' in paid and '"credit_id" = ' in paid
    assert "Seq Scan on wallets_transfer" not in way
    assert made == page.get(url).json()
    assert made["total_micro"] == str(4 * PRICE)
    assert made["number"] == f"{buyer.pid[:8].upper()}-{last:%Y%m}"
    [line] = made["lines"]
    assert (line["seller_pid"], line["rows"]) == (shelf.dao.party.pid, 4)
    text = page.get(url.rstrip("/") + ".csv")
    assert text["Content-Disposition"].endswith(f'{made["number"]}.csv"')
    [row] = csv.DictReader(io.StringIO(text.content.decode()))
    assert row["seller"] == f"'{shelf.dao.name}"
    assert (row["number"], row["amount_micro"]) == (made["number"], str(4 * PRICE))

    address = reverse("explorer:invoice", args=[last])
    page.post(address, {"billing": "Ada & Co\n1 Road"})
    shown = page.get(address).content.decode()
    assert "Ada &amp; Co<br>1 Road" in shown and made["number"] in shown
    assert page.get(url).json()["billing"] == "Ada & Co\n1 Road"
    usage = page.get(reverse("explorer:usage") + f"?month={last:%Y-%m}").content.decode()
    assert address in usage

    this = f"{now():%Y-%m}"
    assert page.get(f"/api/v1/invoices/{this}/").json()["code"] == "month_not_over"
    assert page.get(reverse("explorer:invoice", args=[this])).status_code == 404
    assert page.get("/api/v1/invoices/2020-13/").status_code == 404
    assert Client().get(url).status_code == 401
