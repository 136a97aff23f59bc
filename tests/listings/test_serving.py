"""Who is served next, how many lanes serve, and what a bundle costs its members."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.compute.models import Job, Receipt
from apps.core.clock import now
from apps.listings import running
from apps.listings.models import Query
from apps.listings.services import query_create
from apps.listings.serving import (
    BUNDLE_MAX,
    BUNDLE_ROWS_MAX,
    LARGE_ROWS,
    PATIENCE,
    Lanes,
    Turns,
    Waiting,
    pick,
)
from apps.wallets import ledger
from tests.listings.test_queries import ROWS, balance, charges
from tests.support.market import PRICE
from tests.support.shelf import Shelf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
queues = st.lists(
    st.builds(
        Waiting,
        query_id=st.uuids(),
        buyer_id=st.sampled_from("abcde"),
        rows=st.one_of(st.integers(1, 5), st.integers(1, 1000)),
        since=st.integers(0, 9_000).map(lambda ms: NOW - timedelta(milliseconds=ms)),
    ),
    max_size=150,
    unique_by=lambda q: q.query_id,
)


def ask(buyer: str, rows: int = 1, ms: int = 0) -> Waiting:
    return Waiting(uuid.uuid4(), buyer, rows, NOW - timedelta(milliseconds=ms))


@given(queues)
def test_a_bundle_is_never_empty_too_large_or_made_of_large_ones(waiting) -> None:
    chosen = pick(waiting, now=NOW)
    assert bool(chosen) == bool(waiting) and len({q.query_id for q in chosen}) == len(chosen)
    assert len(chosen) <= BUNDLE_MAX and sum(q.rows for q in chosen) <= BUNDLE_ROWS_MAX
    assert all(q.rows <= LARGE_ROWS for q in chosen) or len(chosen) == 1


@given(queues)
def test_everybody_is_served_in_the_end_and_the_patient_first(waiting) -> None:
    left = list(waiting)
    while left:
        chosen = pick(left, now=NOW)
        patient = sorted((q for q in left if NOW - q.since >= PATIENCE), key=lambda q: q.since)
        if patient:
            assert chosen[0] == patient[0]
        left = [q for q in left if q not in chosen]


@given(queues)
def test_a_buyer_with_many_questions_does_not_keep_another_from_the_bundle(waiting) -> None:
    fresh = [q for q in waiting if NOW - q.since < PATIENCE and q.rows <= 3]
    chosen = pick(fresh, now=NOW)
    assert {q.buyer_id for q in chosen} == {q.buyer_id for q in fresh}


def test_small_before_large_and_turn_by_turn() -> None:
    crowd = [ask("greedy", ms=100 - n) for n in range(100)]
    other, large = ask("modest"), ask("modest", rows=500, ms=200)
    chosen = pick([*crowd, large, other], now=NOW)
    assert other in chosen[:2] and large not in chosen and len(chosen) == BUNDLE_MAX
    assert pick([large], now=NOW) == [large]


def test_patience_is_no_way_past_the_others() -> None:
    """Who has filled the queue with large questions, each a bundle of its own, waits for its turn
    as everybody does; and a bundle of small ones has everybody's."""
    crowd = [ask("greedy", rows=500, ms=20_000 - n) for n in range(50)]
    others = [ask(buyer, rows=rows, ms=6_000) for buyer, rows in (("a", 1), ("b", 1), ("c", 900))]
    waiting, turns, seen = [*crowd, *others], Turns(), []
    for _ in range(4):
        chosen = turns.pick(waiting, now=NOW)
        waiting = [q for q in waiting if q not in chosen]
        seen.append("".join(q.buyer_id[0] for q in chosen))
    assert seen == ["g", "ab", "c", "g"]
    small = [ask("greedy", ms=20_000 - n) for n in range(BUNDLE_MAX)]
    assert {q.buyer_id for q in pick([*small, others[0]], now=NOW)} == {"greedy", "a"}


def test_one_buyers_queue_does_not_hide_the_others(transactional_db, monkeypatch) -> None:
    monkeypatch.setattr(running, "SEEN_MAX", 3)
    shelf = Shelf()
    greedy, modest = shelf.buyer(10 * PRICE), shelf.buyer(10 * PRICE)
    asked = [
        query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=now())
        for buyer in (greedy, greedy, greedy, greedy, modest)
    ]
    ids = [query.id for query in asked]
    assert set(running._next_bundle(shelf.listing.version_id)) == {ids[0], ids[1], ids[4]}


def test_who_finds_the_lanes_busy_is_served_by_them() -> None:
    """The second comes while the first works on the last thing that it saw."""
    lanes, todo, done = Lanes(limit=1), [1], []
    entered, go = threading.Event(), threading.Event()

    def step() -> int:
        if not todo:
            entered.set()
            go.wait(60)
            todo.extend(late)
            late.clear()
        if not todo:
            return 0
        done.append(todo.pop())
        return 1

    late = [2]
    worker = threading.Thread(target=lanes.serve, args=("m", step))
    worker.start()
    assert entered.wait(60)
    assert lanes.serve("m", step) == 0  # busy: it only leaves word
    go.set()
    worker.join(60)
    assert done == [1, 2]
    assert lanes.serve("m", step) == 0 and not worker.is_alive()


class Bundles:
    """What waits, taken all at once; the first bundle is under way until it may go."""

    def __init__(self, *todo: int) -> None:
        self.todo, self.done = list(todo), list[list[int]]()
        self.entered, self.go = threading.Event(), threading.Event()

    def step(self) -> int:
        taken, self.todo = self.todo, []
        if taken:
            self.done.append(taken)
            if len(self.done) == 1:
                self.entered.set()
                self.go.wait(10)
        return len(taken)


def test_what_comes_while_a_bundle_is_under_way_is_taken_together_after_it() -> None:
    lanes, bundles = Lanes(), Bundles(1)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lanes.serve, "m", bundles.step)
        assert bundles.entered.wait(10)
        bundles.todo.append(2)
        second = threads.submit(lanes.serve, "m", bundles.step, patience_s=10)
        until(lambda: lanes._lanes["m"].waited_for)
        bundles.todo.append(3)
        assert lanes.serve("m", bundles.step, patience_s=10) == 0  # the second waits for both
        bundles.go.set()
        assert (first.result(10), second.result(10)) == (3, 0)
    assert bundles.done == [[1], [2, 3]] and lanes.idle("m")


def test_what_would_wait_too_long_for_a_bundle_is_taken_by_another_lane() -> None:
    lanes, bundles = Lanes(), Bundles(1)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(lanes.serve, "m", bundles.step)
        assert bundles.entered.wait(10)
        bundles.todo.append(2)
        assert lanes.serve("m", bundles.step, patience_s=0.01) == 1
        bundles.go.set()
        assert first.result(10) == 1
    assert bundles.done == [[1], [2]]


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < end


def test_waiting_queries_are_computed_together_and_paid_each(sale) -> None:
    sale.fund()
    uploads = [sale.row(sale.listing, rows) for rows in (ROWS[:1], ROWS, ROWS[1:])]
    queries = [sale.ask(sale.listing, upload) for upload in uploads]
    assert running.queries_run(version_id=sale.listing.version_id) == 3
    for query, upload, rows in zip(queries, uploads, (ROWS[:1], ROWS, ROWS[1:])):
        query.refresh_from_db()
        assert query.state == "settled", query.reason
        assert charges(query.id) == ["pend", "post"]
        assert np.abs(sale.open(query, upload) - sale.oracle(sale.held, rows)).max() < 0.01
        assert Receipt.objects.filter(job=query.job).count() == 3
    assert balance(sale) == (10_000_000 - 4 * PRICE, 0)
    assert "bundle" not in str(Job.objects.latest("created_at").descriptor)


def test_a_bad_query_in_a_bundle_is_released_and_the_others_are_answered(sale) -> None:
    sale.fund()
    good, bad = sale.row(sale.listing, ROWS[:1]), sale.row(sale.listing, ROWS[:1])
    bad |= {"envelopes": [*bad["envelopes"][:2], good["envelopes"][2]]}
    queries = [sale.ask(sale.listing, upload) for upload in (good, bad)]
    running.queries_run(version_id=sale.listing.version_id)
    states = [Query.objects.get(pk=q.pk).state for q in queries]
    assert states == ["settled", "released"]
    assert [charges(q.id) for q in queries] == [["pend", "post"], ["pend", "void"]]
    assert balance(sale) == (10_000_000 - PRICE, 0)


def test_a_hold_that_is_gone_costs_its_own_query_only(sale, monkeypatch) -> None:
    """Its buyer's hold was voided while the nodes computed; the other is paid all the same."""
    sale.fund()
    queries = [sale.ask(sale.listing, sale.row(sale.listing, ROWS[:1])) for _ in range(2)]
    dispatch = running.compute.jobs_dispatch

    def void_meanwhile(asked):
        said = dispatch(asked)
        with running.durable():
            ledger.void_pending(queries[0].hold_id, now=now())
        return said

    monkeypatch.setattr(running.compute, "jobs_dispatch", void_meanwhile)
    running.queries_run(version_id=sale.listing.version_id)
    states = [Query.objects.get(pk=q.pk).state for q in queries]
    assert states == ["released", "settled"]
    assert balance(sale) == (10_000_000 - PRICE, 0)
