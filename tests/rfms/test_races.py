"""Backers, withdrawals, awards and refunds at once, on real rows and locks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.core.models import OutboxEvent
from apps.core.transactions import durable
from apps.exchange.vaults import stake
from apps.rfms import services
from apps.rfms.models import Crowdfund, Pledge
from apps.subdaos.models import Dao
from apps.wallets import ledger
from apps.wallets.invariants import violations
from apps.wallets.models import Account
from apps.wallets.services import account
from tests.governance.helpers import (
    MICRO,
    SPEC,
    approved,
    at,
    balance,
    founded,
    party,
    together,
    treasury,
    with_participants,
)
from tests.support.locks import until_blocked

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def rfm():
    author = party("Author", flai=10)
    return approved(author, author)


def test_pledges_that_race_past_the_cap_are_cut_exactly(rfm) -> None:
    people = [party(f"Backer {i}", usdc=1_000) for i in range(6)]
    results = together(
        *[
            lambda who=who: services.pledge(
                party=who, slug=rfm.slug, amount_micro=300 * MICRO, now=at(15)
            )
            for who in people
        ]
    )
    taken = sorted(one.amount_micro for one in results if isinstance(one, Pledge))
    assert taken == [100 * MICRO, 300 * MICRO, 300 * MICRO, 300 * MICRO]
    assert [getattr(one, "code", None) for one in results].count("target_reached") == 2
    fund = Crowdfund.objects.get(rfm=rfm)
    assert fund.raised_micro == fund.escrow.posted_micro == fund.target_micro
    assert sum(balance(who) for who in people) == 5_000 * MICRO
    assert OutboxEvent.objects.filter(name="rfms.CrowdfundFilled").count() == 1


def test_what_a_stake_unlocks_waits_for_who_takes_it_out() -> None:
    """Else the log may say that it was taken out before it unlocked the fork, for ever."""
    dao, _, backer = founded()
    amount = account(backer, dao.asset.code).posted_micro
    stake(party=backer, asset=dao.asset.code, amount_micro=amount, now=at(30))
    spec = {**SPEC, "parent": dao.slug}
    fork = services.rfm_create(submitter=backer, title="Fork", spec=spec, now=at(31))
    staked = Account.objects.get(owner=backer, asset=dao.asset, purpose="staked")
    with ThreadPoolExecutor(1) as pool:
        with durable():
            ledger.lock([staked])
            work = pool.submit(
                together, lambda: services.rfm_submit(actor=backer, slug=fork.slug, now=at(40))
            )
            assert until_blocked()
        [made] = work.result(timeout=60)
    assert made.proposal.dao == dao


def test_an_award_happens_exactly_once(rfm) -> None:
    backer = party("Backer", usdc=1_000)
    with_participants(rfm)
    services.pledge(party=backer, slug=rfm.slug, amount_micro=1_000 * MICRO, now=at(15))
    results = together(
        *[lambda: services.award(rfm_id=rfm.id, now=at(20)) for _ in range(3)],
        lambda: services.close_due(rfm_id=rfm.id, now=at(603)),
        lambda: services.sweep_due(at(603)),
    )
    assert not [one for one in results if isinstance(one, Exception)]
    dao = Dao.objects.get(kind="sub")
    assert treasury(dao) == 1_000 * MICRO
    assert balance(backer, dao.asset.code) == 600_000 * MICRO
    assert OutboxEvent.objects.filter(name="subdaos.SubdaoFounded").count() == 1
    assert {k: v for k, v in violations().items() if v} == {}


def test_a_withdrawal_and_the_last_pledge_leave_one_consistent_end(rfm) -> None:
    first, last = party("First", usdc=1_000), party("Last", usdc=1_000)
    services.pledge(party=first, slug=rfm.slug, amount_micro=600 * MICRO, now=at(15))
    together(
        lambda: services.pledge_withdraw(party=first, slug=rfm.slug, now=at(16)),
        lambda: services.pledge(party=last, slug=rfm.slug, amount_micro=400 * MICRO, now=at(16)),
    )
    fund = Crowdfund.objects.get(rfm=rfm)
    assert fund.raised_micro in (400 * MICRO, 1_000 * MICRO)
    assert (fund.filled_at is not None) == (fund.raised_micro == 1_000 * MICRO)
    assert fund.escrow.posted_micro == fund.raised_micro
    assert balance(first) + balance(last) == 2_000 * MICRO - fund.raised_micro


def test_refund_batches_at_once_pay_everybody_once(rfm) -> None:
    people = [party(f"Backer {i}", usdc=100) for i in range(4)]
    for who in people:
        services.pledge(party=who, slug=rfm.slug, amount_micro=90 * MICRO, now=at(15))
    results = together(*[lambda: services.close_due(rfm_id=rfm.id, now=at(603)) for _ in range(3)])
    assert results == [True] * 3
    assert [balance(who) for who in people] == [100 * MICRO] * 4
