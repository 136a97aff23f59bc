"""The shape of the paid API: waiting, cancelling, quotes, rates, and nodes that are away."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import pytest
from django.db import close_old_connections

from apps.compute.models import JobState
from apps.core.clock import now
from apps.core.prefer import preferred_wait_s
from apps.listings import running, services, waiting
from apps.listings.models import Query
from apps.notify.models import Delivery, Endpoint
from apps.subdaos.models import Dao
from apps.wallets.models import Hold
from tests.listings.test_queries import ROWS, balance, charges, client_of
from tests.support.market import PRICE, drain
from tests.support.shelf import Shelf


def inferences(market) -> str:
    return f"/api/v1/listings/{market.listing.slug}/inferences/"


def buy(market, client, key="k", rows=1, **more):
    body = {"input": market.row(market.listing, ROWS[:rows], **more.pop("ticket", {}))}
    headers = {"Idempotency-Key": key} | more.pop("headers", {})
    return client.post(inferences(market), body | more, headers=headers)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=3", 3),
        ("respond-async, wait=3", 3),
        ('WAIT="7"', 7),
        ("wait=999", 20),
        ("wait=", 0),
        ("wait=-1", 0),
        ("await=5", 0),
        ("", 0),
    ],
)
def test_a_preference_to_wait_is_read_as_rfc_7240_has_it(header, seconds) -> None:
    request = type("Request", (), {"headers": {"Prefer": header}})
    assert preferred_wait_s(request) == seconds


def test_who_would_rather_wait_gets_the_answer_in_the_same_request(sale) -> None:
    sale.fund()

    def work() -> None:
        try:
            while not Query.objects.exists():
                threading.Event().wait(0.01)
            drain()
        finally:
            close_old_connections()

    worker = threading.Thread(target=work)
    worker.start()
    answer = buy(sale, client_of(sale), headers={"Prefer": "wait=20"})
    worker.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "settled")
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert len(answer.json()["sealed"]) == 3 and len(answer.json()["job"]["receipts"]) == 3
    assert balance(sale) == (10_000_000 - PRICE, 0)


def test_no_party_waits_in_all_threads(transactional_db, monkeypatch) -> None:
    """Who finds no seat is answered at once; one that gets up leaves it to the next."""
    monkeypatch.setattr(waiting, "PARTY_SEATS_MAX", 2)
    monkeypatch.setattr(waiting, "SEATS_MAX", 3)
    shelf = Shelf()
    one, other = shelf.buyer(10_000_000), shelf.buyer()
    seated = waiting.waiters.seated
    with seated(one, 5) as first, seated(one, 5) as second:
        body = {"input": shelf.upload()}
        headers = {"Idempotency-Key": "k", "Prefer": "wait=20"}
        client = client_of(SimpleNamespace(buyer=SimpleNamespace(party=one)))
        url = f"/api/v1/listings/{shelf.dao.slug}/inferences/"
        answer = client.post(url, body, headers=headers)
        assert answer.status_code == 202 and "Preference-Applied" not in answer.headers
        again = client.get(answer.headers["Location"], headers=headers)
        assert again.json()["state"] == "held" and "Preference-Applied" not in again.headers
        with seated(other, 5) as third, seated(other, 5) as fourth, seated(one, 0) as none:
            assert (first, second, third, fourth, none) == (5, 5, 5, 0, 0)
    with seated(one, 5) as free:
        assert free == 5
    assert not waiting.waiters._seats


def test_a_queued_inference_can_be_cancelled_and_costs_nothing(sale) -> None:
    sale.fund()
    client = client_of(sale)
    made = buy(sale, client)
    cancel = made.headers["Location"] + "cancel/"
    for _ in range(2):
        answer = client.post(cancel)
        assert (answer.status_code, answer.json()["state"]) == (200, "released")
    assert answer.json()["reason"] == running.CANCELLED
    assert balance(sale) == (10_000_000, 0)
    assert charges(made.json()["id"]) == ["pend", "void"]
    drain()
    query = Query.objects.get()
    assert (query.state, query.job.state, query.job.attempt) == ("released", JobState.FAILED, 0)


def test_what_the_nodes_have_begun_is_not_cancelled(sale) -> None:
    sale.fund()
    client = client_of(sale)
    made = buy(sale, client)
    running._claim_all([made.json()["id"]])
    answer = client.post(made.headers["Location"] + "cancel/")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_running")
    assert balance(sale) == (10_000_000, PRICE)
    Query.objects.get().job.__class__.objects.update(lease_until=now())
    drain()
    settled = client.post(made.headers["Location"] + "cancel/")
    assert (settled.status_code, settled.json()["code"]) == (409, "already_running")
    assert balance(sale) == (10_000_000 - PRICE, 0)


def test_more_rows_than_nodes_answer_are_neither_quoted_nor_sold(sale, settings) -> None:
    settings.ROWS_PER_QUERY = 1
    client = client_of(sale)
    listing = f"/api/v1/listings/{sale.listing.slug}/"
    assert client.get(listing).json()["rows_per_query"] == 1
    assert client.post(f"{listing}quote/", {"rows": 1}).status_code == 200
    refused = client.post(f"{listing}quote/", {"rows": 2})
    assert (refused.status_code, refused.json()["code"]) == (422, "too_many_rows")
    asked = buy(sale, client, rows=2)
    assert (asked.status_code, asked.json()["code"]) == (422, "too_many_rows")
    assert not Query.objects.exists() and not Hold.objects.exists()


def test_a_quoted_price_holds_and_another_is_refused(sale) -> None:
    sale.fund()
    client = client_of(sale)
    url = f"/api/v1/listings/{sale.listing.slug}/quote/"
    quote = client.post(url, {"rows": 2}).json()
    assert (quote["price_micro"], quote["short_micro"]) == (str(2 * PRICE), "0")
    assert quote["available_micro"] == "10000000"
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    dao.params["price_micro"] = str(3 * PRICE)
    dao.save()
    dear = buy(sale, client, rows=2, max_price_micro=str(2 * PRICE))
    assert (dear.status_code, dear.json()["code"]) == (409, "price_changed")
    assert dear.json()["price_micro"] == str(6 * PRICE)
    other = buy(sale, client, rows=1, quote=quote["quote"])
    assert (other.status_code, other.json()["code"]) == (422, "bad_quote")
    forged = buy(sale, client, rows=2, quote=quote["quote"] + "x")
    assert (forged.status_code, forged.json()["code"]) == (422, "bad_quote")
    assert balance(sale) == (10_000_000, 0)
    held = buy(sale, client, rows=2, quote=quote["quote"])
    assert held.status_code == 202, held.json()
    assert balance(sale) == (10_000_000, 2 * PRICE)


def test_a_quote_ends(sale, monkeypatch) -> None:
    sale.fund()
    client = client_of(sale)
    monkeypatch.setattr("apps.listings.quoting.QUOTE_LIFE", now() - now())
    quote = client.post(f"/api/v1/listings/{sale.listing.slug}/quote/", {"rows": 1}).json()
    late = buy(sale, client, quote=quote["quote"])
    assert (late.status_code, late.json()["code"]) == (409, "quote_expired")


def test_a_buyer_with_too_many_waiting_is_told_to_come_again(sale, monkeypatch) -> None:
    sale.fund()
    monkeypatch.setattr(services, "WAITING_MAX", 1)
    client = client_of(sale)
    assert buy(sale, client, "a").status_code == 202
    full = buy(sale, client, "b")
    assert (full.status_code, full.json()["code"]) == (429, "too_many_waiting")
    assert full.headers["Retry-After"] == "1"
    assert balance(sale) == (10_000_000, PRICE)
    quotas = client.get("/api/v1/quotas/").json()
    # how many of the three are of this minute is the clock's business
    assert quotas["waiting"] == 1 and 1 <= quotas["requests"]["used"] <= 3


def test_while_a_node_is_away_new_questions_are_told_so_and_nothing_is_held(
    mortal_sale,
) -> None:
    mortal_sale.fund()
    client = client_of(mortal_sale)
    mortal_sale.nodes.kill(1)
    body, again = (
        {"input": mortal_sale.row(mortal_sale.listing, ROWS[:1])},
        {"Idempotency-Key": "a"},
    )
    first = client.post(inferences(mortal_sale), body, headers=again)
    assert first.status_code == 202  # nobody knows yet
    assert running.query_run(query_id=first.json()["id"]) is False
    short = buy(mortal_sale, client, "b")
    assert (short.status_code, short.json()["code"]) == (503, "nodes_short")
    assert short.headers["Retry-After"] == "2" and mortal_sale.nodes.descriptors[1]["name"] in str(
        short.json()["detail"]
    )
    retried = client.post(inferences(mortal_sale), body, headers=again)
    assert (retried.status_code, retried.json()["id"]) == (202, first.json()["id"])
    assert balance(mortal_sale) == (10_000_000, PRICE)
    mortal_sale.nodes.start(1)
    assert buy(mortal_sale, client, "b").status_code == 202
    drain()


def test_the_buyers_webhook_is_told_once_and_learns_ids_only(sale) -> None:
    sale.fund()
    Endpoint.objects.create(
        party=sale.buyer.party, url="https://hook.example/", events=["inference.settled"]
    )
    upload = sale.row(sale.listing, ROWS[:1])
    query = sale.ask(sale.listing, upload)
    drain()
    call = Delivery.objects.get()
    data = json.loads(call.body)["data"]
    assert (data["id"], data["state"], data["price_micro"]) == (
        str(query.id),
        "settled",
        str(PRICE),
    )
    assert set(data) == {"id", "state", "listing", "rows", "price_micro", "reason"}
