"""Paid queries on real nodes: hold → run → post or void, and never twice."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import replace

import numpy as np
import pytest
from django.db import close_old_connections
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.compute.models import JobState, Receipt
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.listings import running, services
from apps.listings.models import Query
from apps.protocol import tickets, wire
from apps.wallets.models import Account, Transfer
from tests.support.market import PRICE, drain, drain_until

ROWS = [[0.5, -1.0], [2.0, 0.25]]


def balance(market, purpose: str = "main") -> tuple[int, int]:
    row = Account.objects.get(owner=market.buyer.party, asset__code="USDC", purpose=purpose)
    return row.posted_micro, row.held_micro


def client_of(market) -> APIClient:
    user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
    _, key = api_key_create(user=user, party=market.buyer.party, label="test")
    return APIClient(headers={"Authorization": f"Bearer {key}"})


def charges(query_id: object) -> list[str]:
    rows = Transfer.objects.filter(ref_id=str(query_id)).order_by("created_at", "phase")
    return sorted(row.phase for row in rows)


def test_a_query_is_held_then_answered_and_paid(sale) -> None:
    sale.fund()
    upload = sale.row(sale.listing, ROWS)
    query = sale.ask(sale.listing, upload)
    assert balance(sale) == (10_000_000, 2 * PRICE)
    drain()
    query.refresh_from_db()
    assert query.state == "settled", query.reason
    assert balance(sale) == (10_000_000 - 2 * PRICE, 0)
    assert query.upload is None and query.job.state == JobState.DONE
    assert Receipt.objects.filter(job=query.job).count() == 3
    logits = sale.open(query, upload)
    assert np.abs(logits - sale.oracle(sale.held, ROWS)).max() < 0.01
    assert [entry["state"] for entry in query.timeline] == ["held", "running", "settled"]


def test_the_api_replays_the_same_key_and_refuses_another_body(sale) -> None:
    sale.fund()
    client = client_of(sale)
    url = f"/api/v1/listings/{sale.listing.slug}/inferences"  # with its slash and without
    upload = {"input": sale.row(sale.listing, ROWS[:1])}
    assert client.post(url, upload).status_code == 400
    headers = {"Idempotency-Key": "k1"}
    first = client.post(url, upload, headers=headers)
    assert first.status_code == 202, first.json()
    mine = first.headers["Location"]
    again = client.post(url, upload, headers=headers)
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    other = client.post(url, {"input": sale.row(sale.listing, ROWS[:1])}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    same_share = client.post(url, upload, headers={"Idempotency-Key": "k2"})
    assert (same_share.status_code, same_share.json()["code"]) == (409, "share_id_taken")
    assert Query.objects.count() == 1 and balance(sale) == (10_000_000, PRICE)
    drain()
    answer = client.get(mine).json()
    assert answer["state"] == "settled" and len(answer["sealed"]) == 3
    assert len(answer["job"]["receipts"]) == 3
    ended = client.post(url, upload, headers=headers)
    assert (ended.status_code, ended.json()) == (200, answer)
    listed = client.get("/api/v1/inferences/", {"state": "settled"}).json()["results"]
    assert [row["id"] for row in listed] == [answer["id"]]
    assert client.get("/api/v1/inferences/", {"listing": "another"}).json()["results"] == []
    assert client.get("/api/v1/inferences/", {"state": "?"}).status_code == 400
    assert APIClient().get(mine).status_code == 401
    sale.buyer = sale.backer
    assert client_of(sale).get(mine).status_code == 404


def test_a_poor_buyer_is_told_to_top_up_and_nothing_is_written(sale) -> None:
    client = client_of(sale)
    sale.fund(PRICE - 1)
    answer = client.post(
        f"/api/v1/listings/{sale.listing.slug}/inferences/",
        {"input": sale.row(sale.listing, ROWS[:1])},
        headers={"Idempotency-Key": "k"},
    )
    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_balance")
    assert "op up" in answer.json()["detail"]
    facts = {name: answer.json()[name] for name in ("short_micro", "asset", "top_up")}
    assert facts == {"short_micro": "1", "asset": "USDC", "top_up": "/wallet/"}
    assert not Query.objects.exists() and balance(sale) == (PRICE - 1, 0)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"price_micro": "1"}, "price_micro"),
        ({"model": "ab" * 32}, "model"),
        ({"circuits_hash": "ab" * 32}, "circuits_hash"),
        ({"params": {"rows": 7}}, "params"),
        ({"params": {"rows": True}}, "params"),
        ({"params": {"normalisation": "ab" * 32}}, "normalisation"),
        ({"params": {"normalisation": None}}, "normalisation"),
    ],
)
def test_a_ticket_that_differs_is_refused_by_name(sale, changes, field) -> None:
    sale.fund()
    if "params" in changes:
        wanted = sale.row(sale.listing, ROWS[:1])["ticket"]["params"] | changes["params"]
        changes = {"params": {name: value for name, value in wanted.items() if value is not None}}
    with pytest.raises(DomainError) as refused:
        sale.ask(sale.listing, sale.row(sale.listing, ROWS[:1], **changes))
    assert refused.value.code == "ticket_mismatch" and field in refused.value.text
    assert balance(sale) == (10_000_000, 0)


def test_a_buyer_may_demand_verified_mode_where_a_model_is_asked_so(sale) -> None:
    upload = sale.row(sale.listing, ROWS[:1])
    signed = tickets.check_upload(upload, now=upload["ticket"]["issued_at"])
    demanding, held = replace(signed, engine=tickets.VERIFIED), sale.listing.version.round
    with pytest.raises(DomainError, match="engine"):
        services._compare(demanding, sale.listing, PRICE)
    held.engine = tickets.VERIFIED  # not saved
    for ticket in (demanding, signed):
        services._compare(ticket, sale.listing, PRICE)


def test_a_forged_ticket_is_refused(sale) -> None:
    sale.fund()
    upload = sale.row(sale.listing, ROWS[:1])
    upload["ticket"]["reply_key"] = "cd" * 32
    with pytest.raises(DomainError) as refused:
        sale.ask(sale.listing, upload)
    assert refused.value.code == "bad_signature"
    assert not Query.objects.exists()


def test_an_altered_commitment_is_refused_by_the_nodes_and_costs_nothing(sale) -> None:
    """Signed by its owner, so the site must take it; the holders of a word check it."""
    sale.fund()
    upload = sale.row(sale.listing, ROWS[:1])
    ticket = upload["ticket"] | {"commitment": ["00" * 32] * 3}
    upload |= {
        "ticket": ticket,
        "signature": wire.sign(sale.buyer.key, tickets.TICKET_DOMAIN, ticket),
    }
    query = sale.ask(sale.listing, upload)
    drain()
    query.refresh_from_db()
    assert query.state == "released" and query.reason
    assert balance(sale) == (10_000_000, 0)
    assert charges(query.id) == ["pend", "void"]


def test_one_share_posted_at_once_under_many_keys_is_one_query(sale) -> None:
    sale.fund()
    upload = sale.row(sale.listing, ROWS[:1])
    url = f"/api/v1/listings/{sale.listing.slug}/inferences/"
    clients = [client_of(sale) for _ in range(4)]
    answers, barrier = [], threading.Barrier(len(clients))

    def post(client: APIClient, key: str) -> None:
        try:
            barrier.wait(timeout=60)
            answer = client.post(url, {"input": upload}, headers={"Idempotency-Key": key})
            answers.append((answer.status_code, answer.json().get("code")))
        finally:
            close_old_connections()

    threads = [threading.Thread(target=post, args=(c, f"k{i}")) for i, c in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers, key=str) == [(202, None), *[(409, "share_id_taken")] * 3]
    assert Query.objects.count() == 1 and balance(sale) == (10_000_000, PRICE)


def test_two_workers_run_one_query_once(sale) -> None:
    sale.fund()
    query = sale.ask(sale.listing, sale.row(sale.listing, ROWS[:1]))
    results: list[bool] = []

    def work() -> None:
        try:
            results.append(running.query_run(query_id=query.id))
        finally:
            close_old_connections()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    query.refresh_from_db()
    assert sorted(results) == [False, False, False, True]
    assert query.state == "settled" and query.job.attempt == 1
    assert charges(query.id) == ["pend", "post"]


def test_a_worker_that_died_is_followed_up_and_the_buyer_pays_once(sale) -> None:
    """The nodes answered, the worker died before it wrote: the lease runs out, the answer stays."""
    sale.fund()
    query = sale.ask(sale.listing, sale.row(sale.listing, ROWS[:1]))
    (claimed,) = running._claim_all([query.id])
    running.compute.job_dispatch(
        claimed.job, ticket_ids=[claimed.ticket_id], uploads=[json.loads(bytes(claimed.upload))]
    )
    assert running.query_run(query_id=query.id) is False  # somebody has it
    claimed.job.lease_until = now()
    claimed.job.save(update_fields=["lease_until"])
    drain()
    query.refresh_from_db()
    assert query.state == "settled", (query.reason, query.job.reason)
    assert charges(query.id) == ["pend", "post"]
    assert balance(sale) == (10_000_000 - PRICE, 0)


def test_a_node_killed_during_a_query_costs_a_retry_and_no_second_charge(mortal_sale) -> None:
    mortal_sale.fund()
    for moment_s in (0.0, 0.01, 0.03):
        upload = mortal_sale.row(mortal_sale.listing, ROWS)
        query = mortal_sale.ask(mortal_sale.listing, upload)
        worker = threading.Thread(target=_run_and_close, args=(query.id,))
        worker.start()
        threading.Event().wait(moment_s)
        mortal_sale.nodes.kill(2)
        worker.join()
        _, held = balance(mortal_sale)
        query.refresh_from_db()
        assert held == (0 if query.state == "settled" else 2 * PRICE)
        mortal_sale.nodes.start(2)
        drain_until(lambda query=query: _ended(query))
        assert query.state in ("settled", "released"), query.reason
        assert charges(query.id) in (["pend", "post"], ["pend", "void"])
        if query.state == "settled":
            logits = mortal_sale.open(query, upload)
            assert np.abs(logits - mortal_sale.oracle(mortal_sale.held, ROWS)).max() < 0.01
    paid = Query.objects.filter(state="settled").count() * 2 * PRICE
    assert balance(mortal_sale) == (10_000_000 - paid, 0)
    assert paid, "every query was released"


def test_while_a_node_is_away_the_hold_waits_and_then_is_freed(mortal_sale) -> None:
    mortal_sale.fund()
    query = mortal_sale.ask(mortal_sale.listing, mortal_sale.row(mortal_sale.listing, ROWS))
    mortal_sale.nodes.kill(1)
    drain()
    query.refresh_from_db()
    assert query.ended_at is None and query.job.attempt == 1
    assert balance(mortal_sale)[1] == 2 * PRICE
    assert running.queries_expire(now=query.expires_at) == 1
    query.refresh_from_db()
    assert query.state == "released" and "expired" in query.reason
    assert balance(mortal_sale) == (10_000_000, 0)
    mortal_sale.nodes.start(1)


def _run_and_close(query_id: object) -> None:
    try:
        running.query_run(query_id=query_id)
    finally:
        close_old_connections()


def _ended(query: Query) -> bool:
    query.refresh_from_db()
    return query.state in ("settled", "released")
