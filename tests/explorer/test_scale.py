"""The seeded data set: true to ledger and log, made of its seed, never on top of other content."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Count, Max
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLResolver, get_resolver, resolve

from apps.accounts.models import Party, User
from apps.compute import selectors as compute
from apps.compute.models import Job, Node, Receipt
from apps.core import clock
from apps.exchange.invariants import EXCHANGE_INVARIANTS
from apps.exchange.models import Pool, PoolEvent, VaultPosition
from apps.explorer import urls
from apps.explorer.scale import EMAIL, Plan, addresses, seed
from apps.explorer.scale.world import World
from apps.governance.models import Proposal
from apps.listings import claims
from apps.listings.models import Entitlement, Listing, Query
from apps.protocol import entitlements, merkle
from apps.protocol.tally import voting_shares_ppm
from apps.rfms.models import Crowdfund, Rfm
from apps.subdaos import selectors as subdaos
from apps.subdaos.models import Dao
from apps.wallets.invariants import violations
from apps.wallets.models import Account, LogLeaf, Transfer
from tests.explorer.pages import takes_posts_only

OBJECTS = 20
QUERIES_MAX = 12

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_data_set_keeps_every_invariant_and_what_its_rows_say_of_money() -> None:
    seed(Plan(OBJECTS, 1, clock.now()))
    assert {name: found for name, found in violations().items() if found} == {}
    assert [breach for holds in EXCHANGE_INVARIANTS for breach in holds()] == []
    kinds = (Rfm, Proposal, Listing, Query, Pool, PoolEvent, VaultPosition, Transfer, LogLeaf)
    for kind in kinds:
        assert kind.objects.count() >= OBJECTS, kind
    for fund in Crowdfund.objects.select_related("escrow"):
        standing = 0 if fund.awarded_at else fund.raised_micro
        assert fund.escrow.posted_micro == standing
    revenue = Account.objects.filter(purpose="revenue", posted_micro__gt=0)
    settled = Query.objects.filter(state="settled")
    assert sum(a.posted_micro for a in revenue) == sum(q.price_micro for q in settled) > 0
    for proposal in Proposal.objects.exclude(votes=None):
        assert proposal.for_weight == sum(vote.weight for vote in proposal.votes.all())


def test_what_the_data_set_owes_has_its_proof() -> None:
    plan = Plan(OBJECTS, 1, clock.now())
    seed(plan)
    last = plan.id("epoch", 0, plan.half)
    rows = list(Entitlement.objects.filter(epoch=last))
    assert len(rows) == OBJECTS
    for row in rows:
        owed = entitlements.Entitlement(row.asset, row.role, row.pid, row.amount_micro)
        proof = claims.proof(row)
        path = [bytes.fromhex(step) for step in proof["path"]]
        leaf = entitlements.leaf_hash(str(last), owed)
        root = merkle.root_from_inclusion(leaf, proof["index"], proof["size"], path)
        assert root.hex() == proof["root"]


def test_short_ways_find_what_long_ways_find(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(OBJECTS, 1, clock.now())
    seed(plan)
    dao = Dao.objects.get(slug="model-0")
    points = subdaos.points_at(dao, plan.now)
    shares = voting_shares_ppm(points)
    count, rows = subdaos.heaviest(dao, plan.now, most=3)
    assert count == len(points) > 3
    found = [(row["party"].id, row["points_micro"], row["weight_bps"]) for row in rows]
    heaviest = sorted(points, key=lambda party_id: -points[party_id])[:3]
    assert found == [(id_, points[id_], shares[id_] // 100) for id_ in heaviest]

    monkeypatch.setattr(compute, "_counted", (compute.NEVER, compute.NEVER, {}))
    for later in (timedelta(0), timedelta(0), timedelta(minutes=30)):
        assert compute.receipts_signed(now=plan.now + later) == _signed()
    job = Job.objects.filter(receipts=None).first()
    Receipt.objects.create(
        job=job, node=Node.objects.first(), body={}, created_at=plan.now + timedelta(minutes=30)
    )
    for later in (timedelta(minutes=30), timedelta(minutes=50), timedelta(hours=2)):
        assert compute.receipts_signed(now=plan.now + later) == _signed()


def _signed() -> dict[tuple[UUID, str], tuple[int, datetime]]:
    rows = Receipt.objects.values_list("node", "job__circuit")
    counted = rows.annotate(count=Count("id"), at=Max("created_at"))
    return {(node, circuit): (count, at) for node, circuit, count, at in counted}


def test_tokens_begin_with_flai_then_the_newest() -> None:
    plan = Plan(OBJECTS + 10, 1, clock.now())
    seed(plan)
    answer = Client().get("/tokens/")
    codes = [row["asset"].code for row in answer.context["rows"]]
    assert codes[:2] == ["FLAI", f"SDT-m{plan.objects - 1}"]
    further = Client().get("/tokens/?" + answer.context["page"].older)
    codes += [row["asset"].code for row in further.context["rows"]]
    assert sorted(codes) == sorted(["FLAI", *(f"SDT-m{i}" for i in range(plan.objects))])


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
                status = addresses.ask(client, name, address)
            if who == "member":  # 405: where a form goes, no page
                assert status in (200, 405), (name, status)
            counts[f"{who}: {name}"] = len(queries)
    return counts


def test_every_page_is_among_those_that_are_measured() -> None:
    """Whoever adds a page about an object names an example of it; where a form goes is no page."""
    plan = Plan(OBJECTS, 1, clock.now())
    measured = {name.split()[0].rstrip(",") for name in addresses.pages(plan)}
    for row in urls.urlpatterns:
        if row.name not in measured | addresses.LEFT_OUT:
            assert takes_posts_only(row), (
                f"add an example of {row.name} to apps/explorer/scale/addresses.py"
            )


def test_every_answer_of_the_api_is_among_those_that_are_measured() -> None:
    plan = Plan(OBJECTS, 1, clock.now())
    asked = addresses.api(plan) | addresses.api_own(plan)
    measured = {resolve(address.partition("?")[0]).route for address in asked.values()}
    answers = {
        f"{part.pattern}{row.pattern}"
        for part in get_resolver().url_patterns
        if isinstance(part, URLResolver) and str(part.pattern)
        for row in part.url_patterns
        if hasattr(row.callback.cls, "get")
    }
    assert len(answers) > 40
    missing = answers - measured - addresses.API_LEFT_OUT
    assert missing == set(), "add examples of these to apps/explorer/scale/addresses.py"
