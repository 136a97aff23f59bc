"""Rounds that train on shared rows, on real nodes: consent, steps, vote; and rows taken back."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse

from apps.compute import control
from apps.core.clock import now
from apps.core.errors import BadInput, DomainError, Forbidden, Unprocessable
from apps.core.transactions import durable
from apps.governance.executing import execute
from apps.governance.models import Proposal
from apps.governance.services import propose, vote
from apps.participants.selectors import roster
from apps.protocol import sharing, tickets, wire
from apps.subdaos.models import Dao
from apps.subdaos.services import dao_lock
from apps.training import running, selectors, submissions
from apps.training.deadlines import rounds_go_on
from apps.training.models import Round
from apps.training.services import round_open, round_ticket, rows_consent
from apps.training.starting import start_of
from apps.wallets import log
from apps.wallets.models import LogLeaf
from tests.support.market import TRUE, drain
from tests.training.test_record import record_of
from workers.client.record import check_record

SITE_ROWS = 40
CHOSEN = {"kind": "secure_sgd", "schedule": {"epochs": 3, "steps": 5, "curve": 1}}


def choose(market, payload: dict[str, Any]) -> None:
    """The members vote for another way of training; nobody waits for the three seconds to pass."""
    proposal = propose(
        actor=market.members[0].party,
        dao=market.dao,
        kind="subdaos.set_training",
        payload={"training": payload},
        title="Train on rows",
        now=now(),
    )
    later = now() + timedelta(hours=1)
    Proposal.objects.filter(pk=proposal.pk).update(voting_ends_at=later)
    for member in market.members:
        vote(actor=member.party, proposal_id=proposal.id, support="for", now=now())
    Proposal.objects.filter(pk=proposal.pk).update(voting_ends_at=now())
    execute(proposal_id=proposal.id, now=now())
    market.dao = Dao.objects.get(pk=market.dao.pk)


def rows_of(place: int) -> np.ndarray:
    """A site's rows; the last site's labels are turned round."""
    rng = np.random.default_rng(100 + place)
    x = rng.normal(0, 1, (SITE_ROWS, 2))
    z = x @ TRUE[:2] + TRUE[2] + rng.normal(0, 0.5, SITE_ROWS)
    return np.column_stack([x, (z < 0 if place == 3 else z > 0)])


def announce(held: Round, site, count: int = SITE_ROWS, key=None, **changes: Any) -> Round:
    consent = {**rows_consent(held, count), **changes}
    return submissions.rows_announce(
        round_id=held.id,
        party=site.party,
        rows=count,
        consent=consent,
        signature=wire.sign(key or site.key, sharing.CONSENT_DOMAIN, consent),
        now=now(),
    )


def asked_for_shares(market) -> Round:
    choose(market, CHOSEN)
    held = market.whitelist()
    assert held.training == "secure_sgd" and held.schedule["steps"] == 5
    market.normalise(held)
    held.refresh_from_db()
    assert held.phase == "normalising" and "Site 0" in held.progress[-1]["text"]
    for site in market.custodians:
        announce(held, site)
    held.refresh_from_db()
    assert held.phase == "updates"
    return held


def share(market, held: Round, *, but: int = 0) -> None:
    """The last site shares the first one's rows, in another order."""
    for place, site in list(enumerate(market.custodians))[but:]:
        rows = rows_of(0)[::-1] if place == 3 else rows_of(place)
        market.submit(held, site, market.upload(held, site, "rows", rows))
    for validator in market.validators:
        market.submit(held, validator, market.upload(held, validator, "holdout", validator.holdout))


def test_a_round_on_shared_rows_ends_in_a_version_that_is_voted_on(market) -> None:
    held = asked_for_shares(market)
    share(market, held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    copier, opened = market.custodians[3].party, held.round_job.openings
    assert phi[copier.id] == 0 and max(phi.values()) == 1000
    assert len(opened["copies"]) == 1 and min(opened["phi_milli"]) > 0
    note = next(step["text"] for step in held.progress if "sent the same rows" in step["text"])
    assert copier.name in note and market.custodians[0].party.name in note
    leaf = json.loads(bytes(LogLeaf.objects.get(type="training.round_done").data))["body"]
    assert leaf["phi_milli"][copier.pid] == 0
    evidence = held.version.evidence
    assert evidence["auc_milli"] > 850 and held.version.proposal is not None
    assert set(evidence["training"]["improved"]) <= {0, 1}
    assert len(evidence["training"]["curve_milli"]) == len(evidence["training"]["improved"]) > 0
    leaves = [
        json.loads(bytes(leaf.data))["body"]
        for leaf in LogLeaf.objects.filter(type="training.rows_consented")
    ]
    assert len(leaves) == 4
    for leaf in leaves:
        member = held.members.get(key=leaf["key"])
        wire.verify(
            leaf["key"], sharing.CONSENT_DOMAIN, member.consent["consent"], leaf["signature"]
        )
    page = Client().get(reverse("explorer:round", args=[held.id])).content.decode()
    assert "Two nodes together" in page and "epochs of at most 3" in page
    assert "rows consented" in page
    log.sequence(now=now())
    assert check_record(record_of(held)) == []
    listing = market.accept(held)
    assert listing.version == held.version
    market.fund()
    upload = market.row(listing, [[1.5, -1.0]])
    query = market.ask(listing, upload)
    drain()
    query.refresh_from_db()
    assert query.state == "settled" and market.open(query, upload)[0] > 0
    starts_from_zero_where_a_maker_is_late(market, held)


def starts_from_zero_where_a_maker_is_late(market, first: Round) -> None:
    """A round that would go on from the version, whose fourth maker does not come."""
    Dao.objects.filter(pk=market.dao.pk).update(params=market.dao.params | {"min_custodians": 3})
    with durable():
        held = round_open(dao=dao_lock(market.dao), now=now())
    assert round_ticket(held, stage="round")["circuits"] == ["logistic_sgd_on@1"]
    people, lost = roster(market.dao), market.custodians[0].public
    without = [p for p in people if p.public_key != lost]
    rekeyed = [replace(p, public_key="00" * 32) if p.public_key == lost else p for p in people]
    for present in (without, rekeyed):
        why = start_of(held, present, zero=False).why
        assert "not from version 1: Site 0 helped to make it" in why
    assert "as the members voted" in start_of(held, people, zero=True).why
    market.normalise_validators(held)
    for site in market.custodians[:3]:
        announce(held, site)
    held.refresh_from_db()
    assert rounds_go_on(now=held.due_at)
    held.refresh_from_db()
    wanted = round_ticket(held)
    assert held.phase == "updates" and wanted["circuits"] == ["logistic_sgd@1"]
    assert wanted["model"] is None and held.normalisation == first.normalisation
    assert "starts from zero: Site 3 helped to make version 1" in held.progress[-2]["text"]
    late = market.custodians.pop()
    share(market, held)
    market.custodians.append(late)
    drain()
    held.refresh_from_db()
    assert held.phase == "done" and held.round_job.circuit == "logistic_sgd@1", held.progress
    page = Client().get(reverse("explorer:round", args=[held.id])).content.decode()
    assert "Training starts from zero" in page


def test_rows_come_only_with_the_consent_of_their_owners_key(market) -> None:
    choose(market, CHOSEN)
    held = market.whitelist()
    site, other = market.custodians[:2]
    for spoil in (
        {"key": other.key},
        {"round": "another"},
        {"circuits": ["logistic_round@1"]},
        {"rows": SITE_ROWS - 1},
        {"columns": 2},
        {"expires_at": 2_000_000_000},
        {"more": 1},
    ):
        with pytest.raises(Unprocessable):
            announce(held, site, **spoil)
    with pytest.raises(Unprocessable):
        submissions.rows_announce(round_id=held.id, party=site.party, rows=40, now=now())
    with pytest.raises(BadInput, match="5000"):
        announce(held, site, count=20_001)
    held.refresh_from_db()
    assert held.rows == {} and not LogLeaf.objects.filter(type="training.rows_consented").exists()


def test_where_updates_are_shared_custodians_bring_no_rows(market) -> None:
    held = market.whitelist()
    with pytest.raises(Forbidden):
        announce(held, market.custodians[0])


def word(site, submission) -> dict[str, Any]:
    body = sharing.withdrawal_of(
        share_id=submission.share_id,
        ticket_id=tickets.ticket_id(submission.ticket),
        at=int(time.time()),
    )
    return {"withdrawal": body, "signature": wire.sign(site.key, sharing.WITHDRAWAL_DOMAIN, body)}


def withdraw(held: Round, site, submission, signer=None):
    return submissions.share_withdraw(
        round_id=held.id,
        party=site.party,
        share_id=submission.share_id,
        now=now(),
        **word(signer or site, submission),
    )


def test_a_site_takes_its_rows_back_and_may_share_again(market) -> None:
    held = asked_for_shares(market)
    site, other = market.custodians[:2]
    sent, _ = market.submit(held, site, market.upload(held, site, "rows", rows_of(0)))
    drain()
    with pytest.raises(DomainError) as stranger:
        withdraw(held, other, sent)
    assert stranger.value.code == "share_not_found"
    with pytest.raises(Unprocessable):
        withdraw(held, site, sent, signer=other)
    withdraw(held, site, sent)
    drain()
    sent.refresh_from_db()
    assert sent.state == "withdrawn" and len(sent.acks) == 3 and sent.sealed is None
    for node, ack in zip(market.nodes.descriptors, sent.acks, strict=True):
        wire.verify(node["sign_key"], sharing.WITHDRAWN_DOMAIN, ack["ack"], ack["signature"])
    assert withdraw(held, site, sent).state == "withdrawn"
    assert LogLeaf.objects.filter(type="training.share_withdrawn").count() == 1
    assert site.party.name in {
        one["name"] for one in selectors.round_json(selectors.round_get(held.id))["waits_for"]
    }
    share(market, held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    with pytest.raises(DomainError) as over:
        withdraw(held, other, held.submissions.get(party=other.party, slot="rows"))
    assert over.value.code == "nothing_to_withdraw"


def test_a_site_that_takes_its_rows_back_when_the_nodes_have_done_is_told_so(
    market, monkeypatch
) -> None:
    held = asked_for_shares(market)
    site = market.custodians[0]
    sent, _ = market.submit(held, site, market.upload(held, site, "rows", rows_of(0)))
    withdraw(held, site, sent)

    def over(*_, **__):
        raise control.Final("already_completed", "node-0: This share's job is over.")

    monkeypatch.setattr(control, "withdraw_share", over)
    assert not submissions.share_forget(submission_id=sent.id)
    sent.refresh_from_db()
    assert (sent.state, sent.reason) == ("withdrawn", "node-0: This share's job is over.")
    assert submissions.share_forget(submission_id=sent.id)


def test_a_round_is_not_computed_with_rows_that_were_taken_back_in_time(market) -> None:
    held = asked_for_shares(market)
    share(market, held)
    for submission_id in selectors.shares_due(now=now()):
        submissions.share_deliver(submission_id=submission_id)
    held.refresh_from_db()
    assert held.phase == "computing"
    site = market.custodians[1]
    sent = held.submissions.get(party=site.party, slot="rows")
    withdraw(held, site, sent)
    assert submissions.share_forget(submission_id=sent.id)
    running.round_run(round_id=held.id)
    held.refresh_from_db()
    assert held.phase == "failed" and not hasattr(held, "version")


@pytest.mark.parametrize(
    "payload",
    [
        {"kind": "luck"},
        {"kind": "fedavg", "schedule": {}},
        {"kind": "secure_sgd", "schedule": {"epochs": 0}},
        {"kind": "secure_sgd", "schedule": {"speed": 1}},
        {"kind": "secure_sgd", "schedule": []},
        {"kind": "secure_sgd", "start": "here"},
        {"kind": "fedavg", "start": "zero"},
        {"kind": "fedavg"},
    ],
)
def test_the_way_of_training_is_voted_on_within_bounds(market, payload) -> None:
    with pytest.raises(BadInput):
        choose(market, payload)
