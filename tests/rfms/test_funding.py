"""Pledges, the cap, withdrawal, award and refund: every micro-unit accounted for."""

from __future__ import annotations

from uuid import uuid4, uuid5

import pytest

from apps.accounts.models import Party
from apps.core.errors import DomainError, Forbidden
from apps.core.models import OutboxEvent
from apps.participants.selectors import roster
from apps.rfms import services
from apps.rfms.funding import NotReady
from apps.rfms.models import Crowdfund, Pledge
from apps.rfms.selectors import describe, pledged_micro, rfm_by_slug
from apps.subdaos import selectors as subdaos
from apps.wallets.invariants import violations
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import faucet
from tests.governance.helpers import (
    MICRO,
    apply,
    approved,
    at,
    balance,
    founded,
    party,
    treasury,
    whitelisted,
    with_participants,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def rfm():
    author = party("Author", flai=10)
    return approved(author, author)


@pytest.fixture(autouse=True)
def _ledger_holds(db):
    yield
    assert {k: v for k, v in violations().items() if v} == {}


def pledge(rfm, who, amount: int, now=None, **more):
    return services.pledge(party=who, slug=rfm.slug, amount_micro=amount, now=now or at(15), **more)


def test_what_goes_over_the_target_is_not_taken(rfm) -> None:
    first, second = party("First", usdc=700), party("Second", usdc=700)
    pledge(rfm, first, 700 * MICRO)
    made = pledge(rfm, second, 700 * MICRO)
    assert (made.asked_micro, made.amount_micro) == (700 * MICRO, 300 * MICRO)
    assert balance(second) == 400 * MICRO
    fund = Crowdfund.objects.get(rfm=rfm)
    assert fund.raised_micro == fund.target_micro == fund.escrow.posted_micro
    assert fund.filled_at == at(15)
    assert OutboxEvent.objects.filter(name="rfms.CrowdfundFilled").count() == 1
    with pytest.raises(Forbidden, match="target_reached"):
        pledge(rfm, second, 1)
    with pytest.raises(Forbidden, match="target_reached"):
        services.pledge_withdraw(party=second, slug=rfm.slug, now=at(16))


def test_the_same_pledge_again_is_the_same_pledge(rfm) -> None:
    who, key = party("Backer", usdc=700), uuid4()
    first = pledge(rfm, who, 100 * MICRO, idempotency=key)
    assert pledge(rfm, who, 100 * MICRO, idempotency=key) == first
    with pytest.raises(DomainError, match="pledge_conflict"):
        pledge(rfm, who, 200 * MICRO, idempotency=key)
    assert balance(who) == 600 * MICRO


def test_nobody_can_take_the_id_of_somebodys_refund(rfm) -> None:
    """A pledge's id is public; its refund's id follows from it."""
    who, thief = party("Backer", usdc=700), party("Squatter", usdc=700)
    made = pledge(rfm, who, 100 * MICRO)
    wanted = uuid5(made.id, "returned")
    pledge(rfm, thief, MICRO, idempotency=wanted)
    faucet(party=thief, asset="USDC", amount_micro=1, idempotency=wanted, now=at(15))
    assert not Transfer.objects.filter(id=wanted).exists()
    assert services.close_due(rfm_id=rfm.id, now=at(603)) is True
    assert balance(who) == 700 * MICRO
    assert rfm_by_slug(rfm.slug).status == "failed"


def test_two_backers_may_use_the_same_key(rfm) -> None:
    one, other, key = party("One", usdc=9), party("Other", usdc=9), uuid4()
    first = pledge(rfm, one, 5 * MICRO, idempotency=key)
    second = pledge(rfm, other, 6 * MICRO, idempotency=key)
    assert first.id != second.id and (balance(one), balance(other)) == (4 * MICRO, 3 * MICRO)


def test_who_has_too_little_pledges_nothing(rfm) -> None:
    who = party("Poor", usdc=5)
    with pytest.raises(DomainError, match="insufficient_balance") as refused:
        pledge(rfm, who, 6 * MICRO)
    assert refused.value.status == 402
    assert balance(who) == 5 * MICRO
    assert not Pledge.objects.exists()


def test_withdrawal_returns_everything_until_the_crowdfund_closes(rfm) -> None:
    who = party("Backer", usdc=700)
    pledge(rfm, who, 100 * MICRO)
    pledge(rfm, who, 50 * MICRO)
    assert services.pledge_withdraw(party=who, slug=rfm.slug, now=at(16)) == 150 * MICRO
    assert balance(who) == 700 * MICRO
    assert Crowdfund.objects.get(rfm=rfm).raised_micro == 0
    with pytest.raises(DomainError, match="nothing_pledged"):
        services.pledge_withdraw(party=who, slug=rfm.slug, now=at(17))
    pledge(rfm, who, 10 * MICRO)
    with pytest.raises(Forbidden, match="funding_closed"):
        services.pledge_withdraw(party=who, slug=rfm.slug, now=at(603))


def test_nobody_pledges_at_the_deadline_or_before_approval(rfm) -> None:
    who = party("Backer", usdc=700)
    with pytest.raises(Forbidden, match="funding_closed"):
        pledge(rfm, who, MICRO, now=at(603))
    draft = services.rfm_create(submitter=who, title="Draft", spec=rfm.spec, now=at(0))
    with pytest.raises(Forbidden, match="not_funding"):
        pledge(draft, who, MICRO)


def test_a_failed_deadline_restores_each_backer_exactly(rfm, monkeypatch) -> None:
    from apps.rfms import funding

    monkeypatch.setattr(funding, "REFUND_BATCH", 2)
    people = [party(f"Backer {i}", usdc=100) for i in range(5)]
    for index, who in enumerate(people):
        pledge(rfm, who, (index + 1) * 7 * MICRO + index)
    assert services.close_due(rfm_id=rfm.id, now=at(602.9)) is False
    assert services.sweep_due(at(602.9)) == 0
    assert services.close_due(rfm_id=rfm.id, now=at(603)) is False  # the first batch of two
    assert Crowdfund.objects.get(rfm=rfm).failed_at == at(603)
    assert services.sweep_due(at(604)) == 1
    assert services.sweep_due(at(605)) == 1
    assert services.sweep_due(at(606)) == 0
    assert [balance(who) for who in people] == [100 * MICRO] * 5
    fund = Crowdfund.objects.get(rfm=rfm)
    assert (fund.raised_micro, fund.escrow.posted_micro) == (0, 0)
    assert fund.refunded_at == at(605)
    assert rfm_by_slug(rfm.slug).status == "failed"
    with pytest.raises(Forbidden, match="call_closed"):
        apply(rfm_by_slug(rfm.slug), party("Late site"), now=at(610))


def test_the_award_waits_for_participants(rfm) -> None:
    who = party("Backer", usdc=5_000)
    with pytest.raises(NotReady, match="not full"):
        services.award(rfm_id=rfm.id, now=at(16))
    pledge(rfm, who, 1_000 * MICRO)
    with pytest.raises(NotReady, match="3 more custodians and 1 more validator"):
        services.award(rfm_id=rfm.id, now=at(16))
    assert services.award_if_ready(rfm_id=rfm.id, now=at(16)) is None
    with_participants(rfm)
    assert services.sweep_due(at(17)) == 1
    assert rfm_by_slug(rfm.slug).status == "awarded"


def test_full_but_without_participants_it_is_refunded_at_the_deadline(rfm) -> None:
    who = party("Backer", usdc=5_000)
    pledge(rfm, who, 1_000 * MICRO)
    assert services.close_due(rfm_id=rfm.id, now=at(603)) is True
    assert balance(who) == 5_000 * MICRO
    assert rfm_by_slug(rfm.slug).status == "failed"


@pytest.mark.parametrize("sweep", [False, True])
def test_an_award_that_breaks_costs_nobody_money(rfm, monkeypatch, sweep) -> None:
    """Until the deadline it is tried again; then the fund fails and refunds."""
    from apps.rfms import funding

    def broken(**kwargs):
        # Something of the award is written already, and then the database itself objects.
        Party.objects.create(kind="dao", name="Half a SubDAO", slug="half")
        Crowdfund.objects.filter(rfm=rfm).update(raised_micro=-1)

    who = party("Backer", usdc=5_000)
    with_participants(rfm)
    pledge(rfm, who, 1_000 * MICRO)
    monkeypatch.setattr(funding, "found", broken)
    assert services.sweep_due(at(600)) == 1
    assert rfm_by_slug(rfm.slug).status == "funding" and balance(who) == 4_000 * MICRO
    if sweep:
        assert services.sweep_due(at(603)) == 1
    else:
        assert services.close_due(rfm_id=rfm.id, now=at(603)) is True
    assert rfm_by_slug(rfm.slug).status == "failed"
    assert balance(who) == 5_000 * MICRO
    assert not Party.objects.filter(name="Half a SubDAO").exists()


@pytest.mark.parametrize("title", ["snake_case_title", "_", "a_-_b", "New", "Ünïcode_ß", "x" * 99])
def test_whatever_its_title_a_request_can_be_awarded(title) -> None:
    author, who = party("Author", flai=10), party("Backer", usdc=5_000)
    rfm = approved(author, author, title=title)
    assert rfm.title == title and rfm.slug != "new"
    with_participants(rfm)
    pledge(rfm, who, 1_000 * MICRO)
    dao = services.award(rfm_id=rfm.id, now=at(20))
    assert dao.asset.code == f"SDT-{rfm.slug}"


def test_award_divides_the_supply_and_moves_exactly_the_escrow(rfm) -> None:
    author = rfm.submitter
    people = [party(f"Backer {i}", usdc=1_000) for i in range(3)]
    for who in people:
        pledge(rfm, who, 333_333_333)
    pledge(rfm, people[0], 1_000 * MICRO)  # one micro-unit is left to take
    members = with_participants(rfm)
    dao = services.award(rfm_id=rfm.id, now=at(20))
    assert services.award(rfm_id=rfm.id, now=at(21)) == dao
    assert treasury(dao) == 1_000 * MICRO
    assert Crowdfund.objects.get(rfm=rfm).escrow.posted_micro == 0
    code, supply = dao.asset.code, 10**12
    held = [balance(who, code) for who in people]
    assert held == [600_000_000_000 * n // 10**9 for n in (333_333_334, 333_333_333, 333_333_333)]
    parts = [
        *held,
        balance(author, code),
        balance(dao.party, code, "reserve"),
        balance(dao.party, code, "treasury"),
    ]
    assert sum(parts) == supply == subdaos.sdt_supply_micro(dao)
    assert parts[3:5] == [50_000_000_000, 150_000_000_000]
    assert subdaos.points_at(dao, at(20)) == {who.id: MICRO for who in members}
    assert subdaos.points_at(dao, at(19.9)) == {}
    assert [row["weight_bps"] for row in subdaos.heaviest(dao, at(20), most=9)[1]] == [2_500] * 4
    assert OutboxEvent.objects.filter(name="subdaos.SubdaoFounded").count() == 1
    assert LogLeaf.objects.filter(type="subdaos.sbgt").count() == 4
    assert rfm_by_slug(rfm.slug).call.dao == dao


def test_the_members_vote_the_whitelist_and_the_roster_stands() -> None:
    dao, members, _ = founded()
    assert roster(dao) == []
    whitelisted(dao, members)
    rows = roster(dao)
    assert {row.party for row in rows} == set(members)
    assert [row.role for row in rows] == ["custodian"] * 3 + ["validator"]
    keys = [row.public_key for row in rows[:3]]
    assert keys == sorted(keys)
    assert OutboxEvent.objects.filter(name="participants.WhitelistExecuted").count() == 1


def test_the_description_tells_the_course(rfm) -> None:
    who = party("Backer", usdc=5_000)
    pledge(rfm, who, 400 * MICRO)
    told = describe(rfm_by_slug(rfm.slug), who)
    assert told["status"] == "funding"
    assert told["crowdfund"]["raised_micro"] == str(400 * MICRO)
    assert told["crowdfund"]["my_pledge_micro"] == str(pledged_micro(rfm.crowdfund, who))
    assert told["crowdfund"]["backers"] == 1
    assert told["waits_for"] == ["3 more custodians", "1 more validator"]
    assert [step["state"] for step in told["timeline"]] == ["draft", "voting", "funding"]
