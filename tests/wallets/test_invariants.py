"""verify_ledger finds each kind of tampering and names the place."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command
from django.db import connection

from apps.wallets import invariants, ledger, log
from apps.wallets.invariants import violations
from tests.wallets.ledger_helpers import at, funded, leg

pytestmark = pytest.mark.django_db


@pytest.fixture
def story():
    """alice has 100; pays bob 30; holds 20 (5 posted), 7 (voided) and 9 (open); two heads."""
    a, b = funded("alice", 100), funded("bob", 0)
    ledger.post([leg(a, b, 30)], now=at(1))
    log.sequence(now=at(1))
    for amount_micro in (20, 7, 9):
        hold = ledger.pend(leg(a, b, amount_micro), expires_at=at(99), now=at(2))
        if amount_micro == 20:
            ledger.post_pending(hold.id, amount_micro=5, now=at(3))
        elif amount_micro == 7:
            ledger.void_pending(hold.id, now=at(3))
    log.sequence(now=at(3))


def tamper(sql):
    """As somebody who owns the database would: past triggers and constraints."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for check in ("account_available_above_floor", "account_held_not_negative"):
            cursor.execute(f"ALTER TABLE wallets_account DROP CONSTRAINT {check}")
        cursor.execute(sql)
        assert cursor.rowcount > 0, "nothing was tampered with"
        cursor.execute("SET session_replication_role = origin")


def broken():
    return {name for name, breaches in violations().items() if breaches}


def test_an_honest_story_breaks_nothing(story):
    assert broken() == set()
    assert len(violations()) == len(invariants.INVARIANTS) == 17


@pytest.mark.parametrize(
    ("sql", "found_by"),
    [
        ("UPDATE wallets_account SET posted_micro = posted_micro + 1 WHERE posted_micro = 65",
         {"assets sum to zero", "replay gives the balances"}),
        ("UPDATE wallets_account SET held_micro = held_micro - 1 WHERE held_micro > 0",
         {"replay gives the balances"}),
        ("UPDATE wallets_account SET held_micro = 99 WHERE held_micro > 0",
         {"replay gives the balances", "no balance below its floor"}),
        ("UPDATE wallets_transfer SET amount_micro = 31 WHERE amount_micro = 30",
         {"replay gives the balances", "every transfer has its leaf"}),
        ("UPDATE wallets_transfer SET amount_micro = 3000 WHERE amount_micro = 30",
         {"replay gives the balances", "every transfer has its leaf"}),
        ("UPDATE wallets_transfer SET kind = 'test.gift' WHERE amount_micro = 30",
         {"every transfer has its leaf"}),
        ("UPDATE wallets_transfer SET created_at = created_at - interval '1 day'",
         {"every transfer has its leaf"}),
        ("UPDATE wallets_transfer SET debit_id = credit_id, credit_id = debit_id"
         " WHERE amount_micro = 30",
         {"replay gives the balances", "every transfer has its leaf"}),
        ("DELETE FROM wallets_transfer WHERE amount_micro = 30",
         {"replay gives the balances", "every transfer has its leaf"}),
        ("UPDATE wallets_transfer SET amount_micro = 21 WHERE phase = 'post'",
         {"resolutions match their pendings", "replay gives the balances",
          "every transfer has its leaf"}),
        ("DELETE FROM wallets_hold", {"holds are the open pendings"}),
        ("UPDATE wallets_hold SET amount_micro = 8", {"holds are the open pendings"}),
        ("UPDATE wallets_asset SET cap_micro = 99 WHERE code = 'USDC'",
         {"supplies within caps"}),
        ("UPDATE wallets_logleaf SET data = data || 'x' WHERE seq = 1",
         {"every transfer has its leaf", "leaves are canonical", "heads sign the log"}),
        ("UPDATE wallets_logleaf SET data = overlay(data PLACING '9' FROM 8 FOR 1),"
         " hash = sha256('\\x00' || overlay(data PLACING '9' FROM 8 FOR 1)) WHERE seq = 1",
         {"every transfer has its leaf", "heads sign the log",
          "stored subtrees"}),
        ("DELETE FROM wallets_logleaf WHERE seq = 1",
         {"every transfer has its leaf", "numbering has no gap", "heads sign the log",
          "replay gives the balances", "stored subtrees"}),
        ("DELETE FROM wallets_logleaf WHERE seq = (SELECT max(seq) FROM wallets_logleaf)",
         {"every transfer has its leaf", "numbering has no gap", "heads sign the log",
          "replay gives the balances"}),
        ("UPDATE wallets_logleaf SET seq = CASE seq WHEN 0 THEN 1 ELSE 0 END WHERE seq < 2",
         {"heads sign the log", "stored subtrees"}),
        ("UPDATE wallets_treehead SET root = repeat('0', 64) WHERE size = 2",
         {"heads sign the log"}),
        ("UPDATE wallets_treehead SET signature = repeat('0', 128) WHERE size = 2",
         {"heads sign the log"}),
        ("UPDATE wallets_treehead SET at_ms = at_ms + 1 WHERE size = 2",
         {"heads sign the log"}),
        ("DELETE FROM wallets_treehead WHERE size > 2", {"numbering has no gap"}),
        ("UPDATE wallets_lognode SET hash = '\\x00' WHERE index = 0 AND level = 1",
         {"stored subtrees"}),
        ("DELETE FROM wallets_lognode WHERE index = 0 AND level = 1", {"stored subtrees"}),
    ],
)  # fmt: skip
def test_tampering_is_found(story, tampering, sql, found_by):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if "seq = CASE" in sql:
            cursor.execute("DROP INDEX leaf_seq_once")
    tamper(sql)
    assert broken() == found_by


def test_the_place_of_a_breach_is_named(story, tampering):
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    tamper("UPDATE wallets_logleaf SET data = data || 'x' WHERE seq = 1")
    assert violations()["leaves are canonical"] == ["the leaf 1 does not have its hash"]


def test_the_command_shows_each_invariant_and_fails_on_a_breach(story, tampering):
    out = io.StringIO()
    call_command("verify_ledger", stdout=out)
    assert out.getvalue().count("✓") == 17 and "7 log entries" in out.getvalue()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    tamper("UPDATE wallets_account SET held_micro = held_micro - 1 WHERE held_micro > 0")
    out = io.StringIO()
    with pytest.raises(SystemExit) as exit_:
        call_command("verify_ledger", "--json", stdout=out)
    result = json.loads(out.getvalue())
    assert exit_.value.code == 1 and result["ok"] is False
    [breach] = result["invariants"]["replay gives the balances"]
    assert "/main/USDC" in breach
