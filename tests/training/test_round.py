"""A round on real nodes: from the whitelist to the version that is voted on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from apps.compute.models import Receipt
from apps.compute.selectors import descriptors_of, job_json
from apps.core.clock import now, unix_ms
from apps.core.errors import BadInput, Unprocessable
from apps.governance.executing import execute
from apps.governance.models import Proposal
from apps.governance.services import propose, vote
from apps.listings.access import CredentialNeeded
from apps.listings.mandates import mandate_give
from apps.listings.selectors import listing_json
from apps.protocol import consent, wire
from apps.protocol import credentials as rules
from apps.protocol.contribution import (
    clip_to_median_norm,
    coalition_scores,
    phi_from_utilities,
    phi_milli,
    upper_median,
)
from apps.subdaos.models import Dao
from apps.subdaos.selectors import points_at
from apps.training.models import ModelVersion, Round, Submission
from apps.training.services import round_ticket, why_not
from apps.training.shown import shown_of
from apps.wallets.credentials import credential_json
from apps.wallets.models import LogLeaf
from tests.support.credentials import KIND, Keyed, voted
from tests.support.market import drain
from workers.client.proofs import lent
from workers.client.replay import replay
from workers.client.verify import not_receipted


def test_a_round_runs_by_itself_from_whitelist_to_listing(market) -> None:
    before = points_at(market.dao, now())
    held = market.train()
    assert held.phase == "done", held.progress
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    good, flipped = market.custodians[:3], market.custodians[3]
    assert phi[flipped.party.id] == 0
    assert max(phi.values()) == 1000 and all(phi[site.party.id] > 0 for site in good)
    version = held.version
    assert version.status == "proposed" and version.proposal is not None
    assert version.evidence["auc_milli"] > 850
    assert {"recall_milli", "log_loss_by_stratum", "calibration"} <= set(version.evidence)
    assert [gate["stratum"] for gate in version.evidence["gates"]] == [None, "north", "south"]
    after = points_at(market.dao, now())
    for party, value in phi.items():
        assert after[party] == before[party] + value * 1000
    for validator in market.validators:
        assert after[validator.party.id] == before[validator.party.id] + 1_000_000
    for type_, job in (("normalised", held.moments_job), ("round_done", held.round_job)):
        leaf = json.loads(bytes(LogLeaf.objects.get(type=f"training.{type_}").data))["body"]
        signed = Receipt.objects.filter(job=job).values_list("signature", flat=True)
        assert leaf["receipts"] == sorted(signed) and len(signed) == 3
    assert not Submission.objects.filter(round=held, sealed__isnull=False).exists()
    listing = market.accept(held)
    assert listing.version == ModelVersion.objects.get(status="accepted")


def test_who_commits_later_to_another_sites_update_scores_nothing(market) -> None:
    market.custodians[3].weights = market.custodians[0].weights.copy()
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    copied, copier = market.custodians[0].party, market.custodians[3].party
    assert phi[copier.id] == 0 and phi[copied.id] > 0
    assert min(held.round_job.openings["phi_milli"]) > 0
    assert any("the same update; the later one scores 0" in e["text"] for e in held.progress)
    leaf = json.loads(bytes(LogLeaf.objects.get(type="training.round_done").data))["body"]
    assert leaf["phi_milli"][copier.pid] == 0 and leaf["evidence"]["copies"]
    one, other = shown_of(held, copied.pid), shown_of(held, copier.pid)
    assert f"same update as {copier.name}, earlier" in one.words[1] and not one.grave
    assert f"same update as {copied.name}, later" in other.words[1] and other.grave

    state = replay(json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id"))
    made, job = next(iter(state.earnings.versions.values())), job_json(held.round_job)
    job = {**job, "nodes": descriptors_of(held.round_job)}
    known = {"keys": state.keys, "committed": state.earnings.committed}
    assert not_receipted(job, made, **known) is None
    paid = dict(zip((copied.pid, copier.pid), (0, leaf["phi_milli"][copied.pid])))
    other = replace(made, done={**made.done, "phi_milli": {**leaf["phi_milli"], **paid}})
    assert "φ is given to others" in (not_receipted(job, other, **known) or "")
    # logged as for holders alone, while the tickets that the makers signed asked for nothing
    asked = {"credential": KIND, "issuers": ["5b" * 16], "keys": ["ab" * 32]}
    other = replace(made, opened={**made.opened, "access": asked})
    assert "than the log says" in (not_receipted(job, other, **known) or "")


def choose(market, name: str, value: str) -> None:
    """The members vote for another parameter; nobody waits for the three seconds to pass."""
    proposal = propose(
        actor=market.members[0].party,
        dao=market.dao,
        kind=f"subdaos.set_{name}",
        payload={name: value},
        title="Otherwise",
        now=now(),
    )
    for member in market.members:
        vote(actor=member.party, proposal_id=proposal.id, support="for", now=now())
    Proposal.objects.filter(pk=proposal.pk).update(voting_ends_at=now())
    execute(proposal_id=proposal.id, now=now())
    market.dao = Dao.objects.get(pk=market.dao.pk)


def test_a_round_scores_by_what_the_members_voted_for(market) -> None:
    scoring = "shapley"
    with pytest.raises(BadInput, match="scored by this already"):
        choose(market, "scoring", "taylor")
    with pytest.raises(BadInput, match="one of"):
        choose(market, "scoring", "luck")
    choose(market, "scoring", scoring)
    held = market.whitelist()
    market.normalise(held)
    held.refresh_from_db()
    params = round_ticket(held)["params"]
    assert params["scoring"] == held.scoring == scoring
    site = market.custodians[0]
    other = market.upload(held, site, "update", site.weights, params=params | {"scoring": "taylor"})
    with pytest.raises(Unprocessable, match="params"):
        market.submit(held, site, other)
    market.share_updates(held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    clipped = clip_to_median_norm([c.weights for c in market.custodians])
    said = [
        coalition_scores(clipped, rows[:, :2], rows[:, 2], scoring)
        for rows in (v.holdout[0::2] for v in market.validators)
    ]
    clear = phi_milli(phi_from_utilities(upper_median(said, [1, 1, 1])))
    opened = {s.party_id: s.phi_milli for s in held.scores.all()}
    assert [opened[c.party.id] for c in market.custodians] == pytest.approx(clear, abs=30)
    assert opened[market.custodians[3].party.id] == 0


def test_a_model_answers_as_coarsely_as_was_voted_when_it_was_made(market) -> None:
    with pytest.raises(BadInput, match="like this already"):
        choose(market, "resolution", "logit")
    with pytest.raises(BadInput, match="one of: label, band, rounded, logit"):
        choose(market, "resolution", "weights")
    choose(market, "resolution", "label")
    held = market.train()
    listing = market.accept(held)
    choose(market, "resolution", "logit")
    shown = listing_json(listing)
    assert (shown["resolution"], shown["circuit"]) == ("label", "logistic_infer_label@1")
    market.fund()
    rows = [[0.5, -1.0], [2.0, 0.25], [-1.5, 0.75]]
    finer = {"circuits": ["logistic_infer@1"], "resolution": "logit"}
    with pytest.raises(Unprocessable, match="circuits"):
        market.ask(listing, market.row(listing, rows, **finer))
    upload = market.row(listing, rows)
    query = market.ask(listing, upload)
    drain()
    query.refresh_from_db()
    assert query.state == "settled", query.reason
    assert market.open(query, upload).tolist() == (market.oracle(held, rows) >= 0).tolist()
    state = replay(json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id"))
    assert state.keys


def test_holders_alone_are_answered_by_the_nodes_of_a_model_that_was_made_so(
    market, monkeypatch
) -> None:
    """The vote holds at once by the site, and in the nodes from the next round's model on."""
    board, holder = Keyed(market.person("Board").party), Keyed(market.buyer.party)
    market.buyer.party = holder.party
    voted(market.dao, board.party.pid)
    market.dao = Dao.objects.get(pk=market.dao.pk)
    held = market.train()
    asked = {"credential": KIND, "issuers": [board.party.pid], "keys": [board.public]}
    assert held.access == asked
    tickets = [s.ticket for s in held.submissions.all()]
    demand = rules.Demand(KIND, (board.public,))
    stages = {"moments": None, "round": demand.params}
    assert {t["scope"].split(":")[0]: t.get("access") for t in tickets} == stages
    for job, said in ((held.moments_job, None), (held.round_job, demand.params)):
        assert [r["receipt"].get("access") for r in job_json(job)["receipts"]] == [said] * 3
    state = replay(json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id"))
    made = next(iter(state.earnings.versions.values()))
    job = {**job_json(held.round_job), "nodes": descriptors_of(held.round_job)}
    known = {"keys": state.keys, "committed": state.earnings.committed}
    assert not_receipted(job, made, **known) is None
    for lie in ({}, asked | {"credential": "lab"}, asked | {"keys": ["00" * 32]}):
        other = replace(made, opened={**made.opened, "access": lie})
        assert "than the log says" in (not_receipted(job, other, **known) or "")
    listing = market.accept(held)
    assert listing_json(listing)["node_access"] == demand.params
    market.fund()
    mandate = {"listing": "*", "limit_micro": 10_000_000, "until_ms": unix_ms(now()) + 10**8}
    word = holder.word(consent.MANDATE, consent.mandate_payload(**mandate, api_key=""))
    mandate_give(party=holder.party, consent=word, now=now(), **mandate)
    row = credential_json(board.issue(holder), now=now())
    asker, rows = wire.public_hex(market.buyer.key), [[0.5, -1.0]]
    proof = lent(row, holder.key, asker=asker, until_ms=mandate["until_ms"])
    others = lent(row, holder.key, asker="00" * 32, until_ms=mandate["until_ms"])
    for shown in ({}, {"access": others}):
        with pytest.raises(CredentialNeeded, match="Its nodes ask for that themselves"):
            market.ask(listing, market.row(listing, rows, **shown))
    # a site that admits whom it likes, by a vote or without one
    with monkeypatch.context() as lax:
        lax.setattr("apps.listings.services.ensure_shown", lambda *of, **more: None)
        query = market.ask(listing, market.row(listing, rows))
        drain()
        query.refresh_from_db()
        assert query.state == "released"
    upload = market.row(listing, rows, access=proof)
    query = market.ask(listing, upload)
    drain()
    query.refresh_from_db()
    assert query.state == "settled", query.reason
    assert all("access" not in r["receipt"] for r in job_json(query.job)["receipts"])
    assert market.open(query, upload) == pytest.approx(market.oracle(held, rows), abs=1e-3)


def test_shapley_opens_no_round_for_more_sites_than_it_scores(market, monkeypatch) -> None:
    monkeypatch.setattr("apps.training.services.SHAPLEY_MAX", 5)
    market.dao.params = market.dao.params | {"scoring": "shapley"}
    market.dao.save(update_fields=["params"])
    market.custodians += [market.person(f"More {i}") for i in range(2)]
    with pytest.raises(Round.DoesNotExist):
        market.whitelist()
    assert "5 custodians at most" in why_not(Dao.objects.get(pk=market.dao.pk))
