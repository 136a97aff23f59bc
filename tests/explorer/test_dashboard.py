"""The dashboard says what needs the reader, what changed since, what they earned, and no more."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.models import Party, User
from apps.accounts.services import party_create, sign_up, visit
from apps.core import clock
from apps.core.transactions import durable
from apps.rfms.models import Crowdfund, Pledge
from apps.training.models import Member, Round, Submission
from apps.wallets import ledger
from apps.wallets.services import account
from tests.explorer import world as worlds

MICRO = 1_000_000


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


def seen(user: User) -> Any:
    client = Client()
    client.force_login(user)
    answer = client.get("/")
    assert answer.status_code == 200
    return answer.context


def lines(items: list[Any]) -> dict[str, str]:
    return {item.title: item.why for item in items}


def payout(built: worlds.World, micro: int, at: datetime) -> None:
    with durable():
        ledger.post(
            [
                ledger.Leg(
                    id=uuid.uuid4(),
                    debit_account=account(built.dao.party, "USDC", "treasury"),
                    credit_account=account(built.party, "USDC"),
                    amount_micro=micro,
                    kind="listings.payout",
                )
            ],
            now=at,
        )


def test_it_lists_what_needs_the_reader_and_where(built: worlds.World) -> None:
    """A vote with weight, a draft, a request about to close, a round that waits, a claim."""
    now = clock.now()
    soon = Crowdfund.objects.get(rfm=built.funding)
    Pledge.objects.create(
        crowdfund=soon, party=built.party, asked_micro=1, amount_micro=1, pledged_at=now
    )
    Crowdfund.objects.filter(pk=soon.pk).update(deadline_at=now + timedelta(days=2))
    Round.objects.filter(id=built.round.id).update(phase="updates", closed_at=None)
    member = Member.objects.filter(round=built.round, role="custodian").first()
    Member.objects.filter(pk=member.pk).update(party=built.party)
    assert lines(seen(built.buyer)["needs"]) == {
        built.open_vote.title: "SuperDAO asks for your vote",
        built.draft.title: "Your draft, seen by you only",
        built.funding.title: "You backed it; $362.50 is missing",
        f"Round 1 of {built.dao.name}": "It waits for your agent to send the update",
        f"Epoch 1 of {built.dao.name}": "It owes you $0.25",
    }
    Submission.objects.filter(round=built.round, party=member.party).update(party=built.party)
    assert f"Round 1 of {built.dao.name}" not in lines(seen(built.buyer)["needs"])


def test_every_line_leads_to_a_page(built: worlds.World) -> None:
    client = Client()
    client.force_login(built.buyer)
    context = client.get("/").context
    addresses = [item.url for item in [*context["needs"], *context["changed"]]]
    assert addresses and all(client.get(url).status_code == 200 for url in addresses)


def test_a_low_balance_names_the_price(built: worlds.World) -> None:
    left = seen(built.buyer)["to_spend_micro"]
    with durable():
        ledger.post(
            [
                ledger.Leg(
                    id=uuid.uuid4(),
                    debit_account=account(built.party, "USDC"),
                    credit_account=account(built.dao.party, "USDC"),
                    amount_micro=left - 20_000,
                    kind="wallets.send",
                )
            ],
            now=clock.now(),
        )
    said = lines(seen(built.buyer)["needs"])
    assert said["You have $0.02 to spend"] == f"One row of {built.dao.name} costs $0.50"


def test_what_changed_ends_with_the_visit(built: worlds.World) -> None:
    """News stays for the whole visit and is none in the next; a live page's reading is no visit."""
    now = clock.now()
    User.objects.filter(pk=built.buyer.pk).update(date_joined=now - timedelta(days=1))
    client = Client()
    client.force_login(built.buyer)
    first = client.get("/").context["changed"]
    assert f"Your prediction by {built.dao.name}" in lines(first)
    assert client.get("/").context["changed"] == first
    client.get("/", headers={"X-Live": "1"})
    User.objects.filter(pk=built.buyer.pk).update(visited_at=now - timedelta(minutes=29))
    assert client.get("/").context["changed"] == first
    User.objects.filter(pk=built.buyer.pk).update(visited_at=now - timedelta(seconds=1))
    user = User.objects.get(pk=built.buyer.pk)
    assert visit(user, now=now + timedelta(hours=1)) == now - timedelta(seconds=1)
    assert client.get("/").context["changed"] == []


def test_income_is_what_was_paid_out_and_nothing_else(built: worlds.World) -> None:
    """The faucet's money is no income; a payout of a month ago counts in all, not as recent."""
    now = clock.now()
    assert seen(built.buyer)["earned"].all_micro == 0 and seen(built.buyer)["earnings"] is None
    Party.objects.filter(pk=built.party.pk).update(created_at=now - timedelta(days=90))
    payout(built, 3 * MICRO, now)
    payout(built, 2_400_000, now)
    context = seen(built.buyer)
    assert (context["earned"].all_micro, context["earned"].recent_micro) == (5_400_000, 5_400_000)
    assert context["earnings"].last == "$5.40"
    assert "You were paid $5.40" in lines(context["changed"])


def test_a_new_account_is_told_how_to_begin(built: worlds.World) -> None:
    user, _ = sign_up(email="new@example.org", password=worlds.PASSWORD, name="Nova", kind="person")
    context = seen(user)
    assert context["needs"] == [] and context["new"]


def test_the_landing_page_is_for_strangers(built: worlds.World) -> None:
    assert "figures" in Client().get("/").context
    refused = Client().get(reverse("explorer:dashboard"))
    assert refused.headers["Location"].startswith(reverse("explorer:sign-in"))


def test_it_costs_the_same_queries_however_much_there_is(built: worlds.World) -> None:
    client = Client()
    client.force_login(built.buyer)

    def counted() -> int:
        with CaptureQueriesContext(connection) as queries:
            client.get("/")
        return len(queries)

    counted()  # the first one notes the visit
    worlds.grow(built, 2)
    few = counted()
    worlds.grow(built, 6)
    payout(built, 1, clock.now())
    with durable():
        party_create(kind="person", name="Else", now=clock.now())
    assert counted() == few <= 12
