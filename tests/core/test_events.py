"""The outbox: written with its cause, handed over after it, at least once, not twice."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction

from apps.core import handlers, subscriptions, wake
from apps.core.clock import now as clock_now
from apps.core.events import Event, emit
from apps.core.models import HandledEvent, OutboxEvent

NOW = clock_now()


@dataclass(frozen=True)
class TeaServed(Event):
    cup_id: UUID
    cups: list[UUID] | tuple[UUID, ...] = ()


@pytest.fixture
def calls():
    return []


@pytest.fixture(autouse=True)
def _own_table(monkeypatch):
    monkeypatch.setattr(subscriptions, "_handlers", {})


@pytest.fixture
def sent(monkeypatch):
    messages = []
    monkeypatch.setattr(wake, "_send", lambda task, args, eta: messages.append((task, args, eta)))
    return messages


def serve(count=1):
    with transaction.atomic():
        return [emit(TeaServed(cup_id=uuid4()), now=NOW) for _ in range(count)]


@pytest.mark.django_db
def test_an_event_carries_its_app_and_class_and_plain_ids():
    cup, other = uuid4(), uuid4()
    row = emit(TeaServed(cup_id=cup, cups=(other,)), now=NOW)
    assert row.name == "tests.TeaServed"
    assert OutboxEvent.objects.get().payload == {"cup_id": str(cup), "cups": [str(other)]}


@pytest.mark.django_db(transaction=True)
def test_what_nobody_hears_is_written_down_and_wakes_nobody(sent):
    serve(2)
    assert sent == [] and OutboxEvent.objects.filter(dispatched_at=NOW).count() == 2
    assert handlers.dispatch_due(clock=lambda: NOW) == 0


@pytest.mark.django_db(transaction=True)
def test_an_event_needs_the_transaction_of_its_cause_and_goes_with_it(sent, calls):
    handlers.on(TeaServed, lambda payload, **_: calls.append(payload))
    with pytest.raises(RuntimeError, match="inside the transaction"):
        emit(TeaServed(cup_id=uuid4()), now=NOW)
    with pytest.raises(KeyError), transaction.atomic():
        emit(TeaServed(cup_id=uuid4()), now=NOW)
        raise KeyError
    assert not OutboxEvent.objects.exists() and sent == []
    serve(3)
    assert sent == [("flai.dispatch_events", [], None)]


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_is_sent_on_commit_with_plain_arguments(sent):
    id_ = uuid4()
    with pytest.raises(KeyError), transaction.atomic():
        wake.wake("flai.x", id_)
        raise KeyError
    assert sent == []
    with transaction.atomic():
        wake.wake("flai.x", id_, 3, eta=NOW)
        assert sent == []
    assert sent == [("flai.x", [str(id_), 3], NOW)]


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_of_another_day_is_left_to_the_sweep(sent):
    """A broker hands out again, hourly, what waits with a worker for longer than that."""
    with transaction.atomic():
        wake.wake("flai.soon", eta=clock_now() + timedelta(minutes=9))
        wake.wake("flai.late", eta=clock_now() + timedelta(minutes=11))
    assert [task for task, *_ in sent] == ["flai.soon"]


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_does_not_break_the_request(monkeypatch):
    class Away:
        def send_task(self, *args, **kwargs):
            raise ConnectionError

    monkeypatch.setattr(wake, "current_app", Away())
    serve()
    assert OutboxEvent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_each_handler_gets_an_event_once_outside_any_transaction(calls):
    def one(payload, *, event_id, now):
        assert not connection.in_atomic_block
        calls.append(("one", payload["cup_id"], event_id, now))

    def two(payload, *, event_id, now):
        calls.append(("two", payload["cup_id"], event_id, now))

    handlers.on(TeaServed, one)
    handlers.on("tests.TeaServed", two)
    handlers.on(TeaServed, one)
    [row] = serve()
    assert handlers.dispatch_due(clock=lambda: NOW) == 1
    assert handlers.dispatch_due(clock=lambda: NOW + timedelta(days=1)) == 0
    cup = row.payload["cup_id"]
    assert calls == [("one", cup, row.id, NOW), ("two", cup, row.id, NOW)]


@pytest.mark.django_db(transaction=True)
def test_each_event_is_handled_at_its_own_time(calls):
    """Many events may take long: the last one's deadlines are not judged by the first one's."""
    handlers.on(TeaServed, lambda payload, *, event_id, now: calls.append(now))
    serve(3)
    hours = iter(NOW + timedelta(hours=h) for h in range(4))
    assert handlers.dispatch_due(clock=lambda: next(hours)) == 3
    assert calls == [NOW + timedelta(hours=h) for h in range(3)]


@pytest.mark.django_db(transaction=True)
def test_a_failed_handler_is_tried_again_later_and_the_others_are_not(calls):
    def fails_twice(payload, *, event_id, now):
        calls.append("fails")
        if calls.count("fails") < 3:
            raise ValueError

    def works(payload, *, event_id, now):
        calls.append("works")

    handlers.on(TeaServed, fails_twice)
    handlers.on(TeaServed, works)
    serve()
    assert handlers.dispatch_due(clock=lambda: NOW) == 0
    assert handlers.dispatch_due(clock=lambda: NOW) == 0 and calls == ["fails", "works"]
    assert handlers.dispatch_due(clock=lambda: NOW + timedelta(seconds=1)) == 0
    assert handlers.dispatch_due(clock=lambda: NOW + timedelta(seconds=2)) == 0
    assert calls == ["fails", "works", "fails"]
    assert handlers.dispatch_due(clock=lambda: NOW + timedelta(seconds=3)) == 1
    assert calls == ["fails", "works", "fails", "fails"]
    assert OutboxEvent.objects.get().dispatched_at and HandledEvent.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_event_whose_dispatcher_died_comes_back_after_its_lease(calls):
    handlers.on(TeaServed, lambda payload, *, event_id, now: calls.append(event_id))
    [row] = serve()
    assert handlers._claim(NOW).id == row.id
    assert handlers.dispatch_due(clock=lambda: NOW + handlers.LEASE - timedelta(seconds=1)) == 0
    assert handlers.dispatch_due(clock=lambda: NOW + handlers.LEASE) == 1 and calls == [row.id]


@pytest.mark.django_db(transaction=True)
def test_dispatchers_at_the_same_time_share_the_events(calls):
    handlers.on(TeaServed, lambda payload, *, event_id, now: calls.append(event_id))
    rows = serve(40)
    barrier = threading.Barrier(4)

    def dispatch():
        barrier.wait(timeout=60)
        handlers.dispatch_due(clock=lambda: NOW)
        connection.close()

    threads = [threading.Thread(target=dispatch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(calls) == 40 and set(calls) == {row.id for row in rows}
