"""The ledger on PostgreSQL: what is written, what is refused, what a retry gets."""

from __future__ import annotations

import uuid

import pytest
from django.db import IntegrityError, connection, transaction

from apps.core.errors import BadInput
from apps.wallets import ledger, log, selectors, services
from apps.wallets.errors import (
    CapExceeded,
    HoldExpired,
    HoldNotFound,
    HoldResolved,
    InsufficientBalance,
    PostOverHold,
    TransferConflict,
)
from apps.wallets.models import Account, Hold, LogLeaf, LogNode, Transfer, TreeHead
from tests.wallets.ledger_helpers import T0, at, balances, funded, leg, party, statements

pytestmark = pytest.mark.django_db


def test_a_transfer_moves_posted_money_and_writes_its_leaf():
    a, b = funded("alice", 100), funded("bob", 0)
    [t] = ledger.post([leg(a, b, 30, ref=("rfms.pledge", "7"))], now=at(1))
    assert (balances(a), balances(b)) == ((70, 0), (30, 0))
    leaf = log.leaf_for("wallets.transfer", t.id)
    assert bytes(leaf.data) == log.leaf_bytes(
        "wallets.transfer",
        {
            "id": str(t.id),
            "debit": f"{a.owner.pid}/main/USDC",
            "credit": f"{b.owner.pid}/main/USDC",
            "amount_micro": "30",
            "phase": "single",
            "kind": "test.pay",
            "ref": "rfms.pledge:7",
        },
        now=at(1),
    )


def test_a_group_is_written_whole_or_not_at_all():
    a, b, c = funded("alice", 100), funded("bob", 0), funded("carol", 0)
    leaves = LogLeaf.objects.count()
    with pytest.raises(InsufficientBalance) as error:
        ledger.post([leg(a, b, 60), leg(b, c, 60), leg(a, c, 41)], now=at(1))
    assert error.value.status == 402 and error.value.args_["short_micro"] == "1"
    assert [balances(x) for x in (a, b, c)] == [(100, 0), (0, 0), (0, 0)]
    assert LogLeaf.objects.count() == leaves
    ledger.post([leg(a, b, 60), leg(b, c, 60), leg(a, c, 40)], now=at(1))
    assert [balances(x) for x in (a, b, c)] == [(0, 0), (0, 0), (100, 0)]


def test_the_same_transfer_again_gets_the_same_answer_and_another_one_a_conflict():
    a, b = funded("alice", 100), funded("bob", 0)
    legs = [leg(a, b, 10), leg(a, b, 20)]
    first = ledger.post(legs, now=at(1))
    again = ledger.post(legs, now=at(9))
    assert [t.id for t in again] == [t.id for t in first] and again[0].created_at == at(1)
    assert balances(b) == (30, 0)
    for other in (
        [leg(a, b, 11, id=legs[0].id)],
        [leg(b, a, 10, id=legs[0].id)],
        [leg(a, b, 10, id=legs[0].id, memo="other")],
        [legs[0], leg(a, b, 1)],
        [legs[0], legs[0]],
    ):
        with pytest.raises(TransferConflict):
            ledger.post(other, now=at(9))
    assert balances(b) == (30, 0)


@pytest.mark.parametrize("operation", ["faucet", "send"])
def test_nobody_can_take_the_id_of_somebodys_resolution(operation):
    """A hold's id is public; its resolution's id follows from it."""
    a, thief = funded("alice", 100), funded("squatter", 100)
    with transaction.atomic():
        held = ledger.pend(leg(a, funded("shop", 0), 40), expires_at=at(60), now=at(1))
    who, wanted = thief.owner, uuid.uuid5(held.id, "resolution")
    services.faucet(party=who, asset="FLAI", amount_micro=9, now=at(1))
    same = {"party": who, "asset": "FLAI", "amount_micro": 1, "idempotency": wanted, "now": at(1)}
    more = {"to": a.owner} if operation == "send" else {}
    made = getattr(services, operation)(**same, **more)
    assert made.id != wanted
    assert getattr(services, operation)(**same, **more) == made
    with pytest.raises(TransferConflict):
        getattr(services, operation)(**same | {"amount_micro": 2}, **more)
    with transaction.atomic():
        assert ledger.void_pending(held.id, now=at(2)).id == wanted
    assert balances(a)[1] == 0


@pytest.mark.parametrize(
    ("amount_micro", "code"),
    [(0, "amount_not_positive"), (-5, "amount_not_positive"), (2**63, "amount_too_large")],
)
def test_amounts_that_are_no_amounts_are_refused(amount_micro, code):
    a, b = funded("alice", 100), funded("bob", 0)
    with pytest.raises(BadInput) as error:
        ledger.post([leg(a, b, amount_micro)], now=at(1))
    assert error.value.code == code


def test_assets_do_not_mix_and_an_account_does_not_pay_itself():
    a = funded("alice", 100)
    flai = services.account(a.owner, "FLAI")
    for credit, code in ((flai, "asset_mismatch"), (a, "same_account")):
        with pytest.raises(BadInput) as error:
            ledger.post([leg(a, credit, 1)], now=at(1))
        assert error.value.code == code


def test_a_hold_counts_at_once_and_is_paid_or_freed_once():
    a, b = funded("alice", 100), funded("bob", 0)
    hold = ledger.pend(leg(a, b, 80), expires_at=at(60), now=at(1))
    assert (balances(a), balances(b)) == ((100, 80), (0, 0))
    with pytest.raises(InsufficientBalance):
        ledger.post([leg(a, b, 21)], now=at(2))
    with pytest.raises(PostOverHold):
        ledger.post_pending(hold.id, amount_micro=81, now=at(2))
    paid = ledger.post_pending(hold.id, amount_micro=50, now=at(2))
    assert (balances(a), balances(b)) == ((50, 0), (50, 0))
    assert ledger.post_pending(hold.id, amount_micro=50, now=at(3)).id == paid.id
    with pytest.raises(HoldResolved):
        ledger.post_pending(hold.id, amount_micro=51, now=at(3))
    with pytest.raises(HoldResolved):
        ledger.void_pending(hold.id, now=at(3))
    assert (balances(a), balances(b)) == ((50, 0), (50, 0))
    assert not Hold.objects.exists()


def test_a_voided_hold_is_free_and_stays_voided():
    a, b = funded("alice", 100), funded("bob", 0)
    hold = ledger.pend(leg(a, b, 80), expires_at=at(60), now=at(1))
    void = ledger.void_pending(hold.id, now=at(2))
    assert ledger.void_pending(hold.id, now=at(3)).id == void.id
    assert (balances(a), balances(b)) == ((100, 0), (0, 0))
    with pytest.raises(HoldResolved):
        ledger.post_pending(hold.id, now=at(3))


def test_a_hold_that_is_not_there_is_named():
    a, b = funded("alice", 100), funded("bob", 0)
    [single] = ledger.post([leg(a, b, 1)], now=at(1))
    for pending_id in (uuid.uuid4(), single.id):
        with pytest.raises(HoldNotFound):
            ledger.post_pending(pending_id, now=at(2))


def test_a_retried_hold_may_compute_its_expiry_anew():
    a, b = funded("alice", 100), funded("bob", 0)
    wanted = leg(a, b, 80)
    first = ledger.pend(wanted, expires_at=at(60), now=at(1))
    again = ledger.pend(wanted, expires_at=at(65), now=at(6))
    assert again.id == first.id and again.expires_at == at(60)
    assert balances(a) == (100, 80)


def test_an_expired_hold_is_free_at_read_time_and_cannot_be_posted():
    a, b = funded("alice", 100), funded("bob", 0)
    hold = ledger.pend(leg(a, b, 80), expires_at=at(60), now=at(1))
    assert selectors.available_micro(a, now=at(59)) == 20
    assert selectors.available_micro(a, now=at(60)) == 100
    [line] = selectors.wallet(a.owner, now=at(60))
    assert (line.held_micro, line.available_micro) == (0, 100)
    with pytest.raises(HoldExpired):
        ledger.post_pending(hold.id, now=at(60))
    ledger.post([leg(a, b, 100)], now=at(61))
    assert (balances(a), balances(b)) == ((0, 0), (100, 0))
    assert hold.resolution.phase == "void"


def test_the_sweep_voids_what_has_expired_and_nothing_else():
    a, b = funded("alice", 100), funded("bob", 0)
    for expiry in (10, 20, 30):
        ledger.pend(leg(a, b, 10), expires_at=at(expiry), now=at(1))
    assert ledger.sweep_expired(now=at(20)) == 2
    assert ledger.sweep_expired(now=at(20)) == 0
    assert balances(a) == (100, 10)


def test_issuing_stops_at_the_cap():
    with transaction.atomic():
        sdt = services.asset_create(code="SDT-lung", name="Lung", cap_micro=1000, now=T0)
        a = services.account(party("alice"), sdt)
        services.mint(sdt, a, 999, None, T0)
    with pytest.raises(CapExceeded):
        services.mint(sdt, a, 2, None, T0)
    services.mint(sdt, a, 1, None, T0)
    assert selectors.supply_micro(sdt) == 1000 and balances(a) == (1000, 0)


def test_a_balance_at_a_time_is_what_was_posted_until_then():
    a, b = funded("alice", 100), funded("bob", 0)
    ledger.post([leg(a, b, 30)], now=at(10))
    hold = ledger.pend(leg(a, b, 20), expires_at=at(99), now=at(20))
    ledger.post_pending(hold.id, amount_micro=15, now=at(30))
    ledger.post([leg(b, a, 5)], now=at(40))
    for seconds, ours, theirs in [
        (-1, 0, 0), (0, 100, 0), (9.999, 100, 0), (10, 70, 30), (29, 70, 30), (30, 55, 45),
        (40, 60, 40), (9999, 60, 40),
    ]:  # fmt: skip
        assert selectors.balance_at(a.owner, "USDC", ["main"], at(seconds)) == ours
        weights = {a.owner_id: ours, b.owner_id: theirs}
        assert selectors.supply_weights("USDC", ["main"], at(seconds)) == {
            k: v for k, v in weights.items() if v
        }


def test_time_never_runs_backwards_on_an_account():
    a, b = funded("alice", 100), funded("bob", 0)
    ledger.post([leg(a, b, 30)], now=at(10))
    [late] = ledger.post([leg(a, b, 30)], now=at(5))
    assert late.created_at == at(10)


def test_writers_refuse_to_run_outside_a_transaction(transactional_db):
    a, b = funded("alice", 100), funded("bob", 0)
    for write in (
        lambda: ledger.post([leg(a, b, 1)], now=T0),
        lambda: ledger.pend(leg(a, b, 1), expires_at=at(1), now=T0),
        lambda: log.append("test.leaf", {}, now=T0),
    ):
        with pytest.raises(RuntimeError, match="inside the transaction"):
            write()


@pytest.mark.parametrize("legs", [1, 50])
def test_a_post_costs_the_same_queries_for_one_leg_and_for_fifty(legs, monkeypatch):
    a = funded("alice", 1000)
    others = [funded(f"p{i}", 0) for i in range(legs)]
    with statements(monkeypatch) as asked:
        ledger.post([leg(a, b, 2) for b in others], now=at(1))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE wallets_transfer SET amount_micro = 1",
        "DELETE FROM wallets_transfer",
        "TRUNCATE wallets_transfer CASCADE",
        "UPDATE wallets_logleaf SET data = ''",
        "DELETE FROM wallets_logleaf",
        "TRUNCATE wallets_logleaf",
        "UPDATE wallets_logleaf SET seq = seq + 1",
        "UPDATE wallets_logleaf SET seq = NULL",
        "UPDATE wallets_treehead SET root = ''",
        "DELETE FROM wallets_treehead",
        "TRUNCATE wallets_treehead",
        "UPDATE wallets_lognode SET hash = ''",
    ],
)
def test_what_is_written_cannot_be_changed_by_sql(sql, tampering):
    a, b = funded("alice", 100), funded("bob", 0)
    ledger.post([leg(a, b, 1)], now=at(1))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("UPDATE wallets_logleaf SET seq = id")
    TreeHead.objects.create(size=1, root="00", at_ms=1, signature="")
    LogNode.objects.create(level=1, index=0, hash=b"x")
    refused = pytest.raises(IntegrityError, match=r"append-only|numbered once")
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"posted_micro": -1}, "account_available_above_floor"),
        ({"held_micro": 101}, "account_available_above_floor"),
        ({"held_micro": -1}, "account_held_not_negative"),
        ({"floor_micro": -1}, "account_floor_only_for_issuance"),
        ({"purpose": "pocket"}, "account_purpose_known"),
    ],
)
def test_the_database_itself_refuses_impossible_balances(change, constraint):
    a = funded("alice", 100)
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Account.objects.filter(id=a.id).update(**change)


def test_a_hold_is_resolved_once_in_the_database_too():
    a, b = funded("alice", 100), funded("bob", 0)
    hold = ledger.pend(leg(a, b, 10), expires_at=at(9), now=at(1))
    ledger.void_pending(hold.id, now=at(2))
    with pytest.raises(IntegrityError), transaction.atomic():
        Transfer.objects.create(
            id=uuid.uuid4(), debit=a, credit=b, amount_micro=10, kind="test.pay",
            phase="post", pending=hold, created_at=T0,
        )  # fmt: skip


def test_a_hold_costs_a_constant_number_of_queries(monkeypatch):
    a, b = funded("alice", 100), funded("bob", 0)

    def cost(write):
        with statements(monkeypatch) as asked:
            result = write()
        return result, len(asked)

    hold, pending = cost(lambda: ledger.pend(leg(a, b, 10), expires_at=at(60), now=at(1)))
    _, posted = cost(lambda: ledger.post_pending(hold.id, now=at(2)))
    assert (pending, posted) == (1, 2)
