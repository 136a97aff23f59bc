"""A round goes on without who is late, once a phase; whoever stays signs the smaller roster."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client

from apps.compute.models import Node
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.participants.selectors import roster
from apps.protocol.jobs import fingerprint
from apps.subdaos.models import Dao
from apps.subdaos.selectors import points_at
from apps.subdaos.services import dao_lock
from apps.training import selectors, submissions
from apps.training.deadlines import rounds_go_on
from apps.training.models import Round, Score, ScoringWork, Submission
from apps.training.services import round_open, round_ticket
from apps.training.starting import start_of, sums_to_keep
from apps.wallets import log
from apps.wallets.models import LogLeaf
from tests.support.market import ROWS, Market, drain
from tests.support.nodes import succeeded
from tests.training.test_record import record_of
from workers.client.record import check_record
from workers.client.replay import replay


def go_on(held: Round) -> Round:
    """The wait of this phase is over."""
    held = Round.objects.get(pk=held.pk)
    assert held.due_at is not None
    rounds_go_on(now=held.due_at - timedelta(seconds=1))
    assert Round.objects.get(pk=held.pk).roster == held.roster
    rounds_go_on(now=held.due_at)
    return Round.objects.get(pk=held.pk)


def announce(market: Market, held: Round, people) -> None:
    for validator in people:
        submissions.rows_announce(round_id=held.id, party=validator.party, rows=ROWS, now=now())


def share_sums(market: Market, held: Round, sites) -> None:
    for i, site in enumerate(sites):
        market.submit(held, site, market.upload(held, site, "sums", market.sums(i)))
    drain()


def share_updates(market: Market, held: Round, sites, validators) -> None:
    for site in sites:
        market.submit(held, site, market.upload(held, site, "update", site.weights))
    for validator in validators:
        market.submit(held, validator, market.upload(held, validator, "holdout", validator.holdout))
    drain()


@pytest.fixture
def opened(market) -> Round:
    Dao.objects.filter(pk=market.dao.pk).update(
        params=market.dao.params | {"min_custodians": 3, "min_validators": 2}
    )
    return market.whitelist()


def names(people) -> set[str]:
    return {one["party"]["name"] for one in people}


def test_late_members_hold_no_round_up_and_nothing_counts_twice(market, opened) -> None:
    sites, late = market.custodians[:3], market.custodians[3]
    validators, silent = market.validators[:2], market.validators[2]
    before = points_at(market.dao, now())
    announce(market, opened, market.validators)
    share_sums(market, opened, sites)
    shown = selectors.round_json(selectors.round_get(opened.id))
    assert [one["name"] for one in shown["waits_for"]] == ["Site 3"] and shown["waits_until"]
    held = go_on(opened)
    assert held.phase == "moments" and held.roster_hash != opened.roster_hash
    assert set(held.submissions.values_list("state", flat=True)) == {"replaced"}
    assert not held.submissions.exclude(sealed=None).exists()
    with pytest.raises(DomainError) as refused:
        market.submit(held, late, market.upload(held, late, "sums", market.sums(3)))
    assert refused.value.code == "left_out"
    assert list(selectors.rounds_of(sites[0].party)) == [held]
    assert not selectors.rounds_of(late.party).exists()

    share_sums(market, held, sites)
    held = Round.objects.get(pk=held.pk)
    assert held.phase == "updates" and held.moments_job.descriptor["roster"] == held.roster
    share_updates(market, held, sites, validators)
    held = go_on(held)
    assert round_ticket(held)["params"]["rows"] == [ROWS, ROWS]
    share_updates(market, held, sites, validators)
    held = Round.objects.get(pk=held.pk)
    assert held.phase == "done", held.progress
    assert set(Score.objects.values_list("party", flat=True)) == {s.party.id for s in sites}
    assert ScoringWork.objects.count() == 2
    shown = selectors.round_json(selectors.round_get(held.id))
    assert names(shown["left_out"]) == {late.party.name, silent.party.name}
    assert shown["waits_for"] == [] and shown["waits_until"] is None
    after = points_at(market.dao, now())
    assert after.get(late.party.id, 0) <= before[late.party.id]
    assert after[validators[0].party.id] == before[validators[0].party.id] + 1_000_000
    log.sequence(now=now())
    leaves = [json.loads(bytes(leaf.data)) for leaf in LogLeaf.objects.order_by("id")]
    # The sweep's clock was put forward to the deadline, and the proposal's is the real one again:
    # it is refused, and the round's end names what is not there.
    by_clock = ("told already", "is not in the log")
    errors = replay(leaves).findings.errors
    assert [e for e in errors if not any(words in e for words in by_clock)] == []
    assert check_record(record_of(held)) == []
    goes_on_under_the_sums_that_a_late_member_is_among(market, held)


def goes_on_under_the_sums_that_a_late_member_is_among(market, first: Round) -> None:
    """A new total without it would be its own sums by the difference: so none is asked for."""
    market.accept(first)
    (late, *sites), people = market.custodians, market.validators
    sites[-1].weights = -sites[-1].weights  # whose labels are flipped has mended them
    with durable():
        held = round_open(dao=dao_lock(market.dao), now=now())
    announce(market, held, people)
    share_sums(market, held, sites)
    held = go_on(held)
    assert held.phase == "updates" and held.moments_job is None, held.progress
    assert held.summed == first and held.normalisation == first.normalisation
    assert held.submissions.filter(state="replaced").count() == len(sites)
    share_updates(market, held, sites, people)
    held = Round.objects.get(pk=held.pk)
    assert held.phase == "done", held.progress
    only_nodes_that_follow_those_that_signed_for_sums_vouch_for_them(market, first, late.public)
    page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert f"{late.party.name}: late, and among the sums of an earlier round" in page
    assert "late, left out" in page and "Sums kept" in page
    log.sequence(now=now())
    assert check_record(record_of(held)) == []
    leaves = [json.loads(bytes(leaf.data)) for leaf in LogLeaf.objects.order_by("id")]
    assert "keeps sums" not in str(replay(leaves).findings.errors)
    reduced = [x["body"] for x in leaves if x["type"] == "training.roster_reduced"]
    assert reduced[-1]["kept"] == str(first.id)
    reduced[-1]["kept"] = str(held.id)
    assert "keeps sums that its SubDAO never took" in str(replay(leaves).findings.errors)


def only_nodes_that_follow_those_that_signed_for_sums_vouch_for_them(
    market, first: Round, left: str
) -> None:
    """Wherever its models are kept by now, which the rows' `nodes` say."""
    strangers, signed = ["ab" * 32, *first.nodes[1:]], first.nodes
    after = succeeded(market.nodes, 1, by=(0, 2))
    follow = [fingerprint(one) for one in after]
    node = Node.objects.get(fingerprint=signed[1])
    node.pk, node.active, node.fingerprint, node.descriptor = None, False, follow[1], after[1]
    node.save()
    people = roster(market.dao)
    for nodes, vouched in ((signed, True), (follow, True), (strangers, False)):
        Round.objects.filter(dao=market.dao).update(nodes=nodes)
        opened = Round.objects.filter(dao=market.dao).latest("number")
        assert (sums_to_keep(opened, {left}) == first) == vouched
        start = start_of(opened, people, zero=False)
        assert (start.summed == first) == vouched, start.why
        assert vouched or start.why.endswith("mean and variance that it was made under.")
    Round.objects.filter(dao=market.dao).update(nodes=signed)
    Node.objects.filter(fingerprint=follow[1]).delete()


def test_too_few_that_stay_end_the_round_and_the_reason_names_who_is_late(market, opened) -> None:
    announce(market, opened, market.validators)
    share_sums(market, opened, market.custodians[:2])
    held = go_on(opened)
    assert held.phase == "failed"
    assert held.reason.startswith("Without Site 2, Site 3 there are 2 custodians; at least 3")
    assert not Score.objects.exists()


def test_a_phase_makes_its_roster_smaller_once(market, opened) -> None:
    announce(market, opened, market.validators)
    share_sums(market, opened, market.custodians[:3])
    held = go_on(opened)
    share_sums(market, held, market.custodians[:2])
    held = go_on(held)
    assert held.phase == "failed" and "Site 2 did not sign the smaller roster" in held.reason


def test_a_silent_validator_is_left_out_before_anybody_signs_its_rows(market, opened) -> None:
    announce(market, opened, market.validators[:2])
    share_sums(market, opened, market.custodians)
    assert Round.objects.get(pk=opened.pk).phase == "normalising"
    held = go_on(opened)
    assert held.phase == "updates"
    assert not held.submissions.filter(state="replaced").exists()
    share_updates(market, held, market.custodians, market.validators[:2])
    assert Round.objects.get(pk=held.pk).phase == "done"


def test_a_share_on_its_way_to_the_nodes_is_not_late(market, opened) -> None:
    announce(market, opened, market.validators[:2])
    for i, site in enumerate(market.custodians):
        market.submit(opened, site, market.upload(opened, site, "sums", market.sums(i)))
    held = go_on(opened)
    assert held.roster == opened.roster and held.due_at == held.expires_at
    assert set(held.submissions.values_list("state", flat=True)) == {Submission.State.RECEIVED}
    rounds_go_on(now=held.expires_at)
    held = Round.objects.get(pk=held.pk)
    assert held.phase == "failed" and held.reason == "The round expired."
