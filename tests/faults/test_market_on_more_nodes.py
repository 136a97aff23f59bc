"""The site on five nodes, of which two are always dead, and never the same two for long."""

from __future__ import annotations

import json

import numpy as np
import pytest
from django.conf import settings

from apps.compute import availability, refreshing
from apps.compute.models import Job
from apps.compute.services import job_answers, jobs_catch_up, nodes_sync
from apps.core.clock import now
from apps.core.errors import Unprocessable
from apps.listings.epochs import epoch_settle
from apps.listings.models import Listing
from apps.listings.selectors import engine_vote_json
from apps.protocol.jobs import computing_of
from apps.protocol.tickets import VERIFIED
from apps.subdaos.models import Epoch
from apps.training.models import Round
from apps.wallets import log
from apps.wallets.invariants import violations
from apps.wallets.models import LogLeaf
from tests.listings.test_auditing import audit, claimed, errors, failed, leaves, said
from tests.support.market import Market, drain, drain_until
from tests.support.nodes import NodeSet, consents_of, cosigned_anew
from tests.training.test_record import record_of
from workers.client.record import check_record
from workers.mpc import sealing

ROWS = np.array([[0.5, -1.0], [2.0, 0.25]])


@pytest.fixture
def market(request, transactional_db, settings, tmp_path):
    nodes = NodeSet(tmp_path / "nodes", n=getattr(request, "param", 5))
    nodes.start()
    yield Market(nodes, settings, tmp_path)
    nodes.stop()
    assert {k: v for k, v in violations().items() if v} == {}


def back(market: Market, *indices: int) -> None:
    """Started again, and shown all that was committed without them."""
    market.nodes.start(*indices)
    jobs_catch_up(now=now())
    behind = {fp for job in Job.objects.all() for fp in job.behind}
    assert not behind & {market.nodes.fingerprints[i] for i in indices}


def buy(market: Market, listing) -> tuple[np.ndarray, set[int]]:
    """The logits of a paid query, and which nodes computed them."""
    upload = market.row(listing, ROWS)
    query = market.ask(listing, upload)
    drain_until(lambda: type(query).objects.get(pk=query.pk).state == "settled")
    query.refresh_from_db()
    computing = computing_of(query.job.descriptor)
    blobs = [entry["blob"] for entry in query.outputs]
    values, f = sealing.open_outputs(
        blobs,
        upload["ticket"],
        market.buyer.reply,
        market.nodes.descriptors,
        computing=computing,
    )
    return values / 2**f, set(computing)


def test_a_model_is_made_bought_and_kept_while_two_of_five_are_dead(market: Market) -> None:
    nodes = market.nodes
    held = market.whitelist()
    nodes.kill(4)
    market.normalise(held)
    drain_until(lambda: Round.objects.get(pk=held.pk).phase == "updates")
    back(market, 4)

    nodes.kill(0)
    market.share_updates(held)  # node 0 gets these with no job: it comes back too late
    nodes.kill(3)
    drain_until(lambda: Round.objects.get(pk=held.pk).phase == "done")
    held.refresh_from_db()
    job = held.round_job
    assert set(job.descriptor["computing"]) == {1, 2, 4} and job.descriptor["holding"] == []
    assert set(job.behind) == {nodes.fingerprints[0], nodes.fingerprints[3]}
    listing = market.accept(held)
    market.fund()
    wanted = market.oracle(held, ROWS)
    logits, computing = buy(market, listing)
    assert computing == {1, 2, 4}
    np.testing.assert_allclose(logits, wanted, atol=0.01)
    claimed(market, 0)  # that node has done nothing yet

    back(market, 0, 3)
    nodes.kill(1)
    nodes.kill(2)
    logits, computing = buy(market, listing)
    assert computing == {0, 3, 4}
    np.testing.assert_allclose(logits, wanted, atol=0.01)
    nodes.start(1, 2)
    drain()
    made_by = nodes.fingerprints
    goes_to_three_of_the_five_and_is_sold_there(market, listing, wanted)

    # the nodes that answered are paid, and whoever audits the log finds it all in order
    epoch = Epoch.objects.get(dao=market.dao, closed_at=None)
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    settled = [r["body"] for r in leaves() if r["type"] == "listings.epoch_settled"]
    # three a query, of as many as the epochs have that are over by now
    assert sum(int(count) for body in settled for count in body["jobs"].values()) in (3, 6, 9)
    assert errors(leaves()) == ""
    log.sequence(now=epoch.ends_at)  # no head is of a time before what it covers
    cosigned_anew(nodes)
    report = audit(market, nodes=made_by)
    assert failed(report) == [], said(report)


def goes_to_three_of_the_five_and_is_sold_there(market: Market, listing, wanted) -> None:
    """As all who made it signed; the round's own record stays as it was."""
    nodes, held, model = market.nodes, listing.version.round, listing.version.model
    five = nodes.fingerprints
    nodes.become(nodes.descriptors[:3])
    settings.NODES_FILE.write_text(json.dumps({"nodes": nodes.descriptors}))
    nodes_sync()
    makers = [site.key for site in market.custodians]
    consents = consents_of(makers, model=model, nodes=nodes.fingerprints)
    refreshing.reshare(model=model, consents=consents, now=now())
    drain_until(lambda: Round.objects.get(pk=held.pk).nodes == nodes.fingerprints)
    logits, computing = buy(market, Listing.objects.get(pk=listing.pk))
    assert computing == {0, 1, 2}
    np.testing.assert_allclose(logits, wanted, atol=0.01)
    while LogLeaf.objects.filter(seq=None).exists():
        log.sequence(now=now())
    record = record_of(held)
    assert record["round"]["nodes"] == five and check_record(record) == []


def test_by_vote_four_nodes_compute_that_check_each_other_or_the_job_waits(market: Market) -> None:
    nodes = market.nodes
    market.carried("subdaos.set_engine", {"engine": VERIFIED})
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    nodes.kill(0)
    drain_until(lambda: Round.objects.get(pk=held.pk).phase == "done")
    held.refresh_from_db()
    for job in (held.moments_job, held.round_job):
        assert job.descriptor["engine"] == VERIFIED and len(job.descriptor["computing"]) == 4
        assert {r.body["engine"] for r in job.receipts.all()} == {VERIFIED}
    assert held.round_job.descriptor["computing"] == [1, 2, 3, 4]
    listing = market.accept(held)
    vote = engine_vote_json(listing)
    assert vote and (vote["engine"], vote["before"]) == (VERIFIED, "ring")
    made_in, opened_at = listing.version.round, listing.version.round.opened_at
    made_in.opened_at = vote["executed_at"]  # before that vote it had none
    assert engine_vote_json(listing) is None
    made_in.opened_at = opened_at
    market.fund()
    wanted = market.oracle(held, ROWS)
    logits, computing = buy(market, listing)
    assert computing == {1, 2, 3, 4}
    np.testing.assert_allclose(logits, wanted, atol=0.01)

    # three that live do not compute it without a check: it waits for the fourth
    nodes.kill(1)
    query = market.ask(listing, market.row(listing, ROWS))
    drain_until(lambda: type(query).objects.get(pk=query.pk).reason)
    query.refresh_from_db()
    assert (query.state, query.reason) == ("running", "node-1 does not answer.")
    nodes.start(1)
    drain_until(lambda: type(query).objects.get(pk=query.pk).state == "settled")
    back(market, 0)

    epoch = Epoch.objects.get(dao=market.dao, closed_at=None)
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    log.sequence(now=epoch.ends_at)  # no head is of a time before what it covers
    cosigned_anew(nodes)
    report = audit(market)
    assert failed(report) == [], said(report)
    told = [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]
    assert "the vote was for" not in errors(told)
    (opened,) = (leaf["body"] for leaf in told if leaf["type"] == "training.round_opened")
    assert opened.pop("engine") == VERIFIED
    assert "computed by ring, the vote was for ring_verified" in errors(told)


@pytest.mark.parametrize("market", [4], indirect=True)
def test_by_vote_nodes_compute_on_shamir_shares_and_three_that_have_theirs_answer(
    market: Market,
) -> None:
    """A round is made by all that are there; who is dead then gets its share when it is back."""
    nodes, engine = market.nodes, "shamir_t1"
    market.carried("subdaos.set_engine", {"engine": engine})
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    nodes.kill(0)
    drain_until(lambda: Round.objects.get(pk=held.pk).phase == "done")
    held.refresh_from_db()
    assert held.round_job.descriptor["engine"] == engine
    assert held.moments_job.descriptor["computing"] == [0, 1, 2, 3]
    assert held.round_job.descriptor["computing"] == [1, 2, 3]
    assert {r.body["engine"] for r in held.round_job.receipts.all()} == {engine}
    assert held.round_job.behind == [nodes.fingerprints[0]]
    listing = market.accept(held)
    market.fund()
    wanted = market.oracle(held, ROWS)
    nodes.start(0)
    assert jobs_catch_up(now=now()) == 1
    job = held.round_job
    job.refresh_from_db()
    assert job.behind == []
    for share_id in job.descriptor["inputs"]["update"]:
        gone = nodes.http.get(f"{nodes.control[0]}/shares/{share_id}")
        assert gone.json()["code"] == "unknown_share"
    assert jobs_catch_up(now=now()) == 0
    # what is kept has new shares then; whoever is known to lack his is not asked
    row = refreshing.refresh(now=now())
    assert row.left == 0 and row.count >= 1 and len(row.proof["receipts"]) == 4
    job.behind = [nodes.fingerprints[1]]
    job.save(update_fields=["behind"])
    logits, computing = buy(market, listing)
    assert computing == {0, 2, 3}
    np.testing.assert_allclose(logits, wanted, atol=0.01)
    job.behind = [nodes.fingerprints[0]]
    job.save(update_fields=["behind"])
    # while one of the three is away nobody's money is held, though three nodes are there
    nodes.kill(1)
    with pytest.raises(availability.NodesShort) as short:
        availability.nodes_ensure(held.nodes, engine, listing.version.model)
    lacking, away = (nodes.descriptors[i]["name"] for i in (0, 1))
    text = f"{lacking} has no part of this model and {away} does not answer, and every inference"
    assert short.value.text.startswith(text)
    availability.nodes_ensure(held.nodes, engine, "00" * 32)
    assert not job_answers(Job(attempt=1, descriptor=Job.objects.get(kind="query").descriptor))
    nodes.start(1)
    # another engine's shares are turned away before anything is held
    with pytest.raises(Unprocessable, match="engine"):
        market.ask(listing, market.row(listing, ROWS, engine="ring"))

    epoch = Epoch.objects.get(dao=market.dao, closed_at=None)
    assert epoch_settle(epoch_id=epoch.id, now=epoch.ends_at)
    log.sequence(now=epoch.ends_at)  # no head is of a time before what it covers
    cosigned_anew(nodes)
    report = audit(market)
    assert failed(report) == [], said(report)
