"""Voters, the deadline and executors at once, on real rows and locks."""

from __future__ import annotations

import pytest

from apps.core.errors import Conflict
from apps.core.models import OutboxEvent
from apps.governance import executing, services
from apps.governance.models import Proposal, Vote
from apps.protocol.tally import State
from tests.governance.helpers import MICRO, at, party, submitted, together

pytestmark = pytest.mark.django_db(transaction=True)


def test_one_account_votes_once_however_often_it_tries() -> None:
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"))

    def cast(support: str):
        return lambda: services.vote(
            actor=voter, proposal_id=rfm.proposal_id, support=support, now=at(1)
        )

    results = together(*[cast("for"), cast("against"), cast("abstain"), cast("for")])
    # Whichever came first stands; the same again is that vote, any other is refused.
    stands = Vote.objects.get(proposal_id=rfm.proposal_id)
    cast_as = ("for", "against", "abstain", "for")
    for support, one in zip(cast_as, results):
        if support == stands.support:
            assert one == stands
        else:
            assert isinstance(one, Conflict) and one.code == "already_voted"
    proposal = Proposal.objects.get(id=rfm.proposal_id)
    assert proposal.for_weight + proposal.against_weight + proposal.abstain_weight == 10 * MICRO


def test_votes_that_race_the_deadline_never_change_a_concluded_tally() -> None:
    voters = [party(f"Staker {i}", flai=10) for i in range(5)]
    rfm = submitted(party("Author"))
    services.vote(actor=voters[0], proposal_id=rfm.proposal_id, support="for", now=at(1))

    def cast(voter):
        return lambda: services.vote(
            actor=voter, proposal_id=rfm.proposal_id, support="against", now=at(2.999)
        )

    together(
        *[cast(voter) for voter in voters[1:]],
        lambda: executing.advance(proposal_id=rfm.proposal_id, now=at(3)),
    )
    state = executing.advance(proposal_id=rfm.proposal_id, now=at(4))
    proposal = Proposal.objects.get(id=rfm.proposal_id)
    against = Vote.objects.filter(proposal=proposal, support="against").count()
    assert proposal.against_weight == against * 10 * MICRO
    # Who came before the conclusion was counted, who came after was refused, and the outcome fits.
    assert state is (State.EXECUTED if against == 0 else State.DEFEATED)
    ended = OutboxEvent.objects.filter(
        name__in=["governance.ProposalSucceeded", "governance.ProposalDefeated"]
    )
    assert ended.count() == 1


def test_a_proposal_is_executed_exactly_once() -> None:
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"))
    services.vote(actor=voter, proposal_id=rfm.proposal_id, support="for", now=at(1))
    results = together(
        *[lambda: executing.execute(proposal_id=rfm.proposal_id, now=at(3)) for _ in range(4)],
        lambda: executing.sweep_due(at(3)),
    )
    assert not [one for one in results if isinstance(one, Exception) and "deadlock" in str(one)]
    assert OutboxEvent.objects.filter(name="rfms.RfmApproved").count() == 1
    assert OutboxEvent.objects.filter(name="governance.ProposalExecuted").count() == 1
