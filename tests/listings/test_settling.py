"""`listings_claim` and `listings_settle` on a model without nodes: all or none, once, by name."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.compute.models import Job, Receipt
from apps.core import transactions
from apps.core.clock import now
from apps.core.errors import Unprocessable
from apps.listings import running, waiting
from apps.listings.models import Query
from apps.listings.services import query_create
from apps.subdaos.models import Dao, Epoch
from apps.wallets import ledger
from apps.wallets.invariants import violations
from apps.wallets.models import Account, LogLeaf
from tests.support.shelf import PRICE, Shelf

FUNDS = 20 * PRICE


@pytest.fixture
def shelf(transactional_db):
    yield Shelf()
    assert {k: v for k, v in violations().items() if v} == {}


def balance_of(party, purpose: str = "main") -> tuple[int, int]:
    row = Account.objects.get(owner=party, asset__code="USDC", purpose=purpose)
    return row.posted_micro, row.held_micro


def test_a_bundle_costs_the_database_as_much_as_one(shelf, monkeypatch) -> None:
    claimed: dict[str, running.Claimed] = {}
    claim = running._claim_all

    def claimed_too(ids):
        found = claim(ids)
        claimed.update({query.job.job_id: query for query in found})
        return found

    def answer(asked):
        return [shelf.outcome(claimed[job.job_id]) for job, _, _ in asked]

    monkeypatch.setattr(running, "_claim_all", claimed_too)
    monkeypatch.setattr(running.compute, "jobs_dispatch", answer)
    asked, buyer, version_id = [], shelf.buyer(FUNDS), shelf.listing.version_id
    for count in (1, 1, 8):  # the first reads the epoch
        for _ in range(count):
            query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
        with CaptureQueriesContext(connection) as statements:
            assert running.queries_run(version_id=version_id) == count
        asked.append(len(statements))
    assert asked[1] == asked[2] == 2
    assert Query.objects.filter(state="settled").count() == 10


def test_a_worker_that_is_free_claims_what_was_held_just_now_and_then_whatever_waits(
    shelf, monkeypatch
) -> None:
    bundles, served = [], threading.Event()
    run = running._run

    def run_too(ids):
        bundles.append([str(id_) for id_ in ids])
        count = run(ids)
        if len(bundles) == 3:
            served.set()
        return count

    def away(asked):
        raise running.control.Final("bad_answer", "made up")

    monkeypatch.setattr(running, "_run", run_too)
    monkeypatch.setattr(running.compute, "jobs_dispatch", away)
    buyer = shelf.buyer(FUNDS)
    waits = query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
    listener = running.listen()
    try:
        fresh = query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
        assert served.wait(60)
    finally:
        listener.close()
    assert bundles == [[str(fresh.id)], [str(waits.id)], []]


def test_an_epoch_that_is_over_is_ended_before_the_next_payment(shelf) -> None:
    buyer, answered = shelf.buyer(FUNDS), []
    for _ in range(2):
        held = query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
        (claimed,) = running._claim_all([held.id])
        answered.append((claimed, shelf.outcome(claimed)))
    running._settle(answered[:1])
    ended = now() - timedelta(seconds=1)
    Epoch.objects.update(starts_at=ended - timedelta(hours=1), ends_at=ended)
    running._settle(answered[1:])
    first, second = (Query.objects.get(pk=query.id).epoch for query, _ in answered)
    assert (first.number, second.number) == (1, 2)
    assert first.closed_at is not None and second.closed_at is None


class Forgetful(dict):  # type: ignore[type-arg]
    """Epochs of which another thread forgets each as soon as this one has seen that it is there."""

    def __contains__(self, dao_id: object) -> bool:
        return self.pop(dao_id, None) is not None


def test_an_epoch_that_another_thread_forgets_meanwhile_is_read_again(shelf, monkeypatch) -> None:
    """A bundle whose settlement failed here waited for its lease: 35 s."""
    monkeypatch.setattr(running, "_epochs", Forgetful())
    begun = running._epoch(shelf.dao.id, now())
    assert running._epoch(shelf.dao.id, now()) == begun


def test_what_another_worker_took_meanwhile_is_left_to_it(shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    ids = [
        query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now()).id
        for _ in range(2)
    ]
    mine = running._claim_all(ids)
    Job.objects.filter(pk=mine[0].job.pk).update(lease_until=now())
    (theirs,) = running._claim_all(ids)
    assert theirs.job.attempt == 2
    lost = replace(mine[0], id=uuid.uuid4())  # one that the database does not have
    running._settle([(query, shelf.outcome(query)) for query in (*mine, lost)])
    assert [Query.objects.get(pk=query.id).state for query in mine] == ["running", "settled"]
    assert Receipt.objects.count() == 3
    running._settle([(theirs, shelf.outcome(theirs))])
    assert balance_of(buyer) == (FUNDS - 2 * PRICE, 0)


def test_a_hold_that_was_voided_meanwhile_is_not_charged(shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    held = query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
    (claimed,) = running._claim_all([held.id])
    with transaction.atomic():
        ledger.void_pending(claimed.hold_id, now=now())
    running._settle([(claimed, shelf.outcome(claimed))])
    assert Query.objects.get().state == "released"
    assert balance_of(buyer) == (FUNDS, 0)


def test_by_a_wrong_clock_nothing_is_held_claimed_or_charged(shelf, monkeypatch) -> None:
    buyer = shelf.buyer(FUNDS)

    def ask() -> Query:
        return query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())

    waits, (claimed,) = ask(), running._claim_all([ask().id])
    running._epoch(claimed.dao_id, now())
    paid = [(claimed, shelf.outcome(claimed))]
    leaves, real = LogLeaf.objects.count(), time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(transactions.time, "time", lambda: real() + 60)
        for act in (ask, lambda: running._claim_all([waits.id]), lambda: running._settle(paid)):
            wrong.setattr(transactions, "_seen_until", 0.0)
            with pytest.raises(transactions.ClockWrong):
                act()
    assert LogLeaf.objects.count() == leaves
    assert set(Query.objects.values_list("state", flat=True)) == {"held", "running"}


def test_who_waited_for_a_query_that_was_lost_is_told_to_ask_again(shelf, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "_wait", lambda ended, wait_s: None)
    try:
        with pytest.raises(waiting.QueryLost) as lost:
            waiting.made_and_ended_within(shelf.buyer(), lambda new_id: new_id, 1)
    finally:
        waiting.waiters.close()
    assert (lost.value.status, lost.value.args_) == (503, {"retry_after_s": 1})


def test_what_the_nodes_took_before_the_ticket_expired_is_paid_and_what_might_expire_is_left(
    shelf,
) -> None:
    """Rows of the day were counted at the nodes, and the hold was gone when the answer came."""
    buyer = shelf.buyer(FUNDS)
    taken, late = (
        query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
        for _ in range(2)
    )
    end = taken.expires_at
    with pytest.MonkeyPatch.context() as then:
        then.setattr(running, "clock_now", lambda: end - timedelta(seconds=6))
        (claimed,) = running._claim_all([taken.id])
        then.setattr(running, "clock_now", lambda: end - timedelta(seconds=4))
        assert running._claim_all([late.id]) == []
        assert running._next_bundle(shelf.listing.version_id) == []
        lease_until = Job.objects.get(pk=claimed.job.pk).lease_until
        then.setattr(running, "clock_now", lambda: lease_until)
        running._settle([(claimed, shelf.outcome(claimed))])
    assert running.queries_expire(now=late.expires_at) == 1
    states = [Query.objects.get(pk=query.id).state for query in (taken, late)]
    assert states == ["settled", "released"]
    assert balance_of(buyer) == (FUNDS - PRICE, 0)


def test_a_ticket_that_was_signed_long_ago_must_live_as_long_as_its_rows_may_take(shelf) -> None:
    whole = {**shelf.dao.params, "portion_bps": 10_000}  # all of the day's rows to one buyer
    Dao.objects.filter(pk=shelf.dao.pk).update(params=whole)
    buyer, at = shelf.buyer(20_000 * PRICE), int(now().timestamp())
    for rows, left_s in ((1, 14), (2_000, 22)):
        upload = shelf.upload(rows, issued_at=at - 600, expires_at=at + left_s)
        with pytest.raises(Unprocessable) as refused:
            query_create(slug=shelf.dao.slug, buyer=buyer, upload=upload, now=now())
        assert refused.value.code == "expired"
    assert balance_of(buyer) == (20_000 * PRICE, 0)
