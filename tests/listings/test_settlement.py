"""Settlement: every micro-unit of an epoch's revenue has one owner, and the log says why."""

from __future__ import annotations

import json
import threading
import time
import uuid
from datetime import timedelta

import pytest
from django.db import close_old_connections, connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.compute.models import Node
from apps.core.clock import now
from apps.core.transactions import durable
from apps.exchange.vaults import stake
from apps.listings import running
from apps.listings.epochs import epoch_settle, epochs_settle
from apps.listings.models import Closing, Entitlement, Query
from apps.protocol import entitlements as rules
from apps.protocol.money import mul_div_floor
from apps.protocol.revenue import Policy, Served, split
from apps.subdaos.models import Epoch
from apps.training.models import Score
from apps.wallets import ledger
from apps.wallets.models import Account, LogLeaf, Transfer
from apps.wallets.selectors import asset_by_code
from apps.wallets.services import account, mint, send
from tests.support.epochs import divided, holdings
from tests.support.market import EPOCH_S, PRICE, drain

ROWS = [[0.5, -1.0]]


@pytest.fixture
def sale(sale):
    sale.fund()
    return sale


def micro(party, purpose: str = "main") -> int:
    row = Account.objects.filter(owner=party, asset__code="USDC", purpose=purpose).first()
    return row.posted_micro if row else 0


def sell(sale, count: int) -> Epoch:
    sold = Query.objects.filter(state="settled")
    before = sold.count()
    for _ in range(count):
        sale.ask(sale.listing, sale.row(sale.listing, ROWS))
    drain()
    assert sold.count() == before + count
    return Epoch.objects.get(dao=sale.dao, closed_at=None)


def test_an_epoch_is_divided_to_the_micro_unit(sale) -> None:
    epoch = sell(sale, 3)
    treasury_before = micro(sale.dao.party, "treasury")
    assert micro(sale.dao.party, "revenue") == 3 * PRICE
    assert epoch_settle(epoch_id=epoch.id, now=now()) is False  # it is not over
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at) is True
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at) is False  # once
    epoch.refresh_from_db()
    assert (epoch.revenue_micro, micro(sale.dao.party, "revenue")) == (3 * PRICE, 0)
    people = [*sale.members, sale.backer]
    paid = sum(micro(person.party) for person in people)
    submitter = 3 * PRICE - paid - (micro(sale.dao.party, "treasury") - treasury_before)
    assert submitter == _owed(epoch)[_submitter_pid(epoch, people)]
    phi = {s.party_id: s.phi_milli for s in Score.objects.filter(round=sale.held)}
    custodians_micro = 3 * PRICE * 60 // 100 * 80 // 100
    for site in sale.custodians:
        due = custodians_micro * phi[site.party.id] // sum(phi.values())
        assert micro(site.party) == due
    assert micro(sale.custodians[3].party) == 0  # its φ is zero
    for validator in sale.validators:
        assert micro(validator.party) == 3 * PRICE * 60 // 100 * 10 // 100 // 3


def test_anyone_recomputes_the_settlement_from_its_leaf(sale) -> None:
    """From the leaf and the holdings: the same root, and a transfer under each entitlement's id."""
    Node.objects.filter(index=0).update(operator=sale.backer.party)
    epoch = sell(sale, 1)
    epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    leaf = json.loads(bytes(LogLeaf.objects.get(type="listings.epoch_settled").data))["body"]
    held = holdings(sale.dao, epoch, boost_bps=leaf["policy"]["stake_boost_bps"])
    again = split(
        [
            Served(s["version"], int(s["revenue_micro"]), s["phi"], s["work"])
            for s in leaf["served"]
        ],
        jobs=leaf["jobs"],
        holdings=held,
        policy=Policy(**leaf["policy"]),
    )
    assert leaf["holdings"] == str(sum(held.values()))
    owed = rules.entitlements(again, asset="USDC", own=sale.dao.party.pid)
    assert (leaf["root"], leaf["entitled"]) == (rules.root(leaf["id"], owed), len(owed))
    whole = sum(one.amount_micro for one in owed)
    assert leaf["treasury_micro"] == str(again.revenue_micro - whole)
    paid = Transfer.objects.filter(ref_type="listings.epoch", ref_id=leaf["id"])
    assert sum(t.amount_micro for t in paid) == again.revenue_micro
    ids = {
        rules.payment_id(epoch.id, asset="USDC", role=one.role, pid=one.pid): one.amount_micro
        for one in owed
    }
    assert {t.id: t.amount_micro for t in paid.exclude(kind="listings.treasury")} == ids
    # two of three nodes are nobody's: their part is the treasury's
    assert leaf["jobs"] == {sale.backer.party.pid: 1, sale.dao.party.pid: 2}


def test_who_claims_a_node_is_paid_for_its_jobs_from_then_on(sale) -> None:
    sell(sale, 1)
    Node.objects.filter(index=0).update(operator=sale.backer.party)
    epoch = sell(sale, 1)
    Node.objects.filter(index=1).update(operator=sale.buyer.party)  # just before it is divided
    epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    epoch.refresh_from_db()
    assert epoch.settlement["jobs"] == {sale.backer.party.pid: 1, sale.dao.party.pid: 5}


def test_tokens_count_for_the_time_they_were_held(sale) -> None:
    epoch = sell(sale, 1)
    half = epoch.starts_at + (epoch.ends_at - epoch.starts_at) / 2
    other, code = sale.custodians[0].party, sale.dao.asset.code
    send(party=sale.backer.party, to=other, asset=code, amount_micro=200, now=half)
    stake(party=sale.backer.party, asset=code, amount_micro=400, now=half)
    boosted = int(sale.dao.params["stake_boost_bps"])
    plain = holdings(sale.dao, epoch, boost_bps=10_000)
    weights = holdings(sale.dao, epoch, boost_bps=boosted)
    epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    pot, whole = Closing.objects.get(pk=epoch.pk).sdt_micro, sum(weights.values())
    due = {pid: mul_div_floor(pot, weight, whole) for pid, weight in weights.items()}
    held = Entitlement.objects.filter(epoch=epoch, role="holder")
    assert {row.pid: row.amount_micro for row in held} == {p: m for p, m in due.items() if m}
    length_ms = 1_000 * EPOCH_S
    assert abs(weights[other.pid] - 200 * 10_000 * length_ms // 2) <= 200 * 10_000 * 2
    boost = boosted - 10_000
    more = weights[sale.backer.party.pid] - plain[sale.backer.party.pid]
    assert boost and abs(more - 400 * boost * length_ms // 2) <= 400 * boost * 2
    assert sale.dao.party.pid not in weights  # its treasury and reserve do not count


def test_an_epoch_without_revenue_pays_nobody(sale) -> None:
    epoch = Epoch.objects.get(dao=sale.dao)
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at) is True
    epoch.refresh_from_db()
    assert epoch.revenue_micro == 0 and epoch.settlement["entitled"] == 0
    assert not Transfer.objects.filter(ref_type="listings.epoch").exists()


def test_a_payment_after_the_end_belongs_to_the_next_epoch(sale) -> None:
    first = Epoch.objects.get(dao=sale.dao)
    earlier = now() - timedelta(seconds=60)
    Epoch.objects.filter(pk=first.pk).update(
        starts_at=earlier, ends_at=earlier + timedelta(seconds=5)
    )
    second = sell(sale, 1)
    first.refresh_from_db()
    assert first.closed_at is not None and first.revenue_micro == 0
    assert second.number == first.number + 1
    assert Query.objects.get().epoch == second


def test_a_payment_that_ends_an_epoch_waits_for_nobody_who_waits_for_it(sale) -> None:
    """Another payer holds the buyer's account and then wants a payee's: all in the order of ids."""
    epoch = sell(sale, 1)
    sale.buyer = sale.person("Buyer whose account is locked first")
    buyer = Account.objects.create(
        id=uuid.UUID(int=1), owner=sale.buyer.party, asset=asset_by_code("USDC")
    )
    payee = account(sale.custodians[0].party, "USDC")
    sale.fund()
    query = sale.ask(sale.listing, sale.row(sale.listing, ROWS))
    epoch.ends_at = now()
    epoch.save(update_fields=["ends_at"])
    worker = threading.Thread(target=_run_and_close, args=(query.id,))
    with durable():
        ledger.lock([buyer])
        worker.start()
        _until_somebody_waits()
        ledger.lock([payee])
    worker.join()
    query.refresh_from_db()
    epoch.refresh_from_db()
    assert query.state == "settled" and query.epoch.number == epoch.number + 1
    assert epoch.closed_at is not None and epoch.revenue_micro == PRICE
    assert epoch.settlement is None  # a payer divides nothing
    assert epochs_settle(now=epoch.ends_at) == 1
    epoch.refresh_from_db()
    assert epoch.settlement is not None


def _run_and_close(query_id: object) -> None:
    try:
        running.query_run(query_id=query_id)
    finally:
        close_old_connections()


def _until_somebody_waits(seconds: float = 30.0) -> None:
    """Until another transaction waits for a lock that this one holds."""
    end = time.monotonic() + seconds
    waits = "SELECT 1 FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    while True:
        with connection.cursor() as cursor:
            cursor.execute(waits)
            if cursor.fetchone():
                return
        assert time.monotonic() < end, "nobody waits"


@given(revenue=st.integers(1, 10**12), phi=st.lists(st.integers(0, 1000), min_size=4, max_size=4))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_revenue_and_any_scores_settle_exactly(sale, revenue, phi) -> None:
    """The same rows with another price and other scores: all of it arrives, nothing is left."""
    Epoch.objects.filter(dao=sale.dao, closed_at=None).update(closed_at=now())
    sale.fund(10_000_000)
    query = sale.ask(sale.listing, sale.row(sale.listing, ROWS))
    drain()
    query.refresh_from_db()
    epoch = query.epoch
    extra = revenue - PRICE
    with durable():
        source = account(sale.dao.party, "USDC", "revenue")
        if extra > 0:
            mint("USDC", source, extra, None, now())
        elif extra < 0:
            leg = ledger.Leg(
                debit_account=source,
                credit_account=account(sale.dao.party, "USDC", "fees"),
                amount_micro=-extra,
                kind="test.shrink",
            )
            ledger.post([leg], now=now())
        Query.objects.filter(pk=query.pk).update(price_micro=revenue)
        for score, value in zip(Score.objects.filter(round=sale.held).order_by("id"), phi):
            score.phi_milli = value
            score.save()
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    epoch.refresh_from_db()
    paid = sum(_owed(epoch).values())
    assert paid + int(epoch.settlement["treasury_micro"]) == revenue == epoch.revenue_micro
    assert micro(sale.dao.party, "revenue") == 0


def _owed(epoch: Epoch) -> dict[str, int]:
    """{pid: what the epoch owes it in all its roles}."""
    owed: dict[str, int] = {}
    for one in divided(epoch):
        owed[one.pid] = owed.get(one.pid, 0) + one.amount_micro
    return owed


def _submitter_pid(epoch: Epoch, people: list) -> str:
    known = {person.party.pid for person in people}
    [pid] = [pid for pid in _owed(epoch) if pid not in known]
    return pid
