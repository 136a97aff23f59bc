"""A payment in one round trip: whatever it can't do as it is, the longer way does or refuses."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import transaction

from apps.accounts.models import Party
from apps.core.errors import DomainError
from apps.core.transactions import joinable
from apps.wallets import ledger, services
from apps.wallets.models import Account, LogLeaf, Transfer
from tests.wallets.ledger_helpers import at, funded, leg, party, statements

pytestmark = pytest.mark.django_db(transaction=True)


def send(source: Account, to: Party, micro: int, **more: object) -> Transfer:
    more.setdefault("now", at(1))
    return services.send(party=source.owner, to=to, asset="USDC", amount_micro=micro, **more)


def has(account: Account) -> int:
    account.refresh_from_db()
    return account.posted_micro


def test_a_payment_is_one_statement_and_tells_what_is_known_of_it(monkeypatch) -> None:
    a, b = funded("alice", 100), funded("bob", 0)
    with statements(monkeypatch) as asked:
        made = send(a, b.owner, 30, memo="for lunch")
        sides = [made.debit.code, made.credit.code, made.debit.owner.name, made.debit.asset.code]
    assert len(asked) == 1, asked
    stored = Transfer.objects.get(id=made.id)
    assert sides == [stored.debit.code, stored.credit.code, "Alice", "USDC"]
    for name in (f.attname for f in Transfer._meta.concrete_fields):
        assert getattr(made, name) == getattr(stored, name), name
    assert made.debit.posted_micro == 70  # read when somebody asks
    assert (has(a), has(b)) == (70, 30)
    assert LogLeaf.objects.filter(type="wallets.transfer", ref_id=str(made.id)).count() == 1


def test_it_joins_the_transaction_that_its_view_has_begun() -> None:
    a, b = funded("alice", 100), funded("bob", 0)
    with pytest.raises(ZeroDivisionError), joinable():
        send(a, b.owner, 30)
        raise ZeroDivisionError
    assert (has(a), has(b)) == (100, 0)
    with transaction.atomic(), pytest.raises(RuntimeError):
        send(a, b.owner, 30)  # nobody else's
    assert (has(a), has(b)) == (100, 0)


def test_what_it_cannot_do_is_done_or_refused_the_longer_way() -> None:
    a, b, carol = funded("alice", 100), funded("bob", 0), party("carol")
    key = uuid.uuid4()
    first = send(a, b.owner, 30, idempotency=key)
    assert send(a, b.owner, 30, idempotency=key, now=at(9)) == first and has(b) == 30
    for micro, to, code in (
        (31, b.owner, "transfer_conflict"),
        (30, carol, "transfer_conflict"),
    ):
        with pytest.raises(DomainError, match=code):
            send(a, to, micro, idempotency=key)
    for micro, to, code in (
        (71, b.owner, "insufficient_balance"),
        (0, b.owner, "amount_not_positive"),
        (2**63, b.owner, "amount_too_large"),
        (1, a.owner, "same_account"),
    ):
        with pytest.raises(DomainError, match=code):
            send(a, to, micro)
    assert (has(a), has(b), Transfer.objects.filter(kind="wallets.send").count()) == (70, 30, 1)
    assert send(a, carol, 10).credit.owner == carol  # her first account is made for it
    with transaction.atomic():
        ledger.pend(leg(a, b, 60), expires_at=at(5), now=at(2))
    with pytest.raises(DomainError, match="insufficient_balance"):
        send(a, b.owner, 60, now=at(3))
    assert send(a, b.owner, 60, now=at(6)).created_at == at(6)  # that hold had expired
    closed = services.account(carol, "USDC")
    send(closed, b.owner, 10, now=at(7))
    with transaction.atomic():
        services.account_close(closed, now=at(8))
    with pytest.raises(DomainError, match="account_closed"):
        send(b, carol, 1, now=at(9))


def test_its_time_is_after_what_its_accounts_and_its_asset_have_closed() -> None:
    a, b = funded("alice", 100, now=at(50)), funded("bob", 0)
    assert send(a, b.owner, 1).created_at == at(50)
    with transaction.atomic():
        ledger.quiet(a.asset_id, until=at(70))
    assert send(a, b.owner, 1, now=at(60)).created_at == at(70)
    assert send(a, b.owner, 1, now=at(70) + timedelta(seconds=1)).created_at == at(71)
