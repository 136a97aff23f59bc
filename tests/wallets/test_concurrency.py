"""Races on real connections: threads that start together on one account, one hold, one key."""

from __future__ import annotations

import threading
import uuid
from collections import Counter

import pytest
from django.db import OperationalError, connection, transaction
from rest_framework.test import APIClient

from apps.accounts.services import api_key_create, sign_up
from apps.core.errors import DomainError
from apps.core.models import IdempotentCall
from apps.wallets import ledger, log, services
from apps.wallets.models import Account, LogLeaf, Transfer, TreeHead
from tests.support.locks import until_blocked
from tests.wallets.ledger_helpers import at, balances, funded, leg

pytestmark = pytest.mark.django_db(transaction=True)
THREADS = 8


def together(*jobs):
    """Run each job in a thread with its own connection, all released at once.

    Returns the outcomes: "ok" or the code of the DomainError; other exceptions are raised.
    """
    barrier, outcomes, failures = threading.Barrier(len(jobs)), [], []

    def run(job):
        try:
            barrier.wait(timeout=60)
            try:
                with transaction.atomic(durable=True):
                    job()
                outcomes.append("ok")
            except DomainError as error:
                outcomes.append(error.code)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if failures:
        raise failures[0]
    return Counter(outcomes)


def test_a_hot_account_is_never_spent_twice():
    a, b = funded("alice", 5), funded("bob", 0)

    def spend():
        ledger.post([leg(a, b, 1)], now=at(1))

    outcomes = together(*[spend] * THREADS)
    assert outcomes == {"ok": 5, "insufficient_balance": THREADS - 5}
    assert (balances(a), balances(b)) == ((0, 0), (5, 0))


def test_holds_and_payments_race_for_the_same_money():
    a, b = funded("alice", 5), funded("bob", 0)

    def hold():
        ledger.pend(leg(a, b, 1), expires_at=at(60), now=at(1))

    def pay():
        ledger.post([leg(a, b, 1)], now=at(1))

    outcomes = together(*[hold, pay] * (THREADS // 2))
    assert outcomes == {"ok": 5, "insufficient_balance": THREADS - 5}
    posted, held = balances(a)
    assert posted - held == 0 and posted + balances(b)[0] == 5


def test_a_hold_is_posted_or_voided_by_one_of_many():
    a, b = funded("alice", 100), funded("bob", 0)
    for round_ in range(3):
        with transaction.atomic():
            hold = ledger.pend(leg(a, b, 10), expires_at=at(60), now=at(1))
        pay = lambda: ledger.post_pending(hold.id, amount_micro=4, now=at(2))  # noqa: B023, E731
        free = lambda: ledger.void_pending(hold.id, now=at(2))  # noqa: B023, E731
        outcomes = together(*[pay, free] * (THREADS // 2))
        assert outcomes == {"ok": THREADS // 2, "hold_resolved": THREADS // 2}, round_
    paid = Transfer.objects.filter(phase="post").count()
    assert (balances(a), balances(b)) == ((100 - 4 * paid, 0), (4 * paid, 0))


def test_one_transfer_retried_at_the_same_time_is_made_once():
    a, b = funded("alice", 100), funded("bob", 0)
    wanted = leg(a, b, 10)
    assert together(*[lambda: ledger.post([wanted], now=at(1))] * THREADS) == {"ok": THREADS}
    assert balances(b) == (10, 0)


def test_one_id_used_for_different_accounts_at_the_same_time_is_made_once():
    pairs = [(funded(f"a{i}", 10), funded(f"b{i}", 0)) for i in range(4)]
    id_ = uuid.uuid4()
    jobs = [lambda p=p: ledger.post([leg(*p, 10, id=id_)], now=at(1)) for p in pairs]
    assert together(*jobs) == {"ok": 1, "transfer_conflict": 3}
    assert sum(balances(b)[0] for _, b in pairs) == 10


def test_payments_in_a_ring_do_not_deadlock():
    ring = [funded(f"p{i}", 100) for i in range(4)]

    def pay(i):
        legs = [leg(ring[(i + k) % 4], ring[(i + k + 1) % 4], 1) for k in range(4)]
        for _ in range(5):
            with transaction.atomic():
                ledger.post([leg(x.debit_account, x.credit_account, 1) for x in legs], now=at(1))

    def job(i):
        return lambda: pay(i)

    assert together(*[job(i) for i in range(4)]) == {"ok": 4}
    assert [balances(a) for a in ring] == [(100, 0)] * 4


def test_an_account_asked_for_at_the_same_time_is_made_once():
    owner = funded("alice", 0).owner
    outcomes = together(*[lambda: services.account(owner, "FLAI", "escrow")] * THREADS)
    assert outcomes == {"ok": THREADS}
    assert Account.objects.filter(owner=owner, purpose="escrow").count() == 1


def test_an_expired_hold_is_freed_once_by_spenders_and_sweep_together():
    a, b = funded("alice", 10), funded("bob", 0)
    with transaction.atomic():
        ledger.pend(leg(a, b, 10), expires_at=at(5), now=at(1))

    def spend():
        ledger.post([leg(a, b, 5)], now=at(6))

    outcomes = together(*[spend] * 4, *[lambda: ledger.sweep_expired(now=at(6))] * 4)
    assert outcomes == {"ok": 6, "insufficient_balance": 2}
    assert Transfer.objects.filter(phase="void").count() == 1


def test_two_who_find_the_same_expired_hold_both_go_on():
    """As two requests of one buyer do: the second waits for the first, and finds it freed."""
    a, b = funded("alice", 10), funded("bob", 0)
    freed = []

    def free():
        try:
            with transaction.atomic(durable=True):
                freed.append(ledger.free_expired([a.id], now=at(6)))
        finally:
            connection.close()

    other = threading.Thread(target=free)
    with transaction.atomic():
        ledger.pend(leg(a, b, 10), expires_at=at(5), now=at(1))
    with transaction.atomic():
        assert ledger.free_expired([a.id], now=at(6))
        other.start()
        assert until_blocked()
    other.join(timeout=60)
    assert freed == [True] and balances(a) == (10, 0)
    assert not ledger.free_expired([a.id], now=at(6))


def test_sequencers_at_the_same_time_number_every_leaf_once():
    a, b = funded("alice", 100), funded("bob", 0)
    barrier = threading.Barrier(6)

    def write():
        barrier.wait(timeout=60)
        for i in range(10):
            with transaction.atomic():
                ledger.post([leg(a, b, 1)], now=at(i))
        connection.close()

    def number():
        barrier.wait(timeout=60)
        for i in range(10):
            log.sequence(now=at(i), limit=7)
        connection.close()

    threads = [threading.Thread(target=job) for job in [write] * 3 + [number] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    while log.sequence(now=at(99)):
        pass
    assert LogLeaf.objects.filter(seq=None).count() == 0
    assert TreeHead.objects.order_by("-size").first().size == LogLeaf.objects.count() == 31


def test_a_request_retried_at_the_same_time_pays_once_and_all_get_its_answer():
    user, party = sign_up(
        email="ada@example.org", password="correct horse battery", name="ada", kind="person"
    )
    _, key = api_key_create(user=user, party=party)
    answers, barrier = [], threading.Barrier(THREADS)

    def ask():
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}", HTTP_IDEMPOTENCY_KEY="k1")
        barrier.wait(timeout=60)
        answer = client.post("/api/v1/wallet/faucet/", {"asset": "USDC", "amount_micro": "5"})
        answers.append((answer.status_code, answer.content))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(answers) == THREADS and len(set(answers)) == 1 and answers[0][0] == 201
    assert Transfer.objects.count() == IdempotentCall.objects.count() == 1


def test_a_crash_before_the_commit_leaves_nothing_behind():
    a, b = funded("alice", 100), funded("bob", 0)
    before = (Transfer.objects.count(), LogLeaf.objects.count())

    def crash():
        with transaction.atomic(durable=True):
            ledger.post([leg(a, b, 30)], now=at(1))
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                backend = cursor.fetchone()[0]
            other = connection.copy()
            with other.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
            other.close()
            ledger.post([leg(a, b, 30)], now=at(1))

    with pytest.raises(OperationalError):
        crash()
    connection.close()
    assert (balances(a), balances(b)) == ((100, 0), (0, 0))
    assert (Transfer.objects.count(), LogLeaf.objects.count()) == before
