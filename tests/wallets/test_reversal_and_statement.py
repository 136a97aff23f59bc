"""Paying back instead of editing; the statement as CSV."""

from __future__ import annotations

import csv
import io
import uuid

import pytest

from apps.core.models import OutboxEvent
from apps.wallets import ledger, log, services
from apps.wallets.errors import InsufficientBalance, NotReversible, TransferNotFound
from apps.wallets.invariants import validate_reversals_are_opposite
from apps.wallets.models import Transfer
from apps.wallets.statement import statement_csv
from tests.wallets.ledger_helpers import at, balances, funded, leg
from tests.wallets.test_wallet_api import member, post

pytestmark = pytest.mark.django_db


def test_a_reversal_takes_back_exactly_the_payment_and_only_once():
    a, b = funded("alice", 100), funded("bob", 0)
    [paid] = ledger.post([leg(a, b, 30)], now=at(1))
    back = ledger.reverse(paid.id, now=at(2))
    assert (balances(a), balances(b)) == ((100, 0), (0, 0))
    assert (back.ref_type, back.ref_id) == ("wallets.transfer", str(paid.id))
    assert (
        f'"ref":"wallets.transfer:{paid.id}"'
        in bytes(log.leaf_for("wallets.transfer", back.id).data).decode()
    )
    assert ledger.reverse(paid.id, now=at(3)).id == back.id
    [event] = OutboxEvent.objects.filter(name="wallets.TransferReversed")
    assert event.payload == {"transfer_id": str(paid.id), "reversal_id": str(back.id)}
    assert Transfer.objects.filter(kind="wallets.reversal").count() == 1


def test_what_was_posted_over_a_hold_is_reversed_and_holds_and_reversals_are_not():
    a, b = funded("alice", 100), funded("bob", 0)
    hold = ledger.pend(leg(a, b, 30), expires_at=at(60), now=at(1))
    paid = ledger.post_pending(hold.id, amount_micro=20, now=at(2))
    back = ledger.reverse(paid.id, now=at(3))
    assert (balances(a), balances(b)) == ((100, 0), (0, 0))
    for id_ in (hold.id, back.id):
        with pytest.raises(NotReversible):
            ledger.reverse(id_, now=at(4))
    with pytest.raises(TransferNotFound):
        ledger.reverse(uuid.uuid4(), now=at(4))


def test_a_payment_that_is_spent_is_not_reversed():
    a, b, c = funded("alice", 100), funded("bob", 0), funded("carol", 0)
    [paid] = ledger.post([leg(a, b, 30)], now=at(1))
    ledger.post([leg(b, c, 1)], now=at(2))
    with pytest.raises(InsufficientBalance):
        ledger.reverse(paid.id, now=at(3))
    assert (balances(a), balances(b)) == ((70, 0), (29, 0))


def test_a_reversal_of_something_else_is_found(tampering):
    a, b = funded("alice", 100), funded("bob", 50)
    [paid] = ledger.post([leg(a, b, 30)], now=at(1))
    ref = ("wallets.transfer", paid.id)
    for amount_micro in (29, 30):
        wrong = ledger.Leg(b, a, amount_micro, ledger.REVERSAL, ref=ref)
        ledger.post([wrong], now=at(2))
    assert {text.split(" ", 2)[2] for text in validate_reversals_are_opposite()} == {
        "does not reverse the transfer that it names",
        "was reversed twice",
    }


def test_only_the_payee_gives_a_payment_back():
    (ada, _), (bob, _) = member("ada"), member("bob")
    post(ada, "faucet", {"asset": "USDC", "amount_micro": "5"})
    sent = post(ada, "transfers", {"to": "bob", "asset": "USDC", "amount_micro": "2"}).data["id"]
    assert post(ada, f"transfers/{sent}/reversal", {}).status_code == 404
    back = post(bob, f"transfers/{sent}/reversal", {})
    assert back.status_code == 201 and back.data["ref"] == f"wallets.transfer:{sent}"
    assert post(bob, f"transfers/{sent}/reversal", {}).data["id"] == back.data["id"]
    faucet = Transfer.objects.get(kind="wallets.faucet").id
    refused = post(ada, f"transfers/{faucet}/reversal", {})
    assert (refused.status_code, refused.data["code"]) == (409, "not_reversible")


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_statement_has_each_movement_with_the_balance_after_it():
    a, b = funded("alice", 100), funded("bob", 0)
    services.account(a.owner, "USDC", "escrow")
    ledger.post([leg(a, b, 30, memo='=HYPERLINK("x")')], now=at(10))
    hold = ledger.pend(leg(a, b, 20), expires_at=at(99), now=at(20))
    ledger.post_pending(hold.id, amount_micro=15, now=at(30))
    ledger.post([leg(a, services.account(a.owner, "USDC", "escrow"), 5)], now=at(40))
    found = lines(statement_csv(a.owner, since=None, until=None))
    shown = [
        (x["account"], x["phase"], x["change_micro"], x["held_micro"], x["balance_micro"])
        for x in found
    ]
    assert shown == [
        ("main/USDC", "single", "100", "0", "100"),
        ("main/USDC", "single", "-30", "0", "70"),
        ("main/USDC", "pend", "0", "20", "70"),
        ("main/USDC", "post", "-15", "0", "55"),
        ("main/USDC", "single", "-5", "0", "50"),
        ("escrow/USDC", "single", "5", "0", "5"),
    ]
    assert found[1]["memo"] == '\'=HYPERLINK("x")'
    period = lines(statement_csv(a.owner, since=at(20), until=at(40)))
    assert [x["balance_micro"] for x in period] == ["70", "55"]


@pytest.mark.parametrize("accept", ["*/*", "text/csv"])
def test_the_api_gives_the_statement_of_who_asks(accept):
    (ada, _), (bob, _) = member("ada"), member("bob")
    post(ada, "faucet", {"asset": "USDC", "amount_micro": "5"})
    answer = ada.get("/api/v1/wallet/statement.csv", HTTP_ACCEPT=accept)
    assert answer.status_code == 200 and answer["Content-Type"].startswith("text/csv")
    assert [x["change_micro"] for x in lines(answer.content.decode())] == ["5"]
    assert lines(bob.get("/api/v1/wallet/statement.csv").content.decode()) == []
    wrong = ada.get("/api/v1/wallet/statement.csv?since=yesterday", HTTP_ACCEPT=accept)
    assert wrong.status_code == 400
