"""Rows that custodians share: trained on by real nodes, and taken back by their owner's word."""

from __future__ import annotations

import copy
import sqlite3
import time

import numpy as np
import pytest

from apps.protocol import sharing, tickets, wire
from apps.protocol.circuits import CIRCUITS
from tests.support.nodes import Buyer, RowsRound, fixed, frame_of
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode


def plain(r: RowsRound, model=None):
    values = {
        "rows": [np.rint(x * 2**16).astype(np.int64) for x in r.rows],
        "holdout": [np.rint(r.holdout * 2**16).astype(np.int64)],
    }
    if model is not None:
        values["model"] = [model]
    return run_plain(CIRCUITS[r.circuit], values, r.params)


def ran(nodes, r):
    answers = nodes.ask(r.job())
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]
    committed = nodes.commit(answers)
    return answers[0].json()["openings"], committed[0].json()["model"]


def answer_of(nodes, model, rows):
    buyer = Buyer(nodes, model, normalisation="ab" * 32)
    upload = buyer.query(rows)
    return buyer.open(upload, nodes.ask(buyer.job(upload), uploads=[upload])).reshape(-1)


def test_nodes_train_on_rows_and_go_on_from_the_model_they_made(three_nodes):
    r = RowsRound(three_nodes).put()
    openings, model = ran(three_nodes, r)
    wanted = plain(r)
    assert openings["phi_milli"][-1] == 0 and openings["void"] == 0
    assert openings["improved"] == wanted.openings["improved"]
    asked = np.array([[0.5, -1.0], [1.5, 0.25]])
    weights = decode(wanted.result.words[0], 24)
    expected = asked @ weights[:2] + weights[2]
    assert np.max(np.abs(answer_of(three_nodes, model, asked) - expected)) < 1e-2

    later = r.again(model).put()
    openings, newer = ran(three_nodes, later)
    on = plain(later, wanted.result.words[0].astype(np.int64))
    assert newer != model and openings["improved"] == on.openings["improved"]
    weights = decode(on.result.words[0], 24)
    expected = asked @ weights[:2] + weights[2]
    assert np.max(np.abs(answer_of(three_nodes, newer, asked) - expected)) < 1e-2


def test_what_stays_judges_and_trains_as_if_it_were_shared_anew(three_nodes):
    """M-FL3, M-FL6: the nodes open the same, and the second round's tickets are all that comes."""
    r = RowsRound(three_nodes)
    holdout, rows = (r.fields(slot, uses=2) for slot in ("holdout", "rows"))
    came = three_nodes.upload(r.validators[0], fixed(r.holdout), **holdout)
    trained = three_nodes.upload(r.custodians[0], fixed(r.rows[0]), **rows)
    r.uploads["holdout"], r.uploads["rows"][0] = [came], trained
    _, model = ran(three_nodes, r.put())
    opened = []
    for anew in (False, True):
        later = r.again(model)
        if not anew:
            later.uploads["holdout"] = [later.kept(came, r.validators[0])]
            later.uploads["rows"][0] = later.kept(trained, r.custodians[0], slot="rows")
            assert len(frame_of(later.uploads["holdout"][0])) < 3000 < len(frame_of(came))
        opened.append(ran(three_nodes, later.put())[0])
    kept, anew = opened
    assert kept.keys() == anew.keys() and kept["improved"] == anew["improved"]
    for name in ("phi_milli", "auc_milli", "accuracy_milli"):  # the last bit is the masks'
        assert kept[name] == pytest.approx(anew[name], abs=2)


def test_only_a_roster_of_all_its_makers_may_train_on_a_model(three_nodes):
    _, model = ran(three_nodes, RowsRound(three_nodes).put())
    strangers = RowsRound(three_nodes, model=model).put()
    answers = three_nodes.ask(strangers.job())
    assert [a.json()["code"] for a in answers] == ["makers_missing"] * 3


def word_of(r, place=0, key=None, **changes):
    upload = r.uploads["rows"][place]
    body = sharing.withdrawal_of(
        share_id=upload["ticket"]["share_id"],
        ticket_id=tickets.ticket_id(upload["ticket"]),
        at=int(time.time()),
    )
    signature = wire.sign(
        key or r.custodians[place], sharing.WITHDRAWAL_DOMAIN, {**body, **changes}
    )
    return upload, {"ticket": upload["ticket"], "withdrawal": body, "signature": signature}


def withdraw(nodes, r, **more):
    upload, asked = word_of(r, **more)
    return upload, nodes.post_all(f"/shares/{upload['ticket']['share_id']}/withdraw", asked)


def words_kept(nodes, share_id):
    found = []
    for home in nodes.homes:
        db = sqlite3.connect(home / "store.sqlite")
        row = db.execute("SELECT words FROM shares WHERE share_id = ?", (share_id,)).fetchone()
        found.append(None if row is None else row[0])
        db.close()
    return found


@pytest.mark.parametrize("there", [True, False])
def test_nodes_forget_what_its_owner_withdraws_and_never_take_it_again(
    there,
    three_nodes,
):
    r = RowsRound(three_nodes)
    if there:
        r.put()
    upload, answers = withdraw(three_nodes, r)
    share_id = upload["ticket"]["share_id"]
    for node, answer in zip(three_nodes.descriptors, answers):
        said = answer.json()
        wire.verify(node["sign_key"], sharing.WITHDRAWN_DOMAIN, said["ack"], said["signature"])
    assert words_kept(three_nodes, share_id) == [None] * 3
    again = three_nodes.post_all("/shares", upload)
    assert [a.json()["code"] for a in again] == ["withdrawn"] * 3
    # not even with the job, nor after the coordinator has had it dropped
    body = {"v": 1, "share_id": share_id, "ticket_id": tickets.ticket_id(upload["ticket"])}
    signed = wire.sign(three_nodes.coordinator, "flai/drop/v1", body)
    dropped = three_nodes.post_all(f"/shares/{share_id}/drop", {"drop": body, "signature": signed})
    assert [a.json()["dropped"] for a in dropped] == [False] * 3
    answers = three_nodes.ask(r.job(), uploads=[*r.uploads["rows"], *r.uploads["holdout"]])
    assert {a.json()["code"] for a in answers} <= {"withdrawn", "peer_refused"}
    assert withdraw(three_nodes, r)[1][0].status_code == 200


def test_whoever_takes_a_share_back_takes_back_all_it_sent_to_the_round(three_nodes):
    """Shares of the roster before a member was called late: the coordinator still has them."""
    r = RowsRound(three_nodes).put()
    kept_back = three_nodes.upload(
        r.custodians[0], fixed(r.rows[0]), **r.fields("rows", issued_at=int(time.time()) - 5)
    )
    smaller = copy.copy(r)
    smaller.custodians = r.custodians[:-1]
    members = [m for m in r.roster["members"] if m["key"] != wire.public_hex(r.custodians[-1])]
    smaller.roster = {**r.roster, "members": members}
    smaller.params = {**r.params}
    smaller.uploads = smaller.make_uploads()
    smaller.put()
    _, answers = withdraw(three_nodes, smaller)
    assert [a.json()["ack"]["computed"] for a in answers] == [False] * 3
    assert words_kept(three_nodes, r.uploads["rows"][0]["ticket"]["share_id"]) == [None] * 3
    assert None not in words_kept(three_nodes, r.uploads["rows"][1]["ticket"]["share_id"])
    answers = three_nodes.ask(r.job())
    assert [a.json()["code"] for a in answers] == ["share_used"] * 3
    late = three_nodes.post_all("/shares", kept_back)
    assert [a.json()["code"] for a in late] == ["withdrawn"] * 3
    # what its owner shares anew is another matter
    three_nodes.put(three_nodes.upload(r.custodians[0], fixed(r.rows[0]), **r.fields("rows")))


def test_only_its_owner_can_withdraw_a_share(three_nodes):
    r = RowsRound(three_nodes).put()
    for key in (r.custodians[1], three_nodes.coordinator):
        _, answers = withdraw(three_nodes, r, key=key)
        assert [a.json()["code"] for a in answers] == ["bad_signature"] * 3
    # a ticket of one's own under that share's id
    upload, thief = r.uploads["rows"][0], r.custodians[1]
    mine = {"ticket": upload["ticket"] | {"sender": wire.public_hex(thief)}}
    other = copy.copy(r)
    other.uploads, other.custodians = {"rows": [mine]}, [thief]
    _, answers = withdraw(three_nodes, other)
    assert [a.json()["code"] for a in answers] == ["share_conflict"] * 3
    _, asked = word_of(r)
    path = f"/shares/{asked['ticket']['share_id']}/withdraw"
    for spoilt in (
        {**asked, "withdrawal": {**asked["withdrawal"], "at": -1}},
        {**asked, "withdrawal": []},
        {**asked, "ticket": {}},
        {**asked, "signature": 7},
    ):
        assert three_nodes.post(0, path, spoilt).status_code in (400, 403)
    assert None not in words_kept(three_nodes, asked["ticket"]["share_id"])
    assert ran(three_nodes, r)[1]


def test_what_is_computed_is_not_undone(three_nodes):
    r = RowsRound(three_nodes).put()
    answers = three_nodes.ask(r.job())
    upload, withdrawn = withdraw(three_nodes, r)
    assert [a.json()["ack"]["computed"] for a in withdrawn] == [True] * 3
    assert words_kept(three_nodes, upload["ticket"]["share_id"]) == [None] * 3
    assert [c.json()["committed"] for c in three_nodes.commit(answers)] == [True] * 3
    # now no node signs that it took the share back
    assert [a.json()["code"] for a in withdraw(three_nodes, r)[1]] == ["already_completed"] * 3
    # nor does one keep what comes to it afterwards; what it took before it still says that it took
    late = three_nodes.upload(r.custodians[0], fixed(r.rows[0]), **r.fields("rows"))
    said = three_nodes.post_all("/shares", late)
    assert [a.json()["code"] for a in said] == ["already_completed"] * 3
    assert words_kept(three_nodes, late["ticket"]["share_id"]) == [None] * 3
    assert three_nodes.post(0, "/shares", upload).status_code in (201, 403)


def test_a_share_of_rows_enters_no_other_circuit(three_nodes):
    r = RowsRound(three_nodes).put()
    for circuit, slots in (("moments@1", ["sums"]), ("logistic_round@1", ["update", "holdout"])):
        inputs = {slot: r.job()["inputs"]["rows"] for slot in slots}
        answers = three_nodes.ask(r.job(circuit=circuit, inputs=inputs))
        assert {a.json()["code"] for a in answers} <= {
            "circuit_not_allowed",
            "duplicate_input",
            "malformed_job",
        }
        assert all(a.status_code in (400, 403, 409) for a in answers)
