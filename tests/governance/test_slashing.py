"""A slashing from its proposal to the treasury, and what an auditor says of one that is bent."""

from __future__ import annotations

import copy
import json
from functools import partial

import pytest

from apps.core.errors import BadInput
from apps.core.transactions import durable
from apps.exchange.vaults import unstake
from apps.governance import executing, services
from apps.protocol.tally import State
from apps.subdaos.selectors import superdao
from apps.wallets import log
from apps.wallets.models import LogLeaf
from tests.governance.helpers import MICRO, at, balance, party
from workers.client.earnings import Earnings, Finding
from workers.client.holdings import Holdings
from workers.client.replay import replay

pytestmark = pytest.mark.django_db


def test_a_slashing_that_cites_a_round_replays_and_one_that_bends_it_is_found() -> None:
    judge, bad = party("Judge", flai=100), party("Bad", flai=30)
    round_, dao = "00000000-0000-0000-0000-00000000000a", "d" * 32
    body = {"round": round_, "dao": dao}
    opened = {"members": {bad.pid: "custodian"}, "number": 1, "roster": "r", "nodes": []}
    with durable():
        log.append("training.round_opened", body | opened, now=at(1))
    payload = {"party": bad.pid, "amount_micro": str(2 * MICRO), "round": round_}
    propose = partial(
        services.propose, actor=judge, dao=superdao(), kind="exchange.slash_flai", title="Slash"
    )
    with pytest.raises(BadInput, match="round_not_over"):
        propose(payload=payload, now=at(2))
    with durable():
        log.append("training.round_void", body | {"phi_milli": {bad.pid: 7}}, now=at(3))
    proposal = propose(payload=payload | {"phi_milli": "7"}, now=at(4))
    services.vote(actor=judge, proposal_id=proposal.id, support="for", now=at(5))
    ended = executing.advance(proposal_id=proposal.id, now=proposal.voting_ends_at)
    assert ended is State.EXECUTED
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("id")]
    (found,) = replay(said).findings.errors
    assert "other members than were voted in" in found  # there was no vote on them, as written here
    for type_, changes, why in (
        ("training.round_void", {"phi_milli": {bad.pid: 8}}, "cites a φ that round"),
        ("training.round_opened", {"members": {"e" * 32: "custodian"}}, "shows nothing of it"),
        ("training.round_void", {"round": "elsewhere"}, "shows nothing of it"),
        ("exchange.slashed", {"phi_milli": "8"}, "is another one"),
    ):
        forged = copy.deepcopy(said)
        next(row for row in forged if row["type"] == type_)["body"] |= changes
        assert any(why in error for error in replay(forged).findings.errors), type_


def test_members_of_a_subdao_cite_rounds_of_their_own_alone() -> None:
    earnings, party_ = Earnings(Holdings()), "a" * 32
    opened = {"round": "r", "dao": "d" * 32, "members": {party_: "custodian"}}
    earnings.round_opened(opened, 1)
    earnings.round_over({"round": "r", "phi_milli": {party_: 7}}, 2)
    cites = {"id": "p", "round": "r", "party": party_, "phi_milli": "7"}
    earnings.cited(cites | {"dao": "d" * 32}, "sbgt")
    earnings.cited(cites | {"dao": "e" * 32}, "super")
    with pytest.raises(Finding, match="of another SubDAO"):
        earnings.cited(cites | {"dao": "e" * 32}, "sbgt")


def test_a_voted_slashing_replays_and_a_bent_one_is_found() -> None:
    judge, bad = party("Judge", flai=100), party("Bad", flai=30)
    unstake(party=bad, asset="FLAI", amount_micro=5 * MICRO, now=at(1))
    unstake(party=bad, asset="FLAI", amount_micro=10 * MICRO, now=at(2))
    proposal = services.propose(
        actor=judge,
        dao=superdao(),
        kind="exchange.slash_flai",
        payload={"party": bad.pid, "amount_micro": str(22 * MICRO)},
        title="Slash",
        now=at(3),
    )
    services.vote(actor=judge, proposal_id=proposal.id, support="for", now=at(4))
    ended = executing.advance(proposal_id=proposal.id, now=proposal.voting_ends_at)
    assert ended is State.EXECUTED
    assert balance(superdao().party, "FLAI", "treasury") == 22 * MICRO
    assert balance(bad, "FLAI", "unstaking") == 8 * MICRO
    said = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("id")]
    assert replay(said).findings.errors == []

    [slashed] = [row for row in said if row["type"] == "exchange.slashed"]
    taken = {int(micro) // MICRO: id_ for id_, micro in slashed["body"]["unstaking"].items()}
    assert set(taken) == {2, 5}
    soonest, later = taken[5], taken[2]
    for changes, why in (
        ({"asset": "SDT-other"}, "its house does not decide on"),
        ({"unstaking": {later: str(7 * MICRO)}}, "not take first what leaves the soonest"),
        ({"unstaking": {soonest: str(5 * MICRO)}}, "takes less than was voted"),
    ):
        forged = copy.deepcopy(said)
        next(row for row in forged if row["type"] == "exchange.slashed")["body"] |= changes
        errors = replay(forged).findings.errors
        assert f"leaf {said.index(slashed)}: " in errors[0] and why in errors[0], errors
