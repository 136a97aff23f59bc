"""One request of 10 000 rows: one price, one hold, one answer, whole or not at all."""

from __future__ import annotations

import json
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from django.db import close_old_connections, connection
from django.test.utils import CaptureQueriesContext

from apps.compute.models import Receipt
from apps.listings import running
from apps.listings.models import Query
from apps.listings.pricing import rows_max
from apps.notify.models import Delivery, Endpoint
from apps.protocol.circuits.family import QUERY_ROWS_MAX, query_rows_max
from apps.protocol.tickets import MAX_VALUES, correction_bytes_of
from apps.subdaos.models import Dao
from apps.wallets.models import Hold, LogLeaf
from tests.listings.test_queries import balance, charges, client_of
from tests.support.market import PRICE, drain, drain_until

MANY = QUERY_ROWS_MAX
FUNDS = 2 * MANY * PRICE
ROWS = np.sin(np.arange(2 * MANY) * 0.7).reshape(MANY, 2) * 3
TIERS = [{"from_rows": 1_000, "off_bps": 2_000}]


@pytest.fixture(autouse=True)
def allowed(settings):
    """What the nodes of these tests answer an epoch."""
    settings.ROWS_PER_EPOCH = 1_000_000


def inferences(market) -> str:
    return f"/api/v1/listings/{market.listing.slug}/inferences/"


def right(market, query: Query, upload) -> bool:
    logits = market.open(query, upload)
    return logits.shape == (MANY,) and bool(
        np.abs(logits - market.oracle(market.held, ROWS)).max() < 0.01
    )


def test_ten_thousand_rows_are_quoted_held_answered_and_paid_as_one(sale) -> None:
    """The tier is that of the whole; the same key again is the same inference."""
    sale.fund(FUNDS)
    dao = Dao.objects.get(pk=sale.listing.dao_id)
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "tiers": TIERS})
    client = client_of(sale)
    hook = {"url": "https://hook.example/", "events": ["inference.settled"]}
    Endpoint.objects.create(party=sale.buyer.party, **hook)
    quote = client.post(inferences(sale).replace("inferences", "quote"), {"rows": MANY}).json()
    price = 1_000 * PRICE + (MANY - 1_000) * PRICE * 8 // 10
    assert int(quote["price_micro"]) == price
    upload = sale.row(sale.listing, ROWS, price_micro=str(price))
    body = {"input": upload, "max_price_micro": str(price), "quote": quote["quote"]}
    key = {"Idempotency-Key": "whole"}
    made = client.post(inferences(sale), body, headers=key)
    assert made.status_code == 202, made.json()
    assert client.post(inferences(sale), body, headers=key).json() == made.json()
    assert balance(sale) == (FUNDS, price) and Hold.objects.count() == 1

    drain()
    query = Query.objects.get()
    assert query.state == "settled", query.reason
    assert right(sale, query, upload)
    assert charges(query.id) == ["pend", "post"] and balance(sale) == (FUNDS - price, 0)
    receipts = Receipt.objects.filter(job=query.job)
    assert receipts.count() == 3 and query.job.attempt == 1
    leaves = [json.loads(bytes(leaf.data)) for leaf in LogLeaf.objects.order_by("id")]
    told = [leaf["type"] for leaf in leaves if leaf["body"].get("query") == str(query.id)]
    assert told == ["listings.query_held", "listings.query_settled"]
    (delivery,) = Delivery.objects.all()
    assert json.loads(delivery.body)["data"]["rows"] == MANY
    answer = client.get(made.headers["Location"]).json()
    assert (answer["rows"], len(answer["sealed"]), len(answer["job"]["receipts"])) == (MANY, 3, 3)
    with CaptureQueriesContext(connection) as statements:
        page = client.get("/api/v1/inferences/")
    [listed] = page.json()["results"]
    assert listed["sealed"] is None and listed["id"] == answer["id"] and len(page.content) < 10_000
    assert not [one for one in statements if '"outputs"' in one["sql"] or '"upload"' in one["sql"]]


def test_it_can_be_cancelled_while_it_waits_and_costs_nothing(sale) -> None:
    sale.fund(FUNDS)
    client = client_of(sale)
    body = {"input": sale.row(sale.listing, ROWS)}
    made = client.post(inferences(sale), body, headers={"Idempotency-Key": "k"})
    assert client.post(made.headers["Location"] + "cancel/").json()["state"] == "released"
    assert balance(sale) == (FUNDS, 0) and charges(made.json()["id"]) == ["pend", "void"]


def test_a_node_killed_in_the_middle_costs_a_retry_and_one_charge_at_most(
    mortal_sale, monkeypatch
) -> None:
    """Nothing of an attempt that broke off is answered or charged; the next gives all of it. The
    node that will be killed stands still from before its words are sent: the others wait for it.
    """
    sale, dispatch = mortal_sale, running.compute.jobs_dispatch

    def dispatch_once(asked):
        monkeypatch.setattr(running.compute, "jobs_dispatch", dispatch)
        sale.nodes.processes[2].send_signal(signal.SIGSTOP)
        return dispatch(asked)

    monkeypatch.setattr(running.compute, "jobs_dispatch", dispatch_once)
    sale.fund(FUNDS)
    upload = sale.row(sale.listing, ROWS)
    query = sale.ask(sale.listing, upload)

    def work() -> None:
        try:
            running.query_run(query_id=query.id)
        finally:
            close_old_connections()

    worker = threading.Thread(target=work)
    worker.start()
    sale.nodes.wait_for_state(1, query.job.job_id, "running")
    sale.nodes.kill(2)
    worker.join()
    query.refresh_from_db()
    assert (query.state, query.outputs) == ("running", None), query.reason
    assert balance(sale) == (FUNDS, MANY * PRICE)
    sale.nodes.start(2)
    drain_until(lambda: Query.objects.get(pk=query.pk).ended_at is not None)
    query.refresh_from_db()
    assert query.state == "settled" and query.job.attempt > 1
    assert charges(query.id) == ["pend", "post"] and right(sale, query, upload)
    assert balance(sale) == (FUNDS - MANY * PRICE, 0)


@pytest.mark.parametrize(
    ("per_query", "per_epoch", "most", "why"),
    [
        (10_000, 1_000_000, 10_000, "10000 rows of this model at most."),
        (10_000, 2_000, 1_000, "since one buyer gets 1000 in 1 day."),
        (100, 2_000, 100, "100 rows of this model at most."),
    ],
)
def test_more_rows_than_one_request_takes_are_refused_by_name(
    sale, settings, per_query, per_epoch, most, why
) -> None:
    settings.ROWS_PER_QUERY, settings.ROWS_PER_EPOCH = per_query, per_epoch
    client = client_of(sale)
    listing = inferences(sale).removesuffix("inferences/")
    assert client.get(listing).json()["rows_per_query"] == most
    any_model = client.get("/api/v1/quotas/").json()["rows_per_inference"]
    assert any_model == min(per_query, per_epoch)
    assert client.post(f"{listing}quote/", {"rows": most}).status_code == 200
    quoted = client.post(f"{listing}quote/", {"rows": most + 1})
    assert (
        quoted.status_code == (400 if most == MANY else 422)
        and str(most) in quoted.content.decode()
    )
    rows = np.zeros((most + 1, 2))
    body = {"input": sale.row(sale.listing, rows)}
    asked = client.post(inferences(sale), body, headers={"Idempotency-Key": "k"})
    assert (asked.status_code, asked.json()["code"]) == (422, "too_many_rows")
    assert why in asked.json()["detail"] and not Query.objects.exists()


def test_wide_rows_are_as_many_as_a_share_holds() -> None:
    assert query_rows_max(1) == query_rows_max(209) == MANY
    assert query_rows_max(210) == MAX_VALUES // 210 < MANY


def listing_of(held: SimpleNamespace) -> SimpleNamespace:
    dao = SimpleNamespace(params={"portion_bps": 10_000})
    return SimpleNamespace(version=SimpleNamespace(round=held), dao=dao)


def test_of_shamir_shares_fewer_are_asked_at_a_time() -> None:
    for engine, most in (("ring", MANY), ("ring_verified", MANY), ("shamir_t2", 1000)):
        held = SimpleNamespace(features=30, engine=engine, nodes=["aa"] * 5)
        assert rows_max(listing_of(held)) == most


@pytest.mark.parametrize(("nodes", "features"), [(5, 280), (7, 280), (7, 1000), (3, 700), (7, 201)])
def test_of_wide_rows_in_shamir_shares_an_upload_holds_as_many_as_are_said(nodes, features) -> None:
    """Each node's own shares are in it; one row more, where the bound is that, does not fit."""
    held = SimpleNamespace(features=features, engine="shamir_t2", nodes=["aa"] * nodes)
    most = rows_max(listing_of(held))
    room = correction_bytes_of("ring", nodes, MAX_VALUES)
    assert correction_bytes_of("shamir_t2", nodes, most * features) <= room
    more = correction_bytes_of("shamir_t2", nodes, (most + 1) * features)
    assert most == 1000 or more > room


def test_a_lane_is_left_while_one_of_many_rows_is_computed(sale, monkeypatch) -> None:
    """Two of 10 000 rows and one of a row are held; while the first large one is computed the row
    is answered, and the second waits for it."""
    sale.fund(2 * FUNDS)
    uploads = [sale.row(sale.listing, rows) for rows in (ROWS, ROWS, ROWS[:1])]
    run, served, inside, go = running._run, [], threading.Event(), threading.Event()
    small = None

    def run_too(ids):
        served.append(list(ids))
        if small not in ids and len(served) == 1:
            inside.set()
            assert go.wait(60)
        return run(ids)

    monkeypatch.setattr(running, "_run", run_too)
    version_id = sale.listing.version_id
    large = [sale.ask(sale.listing, upload).id for upload in uploads[:2]]

    def work() -> None:
        try:
            running.queries_run(version_id=version_id)
        finally:
            close_old_connections()

    worker = threading.Thread(target=work)
    worker.start()
    assert inside.wait(60)
    small = sale.ask(sale.listing, uploads[2]).id
    assert running.queries_run(version_id=version_id, first=str(small)) == 1
    states = dict(Query.objects.values_list("id", "state"))
    assert states == {large[0]: "held", large[1]: "held", small: "settled"}
    go.set()
    worker.join()
    assert set(Query.objects.values_list("state", flat=True)) == {"settled"}
    assert served == [[large[0]], [small], [], [large[1]], []]
