"""The seeded data set: true to ledger and log, made of its seed, never on top of other content."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import Party, User
from apps.core import clock
from apps.explorer.scale import EMAIL, Plan, addresses, seed
from apps.explorer.scale.world import World
from apps.governance.models import Proposal
from apps.listings.models import Listing, Query
from apps.rfms.models import Crowdfund, Rfm
from apps.wallets.invariants import violations
from apps.wallets.models import Account, LogLeaf, Transfer

OBJECTS = 20
QUERIES_MAX = 12
# Where forms go: no pages, so they answer a GET with 405.
FORMS = {
    "key-revoke", "rfm-submit", "rfm-pledge", "rfm-withdraw", "proposal-vote", "proposal-execute",
    "stake", "unstake", "faucet",
}  # fmt: skip

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_data_set_keeps_every_invariant_and_what_its_rows_say_of_money() -> None:
    seed(Plan(OBJECTS, 1, clock.now()))
    assert {name: found for name, found in violations().items() if found} == {}
    for kind in (Rfm, Proposal, Listing, Query, Transfer, LogLeaf):
        assert kind.objects.count() >= OBJECTS, kind
    for fund in Crowdfund.objects.select_related("escrow"):
        standing = 0 if fund.awarded_at else fund.raised_micro
        assert fund.escrow.posted_micro == standing
    revenue = Account.objects.filter(purpose="revenue", posted_micro__gt=0)
    settled = Query.objects.filter(state="settled")
    assert sum(a.posted_micro for a in revenue) == sum(q.price_micro for q in settled) > 0
    for proposal in Proposal.objects.exclude(votes=None):
        assert proposal.for_weight == sum(vote.weight for vote in proposal.votes.all())


def test_the_same_seed_makes_the_same_rows_and_another_seed_others() -> None:
    now = clock.now()
    first, same, other = (Plan(OBJECTS, number, now).id("party", 3) for number in (1, 1, 2))
    assert first == same != other


def test_a_database_with_content_is_left_alone() -> None:
    Party.objects.create(kind="person", name="Somebody", slug="somebody")
    with pytest.raises(CommandError, match="This database has parties"):
        call_command("seed_scale", objects=OBJECTS, stdout=StringIO())
    assert Rfm.objects.count() == 0


def test_a_seed_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "sell", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        seed(Plan(OBJECTS, 1, clock.now()))
    assert not Rfm.objects.exists() and not Transfer.objects.exists()


def test_no_page_needs_more_queries_for_more_rows() -> None:
    """At most 12 on every page and list, and as many with 3 objects of each kind as with 30."""
    counts = []
    for objects in (3, 30):
        call_command("flush", interactive=False, verbosity=0)
        plan = Plan(objects, 1, clock.now())
        seed(plan)
        counts.append(_counted(plan))
    few, many = counts
    assert {name: n for name, n in many.items() if n > QUERIES_MAX} == {}
    assert {name: (few[name], n) for name, n in many.items() if few[name] != n} == {}


def _counted(plan: Plan) -> dict[str, int]:
    """Queries of each address, asked for by a stranger and by the busiest member."""
    stranger, member = Client(), Client()
    member.force_login(User.objects.get(email=EMAIL))
    shared = addresses.pages(plan) | addresses.api(plan)
    counts = {}
    for who, client, asked in (
        ("stranger", stranger, shared),
        ("member", member, shared | addresses.api_own(plan)),
    ):
        for name, address in asked.items():
            with CaptureQueriesContext(connection) as queries:
                status = client.get(address).status_code
            if who == "member" and name.split()[0].rstrip(",") not in FORMS:
                assert status == 200, (name, status)
            counts[f"{who}: {name}"] = len(queries)
    return counts


def test_every_page_is_among_those_that_are_measured() -> None:
    plan = Plan(OBJECTS, 1, clock.now())
    missing = set(addresses.names()) - {
        name.split()[0].rstrip(",") for name in addresses.pages(plan)
    }
    assert missing <= FORMS, "add an example of the page to apps/explorer/scale/addresses.py"
