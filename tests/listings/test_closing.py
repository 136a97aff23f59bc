"""Closing an epoch: the SQL is the pure rule, chunks of any size give one result, nothing twice."""

from __future__ import annotations

import itertools
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.models import Party
from apps.core import clock
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.listings import claims, closing
from apps.listings.models import Closing, Entitlement, EntitlementNode
from apps.protocol import entitlements as rules
from apps.protocol import merkle
from apps.protocol.money import mul_div_floor
from apps.subdaos.models import Dao, Epoch
from apps.wallets import ledger
from apps.wallets.invariants import violations
from apps.wallets.models import Account, LogLeaf
from apps.wallets.services import account, mint, send
from tests.governance.helpers import together
from tests.support.epochs import divided, frozen, holdings, subdao
from tests.support.locks import until_blocked
from tests.wallets.ledger_helpers import at, party

pytestmark = pytest.mark.django_db(transaction=True)
START, END, AFTER = at(1000), at(1060), at(1070)
Moves = list[tuple[str, int, int, int, int]]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "stake", "unstake", "issue"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.one_of(st.integers(1, 9), st.sampled_from([10**6, 10**13, 2**61])),
        st.sampled_from([-5, 0, 1, 3, 999, 1500, 59_999, 60_000, 60_001]),
    ),
    max_size=12,
)


@pytest.fixture
def people() -> list[Party]:
    return [party(f"holder-{i}") for i in range(4)]


def usdc(owner: Party, purpose: str = "main") -> int:
    row = Account.objects.filter(owner=owner, asset__code="USDC", purpose=purpose).first()
    return row.posted_micro if row else 0


def issue(dao: Dao, who: Party, micro: int, seconds: float) -> None:
    assert dao.asset is not None
    with durable():
        mint(dao.asset, account(who, dao.asset), micro, None, at(seconds))


def moved(dao: Dao, people: list[Party], moves: Moves) -> None:
    """Each move at START + its ms, in that order; what a balance does not allow does not happen."""
    code = dao.asset.code if dao.asset else ""
    for what, source, target, micro, ms in sorted(moves, key=lambda move: move[-1]):
        now = START + timedelta(milliseconds=ms)
        who: dict[str, Any] = {"party": people[source], "asset": code, "amount_micro": micro}
        try:
            match what:
                case "send":
                    send(to=people[target], now=now, **who)
                case "stake" | "unstake":
                    sides = ("main", "staked") if what == "stake" else ("staked", "main")
                    debit, credit = (account(people[source], code, purpose) for purpose in sides)
                    with durable():
                        ledger.post([ledger.Leg(debit, credit, micro, "test.stake")], now=now)
                case "issue":
                    with durable():
                        mint(code, account(people[source], code), micro, None, now)
        except DomainError:
            continue


@given(
    moves=MOVES,
    boost_bps=st.sampled_from([10_000, 15_000, 10**7]),
    revenue_micro=st.one_of(st.integers(0, 10**7), st.just(10**13)),
    chunk=st.sampled_from([1, 3, 100]),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_sql_weighs_and_divides_as_the_pure_rule_does(
    people: list[Party], moves: Moves, boost_bps: int, revenue_micro: int, chunk: int
) -> None:
    """T_i bit by bit, amounts floored, Σ + remainder = revenue, whatever the chunks are."""
    dao = subdao(at(0), cap_micro=2**63 - 1)
    for i, who in enumerate(people[:3]):
        issue(dao, who, 10 ** (6 * i), 10)
    moved(dao, people, moves)
    epoch = frozen(
        dao, starts_at=START, ends_at=END, revenue_micro=revenue_micro, boost_bps=boost_bps
    )
    weights = holdings(dao, epoch, boost_bps=boost_bps)
    assert closing.carry_on(epoch.id, now=AFTER, chunk=chunk)
    done = Closing.objects.get(pk=epoch.pk)
    assert (done.step, int(done.holdings)) == ("done", sum(weights.values()))
    pot, whole = done.sdt_micro, sum(weights.values())
    due = {pid: mul_div_floor(pot, weight, whole) for pid, weight in weights.items()}
    owed = divided(epoch)
    assert {one.pid: one.amount_micro for one in owed} == shares(epoch, weights)
    assert done.root == rules.root(str(epoch.id), owed) and done.size == len(owed)
    epoch.refresh_from_db()
    assert epoch.settlement is not None
    kept = int(epoch.settlement["treasury_micro"])
    assert sum(due.values()) + kept == revenue_micro
    assert usdc(dao.party, "treasury") == kept and usdc(dao.party, "revenue") == 0


def closed(
    people: list[Party], *, count: int = 8, revenue_micro: int = 10**6, **more: Any
) -> tuple[Dao, Epoch]:
    """`count` holders with 1, 2, 3 … tokens, two of whom worked as well, and the frozen epoch."""
    dao = subdao(at(0))
    holders = [*people, *(party(f"more-{uuid.uuid4().hex}") for _ in range(count - len(people)))]
    for i, who in enumerate(holders):
        issue(dao, who, (i + 1) * 10**6, 10)
    worked = {("custodian", people[0].pid): 48_000, ("operator", people[1].pid): 6_000}
    return dao, frozen(
        dao, starts_at=START, ends_at=END, revenue_micro=revenue_micro, owed_micro=worked, **more
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("blow", (1, 4, 6, 8, 11, 12))
def test_whoever_is_killed_in_a_chunk_leaves_the_last_whole_one(
    people: list[Party], monkeypatch: pytest.MonkeyPatch, blow: int
) -> None:
    """Step number `blow` dies with all that it wrote; another worker goes on before it."""
    dao, epoch = closed(people)
    calls, real = 0, Closing.save

    def dies(self: Closing, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        real(self, *args, **kwargs)
        if calls == blow:
            raise Killed  # in the transaction, after all that it wrote

    monkeypatch.setattr(Closing, "save", dies)
    try:
        closing.carry_on(epoch.id, now=AFTER, chunk=3)
    except Killed:
        assert closing.carry_on(epoch.id, now=AFTER, chunk=3)
    assert not closing.carry_on(epoch.id, now=AFTER)
    owed = divided(epoch)
    assert len(owed) == 10
    assert Closing.objects.get(pk=epoch.pk).root == rules.root(str(epoch.id), owed)
    paid = sum(usdc(who) for who in Party.objects.filter(kind="person"))
    assert paid == sum(one.amount_micro for one in owed)
    assert paid + usdc(dao.party, "treasury") == epoch.revenue_micro
    assert LogLeaf.objects.filter(type="listings.epoch_settled").count() == 1
    assert {k: v for k, v in violations().items() if v} == {}


def test_a_transfer_that_comes_late_counts_for_the_next_epoch(people: list[Party]) -> None:
    """Stamped before the end but written after accounts are quiet: its time is the end."""
    dao, epoch = closed(people)
    weights = holdings(dao, epoch)
    with durable():
        row = Closing.objects.select_for_update().get(pk=epoch.pk)
        while row.step == Closing.Step.QUIET:
            closing._quiet(row, epoch, AFTER, 3)
        row.save()
    assert dao.asset is not None
    late = {"to": people[0], "asset": dao.asset.code, "amount_micro": 10**6, "now": at(1001)}
    transfer = send(party=people[3], **late)
    new = party("newcomer")
    second = send(party=people[2], **(late | {"to": new}))
    assert transfer.created_at == second.created_at == END
    closing.carry_on(epoch.id, now=AFTER)
    assert paid_to_holders(epoch) == shares(epoch, weights)


def paid_to_holders(epoch: Epoch) -> dict[str, int]:
    rows = Entitlement.objects.filter(epoch=epoch, role="holder")
    return {row.pid: row.amount_micro for row in rows}


def shares(epoch: Epoch, weights: dict[str, int]) -> dict[str, int]:
    """Equation 11 of these weights."""
    pot, whole = Closing.objects.get(pk=epoch.pk).sdt_micro, sum(weights.values())
    due = {pid: mul_div_floor(pot, weight, whole) for pid, weight in weights.items()}
    return {pid: micro for pid, micro in due.items() if micro}


def test_closing_waits_for_a_transfer_that_has_begun(
    people: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stamped within the epoch, committed after its end was said: it counts, and is waited for."""
    dao, epoch = closed(people)
    assert dao.asset is not None
    sides = [account(who, dao.asset) for who in (people[3], people[0])]
    leg = ledger.Leg(*sides, 10**6, "test.late")
    with ThreadPoolExecutor(1) as pool:
        with durable():
            [made] = ledger.post([leg], now=at(1030))
            monkeypatch.setattr(closing, "QUIET_S", 0.1)
            worked = pool.submit(together, lambda: closing.carry_on(epoch.id, now=AFTER))
            assert worked.result(timeout=60) == [True]
            assert Closing.objects.get(pk=epoch.pk).step == Closing.Step.QUIET
            monkeypatch.setattr(closing, "QUIET_S", 30)
            work = pool.submit(together, lambda: closing.carry_on(epoch.id, now=AFTER))
            with pytest.raises(TimeoutError):
                work.result(timeout=0.3)
        assert work.result(timeout=60) == [True]
    assert made.created_at == at(1030)
    assert paid_to_holders(epoch) == shares(epoch, holdings(dao, epoch))


def test_who_has_staked_all_and_never_held_is_weighed(people: list[Party]) -> None:
    dao, epoch = closed(people)
    assert dao.asset is not None
    with durable():
        mint(dao.asset, account(party("staker"), dao.asset, "staked"), 10**7, None, at(20))
    closing.carry_on(epoch.id, now=AFTER)
    assert paid_to_holders(epoch) == shares(epoch, holdings(dao, epoch))


def test_what_a_long_closing_says_is_stamped_when_it_says_it(
    people: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, epoch = closed(people)
    minutes = itertools.count()
    monkeypatch.setattr(clock, "now", lambda: at(60 * next(minutes)))
    closing.carry_on(epoch.id, now=AFTER, chunk=3)
    leaf = LogLeaf.objects.get(type="listings.epoch_settled")
    assert json.loads(bytes(leaf.data))["at"] >= clock.unix_ms(AFTER) + 5 * 60_000


def test_many_are_paid_when_they_ask_and_each_proves_its_part(
    people: list[Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond AUTO_MAX: who worked and who said yes is paid, nobody who said no, the rest claims."""
    monkeypatch.setattr(closing, "AUTO_MAX", 5)
    monkeypatch.setattr(closing, "PAY_BATCH", 2)
    monkeypatch.setattr(EntitlementNode, "LEVEL", 2)
    monkeypatch.setattr(EntitlementNode, "LEAVES", 4)
    _, epoch = closed(people, count=11)
    claims.payouts_choose(party=people[2], auto=True)
    claims.payouts_choose(party=people[1], auto=False)
    closing.carry_on(epoch.id, now=AFTER, chunk=3)
    paid = Entitlement.objects.filter(epoch=epoch).exclude(claimed_at=None)
    assert {(row.role, row.pid) for row in paid} == {
        ("custodian", people[0].pid),
        ("holder", people[2].pid),
    }
    size = Closing.objects.get(pk=epoch.pk).size
    assert size == 13
    for row in claims.entitled(epoch):
        said = claims.proof(row)
        leaf = rules.leaf_hash(
            str(epoch.id), rules.Entitlement(row.asset, row.role, row.pid, row.amount_micro)
        )
        path = [bytes.fromhex(hash_) for hash_ in said["path"]]
        merkle.verify_inclusion(leaf, said["index"], size, path, bytes.fromhex(said["root"]))
    assert {row.role for row in claims.claimable(people[1])} == {"holder", "operator"}
    first = claims.claim(epoch_id=epoch.id, party=people[1], now=AFTER)
    again = claims.claim(epoch_id=epoch.id, party=people[1], now=AFTER)
    assert len(first) == 2 and {t.id for t in again} == {t.id for t in first}
    assert usdc(people[1]) == sum(t.amount_micro for t in first)
    assert list(claims.claimable(people[1])) == []
    with pytest.raises(DomainError, match="nothing_owed"):
        claims.claim(epoch_id=epoch.id, party=party("stranger"), now=AFTER)


def test_what_is_owed_is_marked_as_paid_once_and_never_changed(people: list[Party]) -> None:
    _, epoch = closed(people)
    closing.carry_on(epoch.id, now=AFTER)
    rows = Entitlement.objects.filter(epoch=epoch)
    for change in (
        lambda: rows.update(amount_micro=1),
        lambda: rows.update(claimed_at=AFTER),
        lambda: rows.update(claimed_at=None),
        lambda: rows.delete(),
    ):
        with pytest.raises(IntegrityError, match="paid once and never changed"):
            change()
    assert not any(violations().values())
    row = rows.exclude(role="holder").first()
    with connection.cursor() as cursor:  # as who owns the database could
        cursor.execute("ALTER TABLE listings_entitlement DISABLE TRIGGER claimed_once")
        rows.filter(role=row.role, pid=row.pid).update(amount_micro=row.amount_micro + 1)
        cursor.execute("ALTER TABLE listings_entitlement ENABLE TRIGGER claimed_once")
    [(broken, _)] = [(name, said) for name, said in violations().items() if said]
    assert broken == "entitlements are the settlements"


def test_nobody_claims_before_it_is_divided(people: list[Party]) -> None:
    _, epoch = closed(people)
    with pytest.raises(DomainError, match="epoch_not_divided"):
        claims.claim(epoch_id=epoch.id, party=people[0], now=AFTER)
    assert list(claims.claimable(people[0])) == []


def test_a_closed_account_does_not_hold_up_the_others(people: list[Party]) -> None:
    dao, epoch = closed(people)
    with durable():
        row = account(people[3], "USDC")
    Account.objects.filter(pk=row.pk).update(closed_at=AFTER)
    closing.carry_on(epoch.id, now=AFTER)
    [left] = Entitlement.objects.filter(epoch=epoch, claimed_at=None)
    assert left.pid == people[3].pid
    assert usdc(dao.party, "revenue") == left.amount_micro


def test_the_database_is_asked_the_same_for_few_and_for_many(people: list[Party]) -> None:
    asked = []
    for count in (4, 24):
        _, epoch = closed(people, count=count)
        with CaptureQueriesContext(connection) as queries:
            closing.carry_on(epoch.id, now=AFTER)
        asked.append(len(queries))
    assert asked[0] == asked[1]


def test_dividing_locks_all_accounts_in_the_order_of_their_ids(people: list[Party]) -> None:
    """The treasury's and those of the payees, as whoever pays between them does."""
    dao = subdao(at(0))
    with durable():
        treasury = account(dao.party, "USDC", "treasury")
        # ids are drawn: of forty none is below the treasury's once in forty runs
        mains = (account(party(f"worker-{i}"), "USDC") for i in range(2_000))
        low = next(row for row in mains if row.id < treasury.id)
    owed = {("custodian", low.owner.pid): 5}
    epoch = frozen(dao, starts_at=START, ends_at=END, revenue_micro=50, owed_micro=owed)
    Closing.objects.filter(pk=epoch.pk).update(step=Closing.Step.WEIGH)
    with ThreadPoolExecutor(1) as pool:
        with durable():
            ledger.lock([low])
            work = pool.submit(together, lambda: closing.carry_on(epoch.id, now=AFTER))
            assert until_blocked()
            ledger.lock([treasury])
        assert work.result(timeout=60) == [True]
    assert (usdc(low.owner), usdc(dao.party, "treasury")) == (5, 45)


def test_two_workers_divide_it_once(people: list[Party]) -> None:
    """Each takes chunks in turn, under the row's lock."""
    dao, epoch = closed(people)
    worked = together(*[lambda: closing.carry_on(epoch.id, now=AFTER, chunk=2)] * 2)
    assert True in worked and not [one for one in worked if isinstance(one, Exception)]
    assert usdc(dao.party, "revenue") == 0
    assert LogLeaf.objects.filter(type="listings.epoch_settled").count() == 1
