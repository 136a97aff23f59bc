"""Parties with money, for tests of the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import Party
from apps.core import joined
from apps.wallets import ledger, services
from apps.wallets.ledger import Leg
from apps.wallets.models import Account

T0 = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """`seconds` after T0."""
    return T0 + timedelta(seconds=seconds)


def party(slug: str) -> Party:
    return Party.objects.create(kind="person", name=slug.title(), slug=slug)


def funded(slug: str, usdc_micro: int, *, now: datetime = T0) -> Account:
    """The main USDC account of a new party, with that much on it."""
    with transaction.atomic():
        account = services.account(party(slug), "USDC")
        if usdc_micro:
            services.mint("USDC", account, usdc_micro, None, now)
    return account


def leg(debit: Account, credit: Account, amount_micro: int, **more: object) -> Leg:
    return Leg(
        id=more.pop("id", None) or uuid.uuid4(),
        debit_account=debit,
        credit_account=credit,
        amount_micro=amount_micro,
        kind="test.pay",
        **more,
    )


def balances(account: Account) -> tuple[int, int]:
    """(posted, held) as stored."""
    account.refresh_from_db()
    return account.posted_micro, account.held_micro


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the ledger asks of the database meanwhile, prepared statements too."""
    asked: list[str] = []

    def counted(module: Any) -> None:
        real = module.prepared

        def prepared(statement: str, values: Any) -> Any:
            asked.append(statement)
            return real(statement, values)

        monkeypatch.setattr(module, "prepared", prepared)

    for module in (ledger, joined):
        counted(module)
    with CaptureQueriesContext(connection) as queries:
        yield asked
    asked += [q["sql"] for q in queries if "SAVEPOINT" not in q["sql"]]
