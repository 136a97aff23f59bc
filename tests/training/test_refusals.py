"""What a round does not take, and what it says: nothing is half written."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from apps.compute import control
from apps.compute.models import Job
from apps.compute.selectors import jobs_due
from apps.core.clock import now
from apps.core.errors import DomainError
from apps.protocol.jobs import STAGED_FOR_S
from apps.training import running, selectors, services, submissions
from apps.training.deadlines import rounds_go_on
from apps.training.models import ModelVersion, Round, Submission
from apps.training.privacy import budget_json
from apps.wallets.models import LogLeaf, Transfer
from tests.support.market import drain, drain_until
from tests.training.test_shared_rows import withdraw
from workers.client.replay import replay
from workers.mpc import sealing


def refusal(call) -> DomainError:
    with pytest.raises(DomainError) as refused:
        call()
    assert not Submission.objects.exists()
    return refused.value


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scope": "moments:another"}, "scope"),
        ({"circuits": ["logistic_round@1"]}, "circuits"),
        ({"circuits_hash": "00" * 32}, "circuits_hash"),
        ({"roster": "00" * 32}, "roster"),
        ({"params": {"features": 3}}, "params"),
        ({"f": 16}, "f"),
    ],
)
def test_a_ticket_for_something_else_is_refused_by_the_fields_name(market, changes, field) -> None:
    held = market.whitelist()
    site = market.custodians[0]
    upload = market.upload(held, site, "sums", market.sums(1), **changes)
    error = refusal(lambda: market.submit(held, site, upload))
    assert error.code == "ticket_mismatch" and error.args_["field"] == field
    assert field in error.text


def test_three_nodes_open_no_round_that_four_are_to_check(market) -> None:
    """Until the members vote for what there are nodes for."""
    market.carried("subdaos.set_engine", {"engine": "ring_verified"})
    drain()
    market.admit()
    assert "ring_verified takes 4 nodes, not 3." in services.why_not(market.dao)
    assert not Round.objects.filter(dao=market.dao).exists()
    with pytest.raises(DomainError, match="with this already"):
        market.carried("subdaos.set_engine", {"engine": "ring_verified"})
    with pytest.raises(DomainError, match="one of: ring, ring_verified"):
        market.carried("subdaos.set_engine", {"engine": "shamir"})
    market.dao.params["n"] = 6
    market.dao.save(update_fields=["params"])
    with pytest.raises(DomainError, match="shamir_t1 takes 5 nodes at most, and here 6 are"):
        market.carried("subdaos.set_engine", {"engine": "shamir_t1"})


def test_a_share_of_another_shape_or_with_a_short_life_is_refused(market) -> None:
    held = market.whitelist()
    site = market.custodians[0]
    upload = market.upload(held, site, "sums", market.sums(1)[:4])
    assert refusal(lambda: market.submit(held, site, upload)).args_["field"] == "shape"
    soon = int(now().timestamp()) + 60
    upload = market.upload(held, site, "sums", market.sums(1), expires_at=soon)
    assert refusal(lambda: market.submit(held, site, upload)).args_["field"] == "expires_at"


def test_forged_foreign_and_early_shares_are_refused(market) -> None:
    held = market.whitelist()
    site, other, validator = market.custodians[0], market.custodians[1], market.validators[0]
    upload = market.upload(held, site, "sums", market.sums(1))
    forged = {**upload, "ticket": {**upload["ticket"], "uses": 1, "f": 21}}
    assert refusal(lambda: market.submit(held, site, forged)).code == "bad_signature"
    assert refusal(lambda: market.submit(held, other, upload)).code == "wrong_sender"
    assert refusal(lambda: market.submit(held, market.buyer, upload)).code == "not_on_roster"
    as_validator = market.upload(held, validator, "sums", market.sums(1))
    assert refusal(lambda: market.submit(held, validator, as_validator)).code == "wrong_slot"


def test_the_same_upload_is_one_submission_and_another_one_is_refused(market) -> None:
    held = market.whitelist()
    site = market.custodians[0]
    upload = market.upload(held, site, "sums", market.sums(1))
    first, new = market.submit(held, site, upload)
    again, anew = market.submit(held, site, upload)
    assert (new, anew) == (True, False) and first.id == again.id
    with pytest.raises(DomainError) as refused:
        market.submit(held, site, market.upload(held, site, "sums", market.sums(2)))
    assert refused.value.code == "already_submitted"


def test_a_share_that_the_nodes_refuse_may_be_sent_anew(market) -> None:
    """Sealed for the wrong node: its holder cannot open it, and says so."""
    held = market.whitelist()
    site = market.custodians[0]
    upload = market.upload(held, site, "sums", market.sums(1))
    upload["envelopes"] = upload["envelopes"][1:] + upload["envelopes"][:1]
    submission, _ = market.submit(held, site, upload)
    drain()
    submission.refresh_from_db()
    assert submission.state == "refused" and submission.reason
    assert submission.refusal == "sealed_elsewhere"
    assert submission.sealed is None and not submission.parts.exists()
    better, new = market.submit(held, site, market.upload(held, site, "sums", market.sums(1)))
    drain()
    better.refresh_from_db()
    assert new and better.state == "delivered" and len(better.acks) == 3


def test_only_validators_announce_rows_and_only_until_updates_are_asked_for(market) -> None:
    held = market.whitelist()

    def announce(who, rows):
        return submissions.rows_announce(round_id=held.id, party=who.party, rows=rows, now=now())

    with pytest.raises(DomainError, match="not_a_validator"):
        announce(market.custodians[0], 40)
    with pytest.raises(DomainError, match="bad_rows"):
        announce(market.validators[0], 2)
    with pytest.raises(DomainError, match="bad_rows") as refused:
        announce(market.validators[0], 1334)
    assert refused.value.args_ == {"rows_max": 1333}
    shown = selectors.round_json(selectors.round_get(held.id))
    assert shown["rows_max"] == {"validator": 1333}
    for validator in market.validators:  # the first two leave as much to the third
        announce(validator, 1333)
    market.normalise(held)
    held.refresh_from_db()
    assert held.phase == "updates"
    announce(market.validators[0], 40)
    with pytest.raises(DomainError, match="rows_fixed"):
        announce(market.validators[0], 41)


def test_sums_that_no_rows_have_fail_the_round_and_say_so(market, monkeypatch) -> None:
    held, honest = market.whitelist(), market.sums
    monkeypatch.setattr(market, "sums", lambda seed: honest(seed) * [1, 100, 100, 0, 0])
    market.normalise(held)
    held.refresh_from_db()
    assert held.phase == "failed" and held.normalisation is None
    assert "no rows have the sums of column 1, so some site shared others" in held.reason


def test_a_round_without_three_useful_updates_is_void_and_pays_nobody_points(market) -> None:
    for site in market.custodians[1:]:
        site.weights = -3 * site.weights
    from apps.subdaos.selectors import points_at

    before = points_at(market.dao, now())
    held = market.train()
    assert held.phase == "void" and "three" in held.reason
    assert not hasattr(held, "version")
    assert points_at(market.dao, now()) == before


def test_a_round_that_nobody_fills_expires_and_says_who_is_missing(market) -> None:
    held = market.whitelist()
    site = market.custodians[0]
    market.submit(held, site, market.upload(held, site, "sums", market.sums(1)))
    drain()
    rounds_go_on(now=held.expires_at + timedelta(seconds=1))
    held.refresh_from_db()
    assert held.phase == "failed"
    assert site.party.name not in held.reason and market.custodians[1].party.name in held.reason


def test_a_round_that_is_over_leaves_nothing_for_the_sweep(market) -> None:
    """One stays with a share that never got there, the next with a job that nobody took."""
    held = market.whitelist()
    site = market.custodians[0]
    share, _ = market.submit(held, site, market.upload(held, site, "sums", market.sums(1)))
    late = held.expires_at + timedelta(seconds=1)
    assert rounds_go_on(now=late) == 1
    share.refresh_from_db()
    assert (share.state, share.reason, share.sealed) == ("refused", "The round is over.", None)
    assert not share.parts.exists()
    assert selectors.shares_due(now=late) == []
    again = services.round_open_if_ready(dao_id=market.dao.id, now=now())
    for i, site in enumerate(market.custodians):
        market.submit(again, site, market.upload(again, site, "sums", market.sums(i)))
    for submission in Submission.objects.filter(state="received"):
        submissions.share_deliver(submission_id=submission.id)
    again.refresh_from_db()
    assert (again.phase, again.moments_job.state) == ("normalising", "queued")
    late = again.expires_at + timedelta(seconds=1)
    assert rounds_go_on(now=late) == 1
    assert Job.objects.get(moments_round=again).state == "failed"
    assert jobs_due(now=late) == []


def test_a_round_whose_node_never_comes_back_fails_when_its_time_is_over(
    market, monkeypatch
) -> None:
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    for submission in Submission.objects.filter(state="received"):
        submissions.share_deliver(submission_id=submission.id)

    def away(*_: object, **__: object) -> None:
        raise control.Retryable("node_down", "Node House One does not answer.")

    monkeypatch.setattr(control, "run_job", away)
    monkeypatch.setattr(control, "health", lambda members: [False] * len(members))
    assert running.round_run(round_id=held.id) is False
    held.refresh_from_db()
    assert held.phase == "computing"
    monkeypatch.setattr(running, "clock_now", lambda: held.expires_at + timedelta(seconds=1))
    running.round_run(round_id=held.id)
    held.refresh_from_db()
    assert (held.phase, held.reason) == ("failed", "Node House One does not answer.")
    assert services.why_not(held.dao) is None  # another round can be opened


def test_a_round_whose_result_a_node_has_lost_fails_when_its_time_is_over(
    market, monkeypatch
) -> None:
    """Other nodes may have kept it: what it has spent of a privacy budget is counted."""
    budget = {"epsilon_milli": 20_000, "rounds": 1, "clip_milli": 2000}
    market.carried("subdaos.set_privacy", {"privacy": budget})
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    for submission in Submission.objects.filter(state="received"):
        submissions.share_deliver(submission_id=submission.id)

    def lost(*_: object) -> None:
        raise control.Final("unknown_job", "Node House One: This node has no result of that job.")

    monkeypatch.setattr(control, "commit", lost)
    for _ in range(3):
        assert running.round_run(round_id=held.id) is False
        Job.objects.filter(round=held).update(lease_until=now())
    held.refresh_from_db()
    assert (held.phase, held.round_job.state) == ("computing", "committing")
    assert sum("does not keep the result" in entry["text"] for entry in held.progress) == 1
    # who takes its share back now hears from the nodes that it was computed with
    sent = held.submissions.get(party=market.custodians[0].party, slot="update")
    withdraw(held, market.custodians[0], sent)
    assert submissions.share_forget(submission_id=sent.id)
    sent.refresh_from_db()
    assert [signed["ack"]["computed"] for signed in sent.acks] == [True] * 3
    assert "A node had computed with it" in sent.reason
    monkeypatch.setattr(running, "clock_now", lambda: held.expires_at + timedelta(seconds=1))
    running.round_run(round_id=held.id)
    held.refresh_from_db()
    assert (held.phase, held.round_job.state) == ("failed", "failed")
    assert "no result of that job" in held.reason
    assert "budget is used up" in services.why_not(held.dao)
    spent = budget_json(market.dao)
    assert (spent["spent_epsilon_milli"], spent["rounds_spent"]) == (20_000, 1)
    log = [json.loads(bytes(leaf.data)) for leaf in LogLeaf.objects.order_by("id")]
    assert replay(log).parameters.spent == {market.dao.party.pid: held.privacy["rho_micro"]}


def test_a_node_gone_between_staging_and_commit_ends_the_round_by_a_deadline(
    market, monkeypatch
) -> None:
    """All have signed, one never comes back: the page says until when; then all of it fails."""
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    for submission in Submission.objects.filter(state="received"):
        submissions.share_deliver(submission_id=submission.id)

    def away(*_: object) -> None:
        raise control.Retryable("node_down", "Node House One does not answer.")

    def again_at(time) -> Round:
        Job.objects.filter(round=held).update(lease_until=now())
        monkeypatch.setattr(running, "clock_now", lambda: time)
        running.round_run(round_id=held.id)
        return Round.objects.get(pk=held.pk)

    money = Transfer.objects.count()
    monkeypatch.setattr(control, "commit", away)
    assert running.round_run(round_id=held.id) is False
    expires_at = Job.objects.get(round=held).expires_at
    waiting = again_at(expires_at + timedelta(seconds=STAGED_FOR_S - 1))
    assert (waiting.phase, waiting.round_job.state) == ("computing", "committing")
    until = f"{expires_at + timedelta(seconds=STAGED_FOR_S):%Y-%m-%d %H:%M} UTC"
    assert until in waiting.progress[-1]["text"]
    over = again_at(expires_at + timedelta(seconds=STAGED_FOR_S))
    assert (over.phase, over.round_job.state) == ("failed", "failed")
    assert over.round_job.error_code == "node_gone" and "Node House One" in over.reason
    assert not ModelVersion.objects.exists() and not over.scores.exists()
    assert not over.submissions.exclude(sealed=None).exists()
    assert Transfer.objects.count() == money
    assert services.why_not(over.dao) is None  # another round can be opened


def test_a_share_id_taken_in_the_same_instant_is_a_named_conflict(market, monkeypatch) -> None:
    """Another round's transaction has just taken it, unseen by our look."""
    held = market.whitelist()
    one, other = market.custodians[:2]
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "secrets", SimpleNamespace(token_bytes=bytes))
        first = market.upload(held, one, "sums", market.sums(0))
        second = market.upload(held, other, "sums", market.sums(1))
    market.submit(held, one, first)
    monkeypatch.setattr(submissions, "_with_share", lambda share_id: None)
    with pytest.raises(DomainError) as refused:
        market.submit(held, other, second)
    assert (refused.value.code, refused.value.status) == ("share_id_taken", 409)
    assert Submission.objects.get().party == one.party


def test_a_version_that_is_voted_down_is_rejected_and_not_listed(market) -> None:
    held = market.train()
    assert running.versions_reject_defeated(now=now()) == 0
    assert running.versions_reject_defeated(now=now() + timedelta(seconds=30)) == 1
    held.version.refresh_from_db()
    assert held.version.status == "rejected"
    assert services.round_open_if_ready(dao_id=market.dao.id, now=now()).number == 2


def test_a_round_survives_the_death_of_a_node(market, mortal) -> None:
    held = market.whitelist()
    market.normalise(held)
    market.share_updates(held)
    for submission in Submission.objects.filter(state="received"):
        submissions.share_deliver(submission_id=submission.id)
    mortal.kill(0)
    assert running.round_run(round_id=held.id) is False
    mortal.start(0)

    def over() -> bool:
        held.refresh_from_db()
        return held.phase not in ("updates", "computing")

    drain_until(over)
    assert held.phase == "done", held.progress
    assert held.round_job.attempt > 1
    assert Round.objects.get().version.evidence["auc_milli"] > 850


class Killed(BaseException):
    """What no handler catches, as a kill -9."""


def test_a_round_survives_the_death_of_its_worker_at_every_step(market, monkeypatch) -> None:
    """Before the nodes hear of a job, when they have answered, when they have committed."""

    def dies(module, name, *, before) -> None:
        lives = getattr(module, name)

        def once(*args, **options):
            monkeypatch.setattr(module, name, lives)
            if not before:
                lives(*args, **options)
            raise Killed

        monkeypatch.setattr(module, name, once)
        with pytest.raises(Killed):
            drain()
        assert Job.objects.filter(state__in=("running", "committing")).count() == 1
        Job.objects.update(lease_until=now())  # as long as others leave it to that worker

    def dies_everywhere() -> None:
        dies(running.compute, "job_dispatch", before=True)
        dies(running.compute, "job_dispatch", before=False)
        dies(running.compute, "job_commit", before=False)
        dies(running, "_record", before=True)
        drain()

    held = market.whitelist()
    market.normalise_validators(held)
    for i, site in enumerate(market.custodians):
        market.submit(held, site, market.upload(held, site, "sums", market.sums(i)))
    dies_everywhere()
    held.refresh_from_db()
    assert held.phase == "updates", held.progress
    rows = np.concatenate([
        np.random.default_rng(i).normal(0, 1, (50, 2)) for i in range(len(market.custodians))
    ])  # fmt: skip
    mean = np.array([int(value) for value in held.normalisation["mean"]]) / 2.0**20
    assert np.allclose(mean, rows.mean(axis=0), atol=1e-4)  # each site's sums once
    market.share_updates(held)
    dies_everywhere()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    assert held.scores.count() == len(market.custodians)
    assert held.round_job.attempt == 1  # whoever asks, the nodes compute it once
    kinds = Counter(LogLeaf.objects.values_list("type", flat=True))
    assert kinds["training.round_done"] == kinds["training.normalised"] == 1, kinds
    assert ModelVersion.objects.count() == 1
