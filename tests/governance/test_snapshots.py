"""A snapshot of tokens is exact: payments under way when it is due are waited for, not guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apps.accounts.models import Party
from apps.core.transactions import durable
from apps.governance import executing, selectors, services
from apps.governance.errors import SnapshotWaits
from apps.wallets import ledger
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import account, faucet
from tests.governance.helpers import MICRO, at, party, submitted, together
from workers.client.replay import replay

pytestmark = pytest.mark.django_db(transaction=True)


def moved(who: Party, whole: int, now: Any) -> Transfer:
    """From what who has staked to somebody else's, inside the caller's transaction."""
    leg = ledger.Leg(
        account(who, "FLAI", "staked"), account(who, "FLAI"), whole * MICRO, "tests.move"
    )
    return ledger.post([leg], now=now)[0]


def errors() -> list[str]:
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    found = replay(json.loads(bytes(data)) for data in rows).findings.errors
    return [e for e in found if "proposal" in e or "stamped" in e]  # `moved` is of no service


def test_a_payment_under_way_is_waited_for_and_a_later_one_is_later(monkeypatch: Any) -> None:
    monkeypatch.setattr(services, "WRITERS_S", 0.05)
    voter, other = party("Staker", flai=10), party("Other", flai=5)
    rfm = submitted(party("Author"))
    cast = {"actor": voter, "proposal_id": rfm.proposal_id, "support": "for", "now": at(1)}
    with durable():
        moved(voter, 4, at(0))
        for call in (
            lambda: services.vote(**cast),
            lambda: executing.advance(proposal_id=rfm.proposal_id, now=at(1)),
            lambda: executing.execute(proposal_id=rfm.proposal_id, now=at(4)),
        ):
            [refused] = together(call)
            assert isinstance(refused, SnapshotWaits), refused
        # Nobody who pays waits for that; it is stamped after the snapshot, which will not count it.
        [faucet_] = together(
            lambda: faucet(party=other, asset="FLAI", amount_micro=MICRO, now=at(0))
        )
        assert faucet_.created_at > selectors.proposal_get(rfm.proposal_id).snapshot_at
    assert services.vote(**cast).weight == 6 * MICRO
    with durable():
        assert moved(other, 5, at(0)).created_at > at(0)
    weight = services.vote(**cast | {"actor": other}).weight
    assert weight == 5 * MICRO
    assert selectors.proposal_get(rfm.proposal_id).total_weight == 11 * MICRO
    assert errors() == []


def test_what_was_stamped_in_the_snapshots_millisecond_counts() -> None:
    voter, late = party("Staker", flai=10), party("Late")
    faucet(party=late, asset="FLAI", amount_micro=3 * MICRO, now=at(0))
    rfm = submitted(party("Author"))
    leg = ledger.Leg(account(late, "FLAI"), account(late, "FLAI", "staked"), MICRO, "tests.move")
    with durable():
        ledger.post([leg], now=at(0.0005))
    proposal = selectors.proposal_get(rfm.proposal_id)
    assert proposal.voting_starts_at == at(0) and proposal.snapshot_at == at(0.000999)
    for who, weight in ((voter, 10 * MICRO), (late, MICRO)):
        cast = services.vote(actor=who, proposal_id=proposal.id, support="for", now=at(1))
        assert cast.weight == weight
    assert errors() == []
