"""Queries of one model computed together: each with its own ticket, receipt, output and fate."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import numpy as np

from apps.protocol import jobs, sharing, tickets, wire
from tests.support.nodes import Buyer
from workers.mpc import hpke, sealing

ROWS = [[[0.1, 0.2]], [[0.5, -1.0], [2.0, 0.25]], [[-0.3, 0.4]]]


def bundle(nodes, asked, only=(0, 1, 2)):
    """The nodes' replies, query by query: [[node 0's, node 1's, node 2's], …]."""
    body = nodes.signed_bundle(asked)
    answers = nodes.post_all("/bundles", body, nodes=only)
    assert [a.status_code for a in answers] == [200] * len(only), [a.text for a in answers]
    return list(zip(*(a.json()["answers"] for a in answers)))


def outcomes(replies) -> list[str]:
    return [reply.get("error", {}).get("code", "answer") for reply in replies]


def opened(buyer, upload, replies) -> np.ndarray:
    """As a buyer does it: the receipts agree and are about this ticket alone."""
    answers = [reply["answer"] for reply in replies]
    signed = [{k: a[k] for k in ("receipt", "signature")} for a in answers]
    keys = {jobs.fingerprint(d): d["sign_key"] for d in buyer.nodes.descriptors}
    receipts = jobs.check_receipts(signed, sign_keys=keys, nodes=list(keys))
    assert receipts[0]["inputs"] == [tickets.ticket_id(upload["ticket"])]
    assert receipts[0]["scope"] == upload["ticket"]["scope"]
    return buyer.open_sealed(upload, [a["sealed"] for a in answers])


def test_a_bundle_answers_each_query_as_if_it_were_alone(three_nodes, model) -> None:
    buyer = Buyer(three_nodes, model)
    uploads = [buyer.query(rows) for rows in ROWS]
    together = bundle(three_nodes, [(buyer.job(u), u) for u in uploads])
    for rows, upload, replies in zip(ROWS, uploads, together):
        alone = buyer.query(rows)
        answers = three_nodes.ask(buyer.job(alone), uploads=[alone])
        single = buyer.open(alone, answers)
        assert np.abs(opened(buyer, upload, replies) - single).max() < 1e-3


def test_a_query_that_one_node_refuses_does_not_spoil_the_others(three_nodes, model) -> None:
    """Two nodes could compute it; the third can't open its envelope."""
    buyer = Buyer(three_nodes, model)
    good, bad, late = (buyer.query(rows) for rows in ROWS)
    bad |= {"envelopes": [*bad["envelopes"][:2], good["envelopes"][2]]}
    asked = [(buyer.job(u), u) for u in (good, bad, late)]
    replies = bundle(three_nodes, asked)
    assert outcomes(replies[0]) == ["answer"] * 3 == outcomes(replies[2])
    assert outcomes(replies[1]) == ["peer_refused", "peer_refused", "sealed_elsewhere"]
    for upload, reply in ((good, replies[0]), (late, replies[2])):
        opened(buyer, upload, reply)


def test_rows_of_a_query_that_a_member_refuses_are_given_back_and_counted_when_it_is_computed(
    three_nodes, model
) -> None:
    """Else who sends garbage to one node spends the other nodes' rows, and pays nothing."""
    buyer = Buyer(three_nodes, model)
    good, other = buyer.query(ROWS[1]), buyer.query(ROWS[0])
    bad = good | {"envelopes": [*good["envelopes"][:2], other["envelopes"][2]]}
    job, before = buyer.job(good), rows_counted(three_nodes)
    (replies,) = bundle(three_nodes, [(job, bad)])
    assert outcomes(replies) == ["peer_refused", "peer_refused", "sealed_elsewhere"]
    assert rows_counted(three_nodes) == before
    # its share is still that job's; computed, it is counted once
    (stolen,) = bundle(three_nodes, [(buyer.job(good, deadline_s=1), good)], only=(0,))
    assert outcomes(stolen) == ["share_used"]
    for attempt in (2, 3):
        (replies,) = bundle(three_nodes, [(job | {"attempt": attempt}, good)])
        opened(buyer, good, replies)
        assert rows_counted(three_nodes) == [rows + len(ROWS[1]) for rows in before]


def test_garbage_that_one_node_can_open_takes_no_other_query_along(three_nodes, model) -> None:
    """Nor any rows: brackets nested so deep that reading them ends in no ordinary error."""
    buyer = Buyer(three_nodes, model)
    good, bad = buyer.query(ROWS[0]), buyer.query(ROWS[1])
    node = three_nodes.descriptors[2]
    about = tickets.ticket_id(bad["ticket"]) + jobs.fingerprint(node)
    info = sealing.SEAL_CONTEXT + bytes.fromhex(about)
    envelope = hpke.sender(buyer.reply, bytes.fromhex(node["hpke_key"]), info)
    garbage = wire.b64(envelope.enc + envelope.seal(b"[" * 4_000))
    bad |= {"envelopes": [*bad["envelopes"][:2], garbage]}
    before = rows_counted(three_nodes)
    replies = bundle(three_nodes, [(buyer.job(u), u) for u in (good, bad)])
    assert outcomes(replies[0]) == ["answer"] * 3
    assert outcomes(replies[1]) == ["peer_refused", "peer_refused", "sealed_elsewhere"]
    assert rows_counted(three_nodes) == [rows + len(ROWS[0]) for rows in before]


def rows_counted(nodes) -> list[int]:
    counted = []
    for home in nodes.homes:
        with closing(sqlite3.connect(home / "store.sqlite")) as db:
            counted += db.execute("SELECT coalesce(sum(rows), 0) FROM answered").fetchone()
    return counted


def test_the_same_share_in_two_jobs_of_one_bundle_is_answered_once(three_nodes, model) -> None:
    buyer = Buyer(three_nodes, model)
    upload = buyer.query(ROWS[0])
    twice = [(buyer.job(upload), upload), (buyer.job(upload), upload)]
    first, second = bundle(three_nodes, twice)
    assert outcomes(first) == ["answer"] * 3
    assert set(outcomes(second)) <= {"busy", "share_used", "scope_bound", "already_completed"}


def test_a_repeated_bundle_gets_the_answers_that_were_signed(three_nodes, model) -> None:
    buyer = Buyer(three_nodes, model)
    asked = [(buyer.job(u), u) for u in (buyer.query(rows) for rows in ROWS[:2])]
    assert bundle(three_nodes, asked) == bundle(three_nodes, asked)


def test_a_lost_member_leaves_every_query_for_another_attempt(three_nodes, model) -> None:
    """One member is not asked: the others give up at the deadline, and the next attempt answers."""
    buyer = Buyer(three_nodes, model)
    uploads = [buyer.query(rows) for rows in ROWS[:2]]
    first = [(buyer.job(u, deadline_s=1), u) for u in uploads]
    for replies in bundle(three_nodes, first, only=(0, 1)):
        assert set(outcomes(replies)) <= {"deadline", "peer_lost"}
        assert all(reply["error"]["retryable"] for reply in replies)
    again = [(job | {"attempt": 2, "deadline_s": 15}, u) for job, u in first]
    for upload, replies in zip(uploads, bundle(three_nodes, again)):
        opened(buyer, upload, replies)


def test_what_comes_with_its_query_is_never_on_disk_and_still_its_jobs(three_nodes, model) -> None:
    """One member is asked: it binds the share to the job, keeps no word, and forgets nothing."""
    buyer = Buyer(three_nodes, model)
    upload = buyer.query(ROWS[0])
    job = buyer.job(upload, deadline_s=1)
    (lonely,) = bundle(three_nodes, [(job, upload)], only=(0,))
    assert set(outcomes(lonely)) <= {"deadline", "peer_lost"}
    share_id = upload["ticket"]["share_id"]
    with closing(sqlite3.connect(three_nodes.homes[0] / "store.sqlite")) as db:
        found = db.execute("SELECT used_by, words FROM shares WHERE share_id = ?", (share_id,))
        assert found.fetchone() == (job["job_id"], None)
    (other,) = bundle(three_nodes, [(buyer.job(upload, deadline_s=1), upload)], only=(0,))
    assert outcomes(other) == ["share_used"]


def test_a_query_that_its_owner_withdraws_after_a_failed_attempt_is_over(
    three_nodes, model
) -> None:
    buyer = Buyer(three_nodes, model)
    uploads = [buyer.query(rows) for rows in ROWS[:2]]
    asked = [(buyer.job(u, deadline_s=1), u) for u in uploads]
    bundle(three_nodes, asked, only=(0, 1))
    ticket = uploads[0]["ticket"]
    word = sharing.withdrawal_of(
        share_id=ticket["share_id"], ticket_id=tickets.ticket_id(ticket), at=int(time.time())
    )
    signature = wire.sign(buyer.key, sharing.WITHDRAWAL_DOMAIN, word)
    body = {"ticket": ticket, "withdrawal": word, "signature": signature}
    said = three_nodes.post_all(f"/shares/{ticket['share_id']}/withdraw", body)
    assert [a.status_code for a in said] == [200] * 3
    again = [(job | {"attempt": 2, "deadline_s": 15}, u) for job, u in asked]
    withdrawn, other = bundle(three_nodes, again)
    assert outcomes(withdrawn) == ["withdrawn"] * 3
    opened(buyer, uploads[1], other)


def test_what_is_no_bundle_is_refused_as_a_whole(three_nodes, model) -> None:
    buyer = Buyer(three_nodes, model)
    one, two = buyer.query(ROWS[0]), buyer.query(ROWS[2])
    first, second = (buyer.job(one), one), (buyer.job(two), two)
    other = (second[0] | {"model": "ab" * 32}, two)
    good = three_nodes.signed_bundle([first, second])
    more = {"jobs": [item | {"more": 1} for item in good["jobs"]]}
    for body, code in (
        (three_nodes.signed_bundle([]), "malformed"),
        (good | {"jobs": good["jobs"][0]}, "malformed"),
        (three_nodes.signed_bundle([first, first]), "malformed"),
        (three_nodes.signed_bundle([first, other]), "malformed"),
        (good | more, "malformed"),
        (good | {"jobs": [good["jobs"][0] | {"descriptor": {"deadline_s": 0.5}}]}, "malformed_job"),
        (good | {"signature": "00" * 64}, "bad_signature"),
        (three_nodes.signed(first[0]) | {"jobs": good["jobs"][:1]}, "malformed"),
    ):
        answer = three_nodes.post(0, "/bundles", body)
        assert answer.json()["code"] == code, answer.text


def test_the_signature_is_over_these_jobs_in_this_order(three_nodes, model) -> None:
    """None can be added, left out or moved; a signature over one job by itself is another's."""
    buyer = Buyer(three_nodes, model)
    asked = [(buyer.job(u), u) for u in (buyer.query(rows) for rows in ROWS)]
    whole = three_nodes.signed_bundle(asked)
    for spoilt in (
        whole | {"jobs": whole["jobs"][:2]},
        whole | {"jobs": whole["jobs"][::-1]},
        three_nodes.signed_bundle(asked[:2]) | {"jobs": whole["jobs"]},
        {"jobs": whole["jobs"][:1], "signature": three_nodes.signed(asked[0][0])["signature"]},
    ):
        answer = three_nodes.post(0, "/bundles", spoilt)
        assert answer.json()["code"] == "bad_signature", answer.text
