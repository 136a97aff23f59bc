"""The life of a proposal through the services: weights, votes, conclusion, execution."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client

from apps.core import actions
from apps.core.errors import Conflict, DomainError, Forbidden
from apps.core.handlers import handlers_for
from apps.core.models import OutboxEvent
from apps.core.transactions import durable
from apps.exchange.vaults import stake, unstake
from apps.governance import executing, selectors, services
from apps.governance.models import Proposal, Vote
from apps.participants.services import whitelist_propose
from apps.protocol import consent, tally
from apps.protocol.tally import State
from apps.rfms import services as rfms
from apps.rfms.handlers import proposal_ended
from apps.subdaos import selectors as subdaos
from apps.subdaos.services import param_set
from apps.wallets import log
from apps.wallets.invariants import violations
from apps.wallets.keys import Consent
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import faucet, send
from tests.governance.helpers import (
    MICRO,
    SPEC,
    at,
    balance,
    founded,
    party,
    submitted,
    treasury,
    whitelisted,
)
from tests.support.consents import bind, signed
from workers.client.replay import replay

pytestmark = pytest.mark.django_db


def events(name: str) -> list[dict[str, Any]]:
    return [row.payload for row in OutboxEvent.objects.filter(name=name)]


def price_proposal(dao: Any, by: Any, now: datetime, price: str = "600000") -> Proposal:
    return services.propose(
        actor=by,
        dao=dao,
        kind="subdaos.set_price",
        payload={"price_micro": price},
        title="A higher price",
        now=now,
    )


def test_a_request_is_approved_by_staked_flai() -> None:
    author, voter = party("Author"), party("Staker", flai=10)
    rfm = submitted(author)
    services.vote(actor=voter, proposal_id=rfm.proposal_id, support="for", now=at(1))
    assert executing.advance(proposal_id=rfm.proposal_id, now=at(2.9)) is State.ACTIVE
    assert executing.advance(proposal_id=rfm.proposal_id, now=at(3)) is State.EXECUTED
    assert executing.advance(proposal_id=rfm.proposal_id, now=at(4)) is State.EXECUTED
    again = executing.execute(proposal_id=rfm.proposal_id, now=at(5))
    assert again.executed_at == at(3)
    rfm.refresh_from_db()
    assert rfm.status == "funding"
    assert len(events("governance.ProposalExecuted")) == 1
    assert len(events("rfms.RfmApproved")) == 1
    for type in ("proposal", "snapshot", "vote", "concluded", "executed"):
        assert log.LogLeaf.objects.filter(type=f"governance.{type}").count() == 1


def test_stake_after_the_snapshot_gives_no_weight_and_why_says_so() -> None:
    author, early, late = party("Author"), party("Early", flai=10), party("Late")
    rfm = submitted(author)
    faucet(party=late, asset="FLAI", amount_micro=90 * MICRO, now=at(0.5))
    stake(party=late, asset="FLAI", amount_micro=90 * MICRO, now=at(0.5))
    executing.advance(proposal_id=rfm.proposal_id, now=at(0.6))
    proposal = selectors.proposal_get(rfm.proposal_id)
    weight = selectors.weight(proposal, late, at(1))
    assert (weight.weight, weight.total) == (0, 10 * MICRO)
    assert "snapshot" in weight.why
    with pytest.raises(Forbidden) as refused:
        services.vote(actor=late, proposal_id=proposal.id, support="against", now=at(1))
    assert refused.value.code == "no_weight"
    assert selectors.weight(proposal, early, at(1)).weight == 10 * MICRO
    assert "hold none" in selectors.weight(proposal, author, at(1)).why
    assert "Sign in" in selectors.weight(proposal, None, at(1)).why


def test_unstaking_after_the_snapshot_takes_no_weight() -> None:
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"))
    unstake(party=voter, asset="FLAI", amount_micro=10 * MICRO, now=at(0.5))
    cast = services.vote(actor=voter, proposal_id=rfm.proposal_id, support="for", now=at(1))
    assert cast.weight == 10 * MICRO


def test_a_vote_is_final_and_only_while_voting_is_open() -> None:
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"), governance={"voting_delay_s": 5, "voting_period_s": 3})
    vote = {"actor": voter, "proposal_id": rfm.proposal_id}
    with pytest.raises(Forbidden, match="voting_not_open"):
        services.vote(**vote, support="for", now=at(4.9))
    with pytest.raises(DomainError, match="bad_support"):
        services.vote(**vote, support="maybe", now=at(6))
    cast = services.vote(**vote, support="for", now=at(6))
    with pytest.raises(Conflict, match="already_voted"):
        services.vote(**vote, support="against", now=at(7))
    for later in (7, 99):  # a retry gets the vote that stands, even when voting is over
        assert services.vote(**vote, support="for", now=at(later)) == cast
    assert selectors.proposal_get(rfm.proposal_id).for_weight == cast.weight == 10 * MICRO
    other = party("Other", flai=1)
    with pytest.raises(Forbidden, match="voting_closed"):
        services.vote(actor=other, proposal_id=rfm.proposal_id, support="for", now=at(8))


def test_a_defeat_rejects_the_request() -> None:
    big, small = party("Big", flai=10), party("Small", flai=5)
    rfm = submitted(party("Author"))
    services.vote(actor=big, proposal_id=rfm.proposal_id, support="against", now=at(1))
    services.vote(actor=small, proposal_id=rfm.proposal_id, support="for", now=at(1))
    assert executing.sweep_due(at(3)) == 1
    assert executing.sweep_due(at(4)) == 0
    (event,) = events("governance.ProposalDefeated")
    for _ in range(2):
        proposal_ended(event, event_id=rfm.id, now=at(4))
    rfm.refresh_from_db()
    assert rfm.status == "rejected"
    with pytest.raises(Forbidden, match="not_executable"):
        executing.execute(proposal_id=rfm.proposal_id, now=at(5))


def test_the_delay_takes_the_snapshot_at_its_end() -> None:
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"), governance={"voting_delay_s": 5, "voting_period_s": 3})
    late = party("Late", flai=20, now=at(4))
    proposal = selectors.proposal_get(rfm.proposal_id)
    assert proposal.total_weight is None
    assert "Voting has not begun" in selectors.weight(proposal, late, at(4.5)).why
    assert executing.sweep_due(at(5)) == 1
    proposal.refresh_from_db()
    assert proposal.total_weight == 30 * MICRO
    assert selectors.weight(proposal, late, at(5)).weight == 20 * MICRO
    assert selectors.weight(proposal, voter, at(5)).weight == 10 * MICRO


def test_the_system_proposes_once_per_reference() -> None:
    dao, _, _ = founded()
    first = whitelist_propose(dao_id=dao.id, now=at(21))
    again = whitelist_propose(dao_id=dao.id, now=at(30))
    assert first == again
    (only,) = first
    assert only.proposer is None
    assert only.house == "sbgt"
    executing.advance(proposal_id=only.id, now=at(30))
    assert selectors.proposal_get(only.id).total_weight == 4 * MICRO


def test_members_of_the_right_house_propose() -> None:
    dao, members, backer = founded()
    with pytest.raises(Forbidden, match="no_weight"):
        price_proposal(dao, members[0], at(30))
    with pytest.raises(Forbidden, match="wrong_house"):
        price_proposal(subdaos.superdao(), backer, at(30))
    proposal = price_proposal(dao, backer, at(30))
    assert proposal.changes == [
        {
            "label": "Price of one query (USDC micro-units)",
            "before": "500000",
            "after": "600000",
        }
    ]
    services.vote(actor=backer, proposal_id=proposal.id, support="for", now=at(31))
    executing.advance(proposal_id=proposal.id, now=at(33))
    dao.refresh_from_db()
    assert dao.params["price_micro"] == "600000"


def test_a_model_is_retired_and_sold_again_by_a_vote_that_the_log_repeats() -> None:
    dao, _, backer = founded()
    asked = {"actor": backer, "dao": dao, "kind": "listings.set_on_sale", "title": "Retire it"}
    for wrong in ({}, {"on_sale": "no"}, {"on_sale": True}, {"on_sale": False, "more": 1}):
        with pytest.raises(DomainError):
            services.propose(**asked, payload=wrong, now=at(30))
    for since, on in ((30, False), (40, True)):
        proposal = services.propose(**asked, payload={"on_sale": on}, now=at(since))
        services.vote(actor=backer, proposal_id=proposal.id, support="for", now=at(since + 1))
        executing.advance(proposal_id=proposal.id, now=at(since + 3))
        dao.refresh_from_db()
        assert dao.params["on_sale"] is on
    rows = [json.loads(bytes(row.data)) for row in log.LogLeaf.objects.order_by("id")]
    assert replay(rows).findings.errors == []
    changes = [row["body"] for row in rows if row["type"] == "subdaos.params"]
    changes[-1]["value"] = False
    assert "changed to what nobody voted on" in str(replay(rows).findings.errors)


def test_a_small_holder_is_below_the_proposal_threshold() -> None:
    dao, _, backer = founded()
    small = party("Small holder", now=at(20))
    send(party=backer, to=small, asset=dao.asset.code, amount_micro=1, now=at(25))
    with pytest.raises(Forbidden, match="below_threshold"):
        price_proposal(dao, small, at(30))


def pay_proposal(dao: Any, by: Any, **payload: Any) -> Proposal:
    return services.propose(
        actor=by, dao=dao, kind="subdaos.pay", payload=payload, title="Rent", now=at(30)
    )


def test_the_treasury_pays_what_token_holders_voted_and_once(client: Client) -> None:
    dao, _, backer = founded()
    landlord = party("Landlord", now=at(25))
    has = treasury(dao)
    proposal = pay_proposal(dao, backer, to=landlord.pid, asset="USDC", amount_micro="2500000")
    page = client.get(f"/proposals/{proposal.id}/").content.decode()
    assert "Payment to Landlord" in page and "$2.50" in page
    services.vote(actor=backer, proposal_id=proposal.id, support="for", now=at(31))
    assert treasury(dao) == has
    for when in (33, 34):
        assert executing.advance(proposal_id=proposal.id, now=at(when)) is State.EXECUTED
    assert (treasury(dao), balance(landlord)) == (has - 2_500_000, 2_500_000)
    leaf = json.loads(bytes(LogLeaf.objects.get(type="subdaos.paid").data))["body"]
    paid = Transfer.objects.get(kind="subdaos.pay")
    assert leaf["transfer"] == str(paid.id) and leaf["proposal"] == paid.ref_id == str(proposal.id)
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]
    assert replay(said).findings.errors == []
    for forged, text in forged_payments(said):
        assert any(text in error for error in replay(forged).findings.errors), text
    assert {k: v for k, v in violations().items() if v} == {}


def forged_payments(said: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """The same log as a dishonest server would write it, and what the auditor then says."""

    def bent(kind: str, **changes: str) -> list[dict[str, Any]]:
        copied = copy.deepcopy(said)
        for row in copied:
            if row["type"] == kind and row["body"].get("kind") in (None, "subdaos.pay"):
                row["body"] |= changes
        return copied

    yield bent("subdaos.paid", to="0" * 16), "not voted on"
    yield bent("subdaos.paid", amount_micro="2500001"), "not voted on"
    yield bent("wallets.transfer", credit=f"{'0' * 16}/main/USDC"), "is another one"
    yield [row for row in said if row["type"] != "subdaos.paid"], "spends a treasury unvoted"
    kept = [row for row in said if row["type"] != "governance.executed"]
    yield kept, "was not executed"


def test_a_treasury_that_has_become_too_small_pays_nothing() -> None:
    dao, _, backer = founded()
    landlord = party("Landlord", now=at(25))
    has = treasury(dao)
    rents = [
        pay_proposal(dao, backer, to=landlord.pid, asset="USDC", amount_micro=str(has))
        for _ in range(2)
    ]
    for rent in rents:
        services.vote(actor=backer, proposal_id=rent.id, support="for", now=at(31))
    assert executing.advance(proposal_id=rents[0].id, now=at(33)) is State.EXECUTED
    assert executing.advance(proposal_id=rents[1].id, now=at(33)) is State.SUCCEEDED
    rents[1].refresh_from_db()
    assert rents[1].execution_error and balance(landlord) == has
    assert LogLeaf.objects.filter(type="subdaos.paid").count() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "00" * 16},
        {"to": "dao"},
        {"to": "\x00"},
        {"asset": "EUR"},
        {"asset": "\ud800"},
        {"asset": "FLAI"},
        {"amount_micro": "0"},
        {"amount_micro": "-1"},
        {"amount_micro": "01"},
        {"amount_micro": 1},
        {"amount_micro": "9" * 19},
        {"amount_micro": str(10**12)},
        {"memo": "rent"},
    ],
)
def test_a_payment_is_checked_when_it_is_proposed(changes: dict[str, Any]) -> None:
    dao, _, backer = founded()
    if changes.get("to") == "dao":
        changes = {"to": dao.party.pid}
    with pytest.raises(DomainError):
        pay_proposal(
            dao, backer, **{"to": backer.pid, "asset": "USDC", "amount_micro": "1"} | changes
        )
    assert not Proposal.objects.filter(dao=dao).exists()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"price_micro": "0"},
        {"price_micro": "-1"},
        {"price_micro": "0.5"},
        {"price_micro": "²"},
        {"price_micro": "9" * 40},
        {"price_micro": "0" * 19 + "1" + "9" * 20},
        {"price_micro": str(10**15 + 1)},
        {"price_micro": 10**40},
        {"price_micro": "0500000"},
        {"price_micro": True},
        {"price_micro": "500000"},
        {"price_micro": "600000", "more": 1},
    ],
)
def test_a_payload_is_checked_when_it_is_proposed(payload: dict[str, Any]) -> None:
    dao, _, backer = founded()
    with pytest.raises(DomainError):
        services.propose(
            actor=backer, dao=dao, kind="subdaos.set_price", payload=payload, title="x", now=at(30)
        )
    assert not Proposal.objects.filter(dao=dao).exists()


class Failing:
    """An action that changes something, then fails; and goes back in to try to run twice."""

    def validate(self, payload: dict[str, Any], dao: Any) -> dict[str, Any]:
        return payload

    def describe(self, payload: dict[str, Any], dao: Any) -> list[dict[str, Any]]:
        return []

    def execute(self, payload: dict[str, Any], *, dao: Any, proposal_id: Any, now: Any) -> None:
        assert Proposal.objects.get(id=proposal_id).executed_at == now  # marked before it runs
        param_set(dao=dao, key="price_micro", value="1", proposal_id=proposal_id, now=now)
        if payload["how"] == "rule":
            raise DomainError("no_luck", "There was no luck.")
        if payload["how"] == "fault":
            raise RuntimeError("secret detail")


@pytest.fixture
def failing() -> Any:
    actions.action("test.failing", house="sdt")(Failing)
    yield
    actions._actions.pop("test.failing")


@pytest.mark.parametrize(
    ("how", "words"), [("rule", "There was no luck."), ("fault", "internal fault (RuntimeError)")]
)
def test_a_failing_action_leaves_nothing_but_its_reason(
    failing: None, how: str, words: str
) -> None:
    dao, _, backer = founded()
    proposal = services.propose(
        actor=backer, dao=dao, kind="test.failing", payload={"how": how}, title="x", now=at(30)
    )
    services.vote(actor=backer, proposal_id=proposal.id, support="for", now=at(31))
    with pytest.raises(executing.ExecutionFailed) as failed:
        executing.execute(proposal_id=proposal.id, now=at(33))
    assert words in failed.value.text
    assert "secret detail" not in failed.value.text
    proposal.refresh_from_db()
    dao.refresh_from_db()
    assert proposal.executed_at is None
    assert proposal.concluded_at == at(33)
    assert words in proposal.execution_error
    assert dao.params["price_micro"] == "500000"
    executed = {one["proposal_id"] for one in events("governance.ProposalExecuted")}
    assert str(proposal.id) not in executed
    # Tried again later, less and less often, until it expires.
    assert executing.sweep_due(at(33.5)) == 0
    assert executing.sweep_due(at(34)) == 1
    proposal.refresh_from_db()
    assert proposal.execution_attempts == 2
    assert proposal.execute_after == at(36)
    expiry = at(33 + 7 * 86_400)
    assert executing.advance(proposal_id=proposal.id, now=expiry) is State.EXPIRED
    assert len(events("governance.ProposalExpired")) == 1
    assert executing.sweep_due(expiry) == 0


def test_a_changed_payload_is_not_executed() -> None:
    dao, _, backer = founded()
    proposal = price_proposal(dao, backer, at(30))
    services.vote(actor=backer, proposal_id=proposal.id, support="for", now=at(31))
    Proposal.objects.filter(id=proposal.id).update(payload={"price_micro": "1"})
    with pytest.raises(executing.ExecutionFailed, match="not the one that was voted on"):
        executing.execute(proposal_id=proposal.id, now=at(33))


def test_a_vote_in_the_last_microsecond_is_in_time_in_the_log_too() -> None:
    voter = party("Staker", flai=10, now=at(0))
    rfm = submitted(party("Author"), now=at(0.0000005 + 0.0001234))
    ends_at = rfm.proposal.voting_ends_at
    assert ends_at.microsecond % 1_000 == 0
    last = ends_at - timedelta(microseconds=1)
    services.vote(actor=voter, proposal_id=rfm.proposal_id, support="for", now=last)
    leaf = json.loads(bytes(log.LogLeaf.objects.get(type="governance.vote").data))
    assert leaf["at"] < leaf["body"]["ends_at"]


def test_the_timelock_queues() -> None:
    governance = {"voting_period_s": 3, "timelock_s": 60}
    voter = party("Staker", flai=10)
    rfm = submitted(party("Author"), governance=governance)
    services.vote(actor=voter, proposal_id=rfm.proposal_id, support="for", now=at(1))
    assert executing.advance(proposal_id=rfm.proposal_id, now=at(3)) is State.QUEUED
    assert len(events("governance.ProposalSucceeded")) == 1
    with pytest.raises(Forbidden, match="queued"):
        executing.execute(proposal_id=rfm.proposal_id, now=at(62))
    assert executing.sweep_due(at(62)) == 0
    assert executing.sweep_due(at(63)) == 1
    assert selectors.proposal_get(rfm.proposal_id).state(at(63)) is State.EXECUTED


def test_a_late_quorum_extends_once() -> None:
    dao, members, _ = founded(governance={"voting_period_s": 10, "late_quorum_s": 6})
    (proposal,) = whitelist_propose(dao_id=dao.id, now=at(30))
    services.vote(actor=members[0], proposal_id=proposal.id, support="for", now=at(39))
    proposal.refresh_from_db()
    assert proposal.voting_ends_at == at(45)
    services.vote(actor=members[1], proposal_id=proposal.id, support="for", now=at(44))
    proposal.refresh_from_db()
    assert proposal.voting_ends_at == at(45)


def test_the_proposer_takes_back_before_voting_only() -> None:
    dao, members, backer = founded(governance={"voting_delay_s": 5, "voting_period_s": 3})
    proposal = price_proposal(dao, backer, at(30))
    with pytest.raises(Forbidden, match="not_proposer"):
        services.cancel(actor=members[0], proposal_id=proposal.id, now=at(31))
    for _ in range(2):
        services.cancel(actor=backer, proposal_id=proposal.id, now=at(31))
    assert len(events("governance.ProposalCanceled")) == 1
    assert selectors.proposal_get(proposal.id).state(at(99)) is State.CANCELED
    other, third = (price_proposal(dao, backer, at(30)) for _ in range(2))
    with pytest.raises(Forbidden, match="voting_begun"):
        services.cancel(actor=backer, proposal_id=other.id, now=at(36))
    key = Ed25519PrivateKey.generate()
    bind(backer, key, now=at(31))
    take = {"actor": backer, "proposal_id": third.id, "now": at(32)}
    payload = consent.cancel_payload(proposal=str(other.id))
    for said, code in (
        (None, "signature_required"),
        (signed(backer, key, consent.CANCEL, payload, nonce=1, now=at(32)), "bad_signature"),
    ):
        with pytest.raises(Forbidden, match=code):
            services.cancel(**take, consent=Consent("session", said))
    payload = consent.cancel_payload(proposal=str(third.id))
    word = signed(backer, key, consent.CANCEL, payload, nonce=1, now=at(32))
    services.cancel(**take, consent=Consent("session", word))
    leaves = [json.loads(bytes(one.data)) for one in LogLeaf.objects.order_by("id")]
    assert replay(leaves).findings.errors == []
    del leaves[-1]["body"]["signed"]
    assert "lacks the signature" in replay(leaves).findings.unsigned[0]


def test_a_request_taken_back_is_a_draft_that_can_be_sent_again() -> None:
    author, voter = party("Author"), party("Staker", flai=10)
    rfm = submitted(author, governance={"voting_delay_s": 5, "voting_period_s": 3})
    first = rfm.proposal_id
    services.cancel(actor=author, proposal_id=first, now=at(1))
    (event,) = events("governance.ProposalCanceled")
    for _ in range(2):
        dispatch("governance.ProposalCanceled", event, at(1))
    rfm.refresh_from_db()
    assert (rfm.status, rfm.proposal_id) == ("draft", None)
    rfms.rfm_update(actor=author, slug=rfm.slug, title="Better", spec=rfm.spec, now=at(2))
    again = rfms.rfm_submit(actor=author, slug=rfm.slug, now=at(3))
    assert again.proposal_id != first
    # The first proposal's event, delivered late once more, does not touch the second vote.
    dispatch("governance.ProposalCanceled", event, at(4))
    rfm.refresh_from_db()
    assert (rfm.status, rfm.title) == ("voting", "Better")
    services.vote(actor=voter, proposal_id=again.proposal_id, support="against", now=at(9))
    executing.advance(proposal_id=again.proposal_id, now=at(12))
    (event,) = events("governance.ProposalDefeated")
    dispatch("governance.ProposalDefeated", event, at(12))
    rfm.refresh_from_db()
    assert rfm.status == "rejected"


def test_only_its_author_sends_a_request_to_the_vote() -> None:
    author, other = party("Author"), party("Staker", flai=10)
    draft = rfms.rfm_create(submitter=author, title="Draft", spec=SPEC, now=at(0))
    payload = {"rfm": str(draft.id), "spec_hash": draft.spec_hash}
    with pytest.raises(Forbidden, match="system_only"):
        services.propose(
            actor=other,
            dao=subdaos.superdao(),
            kind="rfms.approve",
            payload=payload,
            title="x",
            now=at(0),
        )
    assert not Proposal.objects.exists()
    assert rfms.rfm_submit(actor=author, slug=draft.slug, now=at(1)).status == "voting"


def dispatch(name: str, payload: dict[str, Any], now: datetime) -> None:
    """As the outbox does: to every handler that the wiring ties to the event."""
    import flai_site.wiring  # noqa: F401

    for handler in handlers_for(name).values():
        handler(payload, event_id=uuid4(), now=now)


def test_cached_weights_are_the_sum_of_the_votes() -> None:
    dao, members, _ = founded()
    whitelisted(dao, members)
    proposal = Proposal.objects.get(kind="participants.whitelist")
    assert proposal.for_weight == sum(Vote.objects.values_list("weight", flat=True)) - sum(
        Vote.objects.exclude(proposal=proposal).values_list("weight", flat=True)
    )
    assert proposal.state(at(24)) is State.EXECUTED


def test_inner_writers_refuse_to_run_alone(transactional_db: None) -> None:
    with pytest.raises(RuntimeError):
        services.propose_by_system(
            dao=subdaos.superdao(), kind="rfms.approve", payload={}, title="x", now=at(0)
        )
    with durable(), pytest.raises(DomainError, match="bad_payload"):
        services.propose_by_system(
            dao=subdaos.superdao(), kind="rfms.approve", payload={}, title="x", now=at(0)
        )


def test_a_bound_wallet_key_signs_votes_and_proposals() -> None:
    dao, _, backer = founded()
    key = Ed25519PrivateKey.generate()
    bind(backer, key, now=at(29))
    with pytest.raises(Forbidden, match="signature_required"):
        price_proposal(dao, backer, at(30))
    asked = {"kind": "subdaos.set_price", "payload": {"price_micro": "600000"}}
    payload = consent.propose_payload(
        dao=dao.party.pid,
        kind=asked["kind"],
        payload_hash=tally.payload_hash(dao=dao.party.pid, **asked),
    )
    word = signed(backer, key, consent.PROPOSE, payload, nonce=1, now=at(30))
    proposal = services.propose(
        actor=backer,
        dao=dao,
        **asked,
        title="A higher price",
        consent=Consent("api_key", word),
        now=at(30),
    )
    cast = {"actor": backer, "proposal_id": proposal.id, "now": at(31)}
    payload = consent.vote_payload(proposal=str(proposal.id), support="for")
    word = signed(backer, key, consent.VOTE, payload, nonce=2, now=at(31))
    for support, said, code in (
        ("for", None, "signature_required"),
        ("against", word, "bad_signature"),
    ):
        with pytest.raises(Forbidden, match=code):
            services.vote(**cast, support=support, consent=Consent("session", said))
    services.vote(**cast, support="for", consent=Consent("session", word))
    assert services.vote(**cast, support="for").support == "for"  # cast already: no word needed
    with durable(), pytest.raises(RuntimeError, match="durable"):
        services.vote(**cast, support="for")
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    state = replay(json.loads(bytes(data)) for data in rows)
    assert state.findings.errors == []
    assert state.keyring.parties[backer.pid].nonce == 2
