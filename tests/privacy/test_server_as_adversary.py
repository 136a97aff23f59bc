"""The server as the adversary: it holds the coordinator's key, sees all traffic, and has one node.

Whatever it signs and sends, the nodes do only what the owners of the shares signed. Each attempt
is refused with its own code, and nothing in any store has changed.
"""

import copy
import secrets
import socket
import sqlite3
import ssl
import time
import uuid

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol import identity, jobs, sharing, tickets, wire
from apps.protocol.circuits.noise import CLIP, RHO
from tests.support.nodes import Buyer, NodeSet, Round, fixed, trained_model
from tests.support.proofs import demand, proof
from workers.mpc import keys, sealing
from workers.node import home as homes
from workers.node.records import StoredJob
from workers.node.store import Store

TABLES = ("shares", "scopes", "jobs", "models", "kept")


@pytest.fixture
def nodes(three_nodes) -> NodeSet:
    return three_nodes


@pytest.fixture
def nothing_changes(nodes):
    """A function: refuse this with that code, and change nothing in any store."""

    def expect(answers, code, *, before, status=403):
        assert [a.json()["code"] for a in answers] == [code] * 3, [a.text for a in answers]
        assert [a.status_code for a in answers] == [status] * 3
        assert stores(nodes) == before

    return expect


def stores(nodes):
    """Every row of every store, as it lies on disk."""
    content = []
    for home in nodes.homes:
        db = sqlite3.connect(f"file:{home / 'store.sqlite'}?mode=ro", uri=True)
        content.append([db.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in TABLES])
        db.close()
    return content


def resigned(upload, key, **changes):
    """The same sealed parts under a ticket of another owner."""
    ticket = copy.deepcopy(upload["ticket"]) | {"sender": wire.public_hex(key)} | changes
    return upload | {"ticket": ticket, "signature": wire.sign(key, tickets.TICKET_DOMAIN, ticket)}


# ---- an oracle for an update ----------------------------------------------------------------


def test_one_hot_weights_as_public_input_are_no_job(nodes, nothing_changes):
    victim = Round(nodes).put()
    before = stores(nodes)
    job = victim.job() | {"public": {"weights": [1, 0, 0]}}
    nothing_changes(nodes.ask(job), "malformed_job", before=before, status=400)


def test_one_hot_weights_of_the_servers_own_enter_no_slot(nodes, nothing_changes):
    """Well shared, well signed, in a job of the right form: only the owners' word stands against
    it. The circuit has no such slot, and no roster names its owner."""
    victim, mine = Round(nodes), Ed25519PrivateKey.generate()
    one_hot = nodes.upload(mine, fixed([1, 0, 0]), **victim.fields("update"))
    victim.put()
    nodes.put(one_hot)
    before, share = stores(nodes), one_hot["ticket"]["share_id"]
    job = victim.job()
    job["inputs"]["weights"] = [share]
    nothing_changes(nodes.ask(job), "wrong_slot", before=before)
    job = victim.job()
    job["inputs"]["update"].append(share)
    nothing_changes(nodes.ask(job), "not_on_roster", before=before)
    slot = nodes.upload(mine, fixed([1, 0, 0]), **victim.fields("weights"))
    nothing_changes(nodes.post_all("/shares", slot), "wrong_slot", before=before)


def test_a_model_never_comes_from_outside(nodes, nothing_changes):
    before = stores(nodes)
    me = Buyer(nodes, "00" * 32)
    forged = me.query([[1.0, 0.0]], slot="model", circuits=["logistic_infer@1"])
    nothing_changes(nodes.post_all("/shares", forged), "wrong_slot", before=before)


def test_an_update_does_not_enter_inference(nodes, model, nothing_changes):
    victim = Round(nodes).put()
    before = stores(nodes)
    share = victim.uploads["update"][0]["ticket"]["share_id"]
    for scope, code in ((victim.scope, "circuit_not_allowed"), ("query:x", "wrong_scope")):
        job = nodes.job(
            "logistic_infer@1",
            scope,
            {"row": [share]},
            model=model,
            circuits_hash=victim.job()["circuits_hash"],
        )
        nothing_changes(nodes.ask(job), code, before=before)


def test_an_update_is_not_a_model(nodes, nothing_changes):
    victim = Round(nodes).put()
    ticket = victim.uploads["update"][0]["ticket"]
    for name in (tickets.ticket_id(ticket), ticket["share_id"] * 2, ticket["commitment"][0]):
        me = Buyer(nodes, name)
        query = me.query([[1.0, 0.0]])
        before = stores(nodes)
        nothing_changes(nodes.ask(me.job(query), uploads=[query]), "unknown_model", before=before)


def test_a_model_that_is_not_committed_does_not_exist(nodes, nothing_changes):
    r = Round(nodes).put()
    answers = nodes.ask(r.job())
    staged = answers[0].json()["receipt"]["model"]
    me = Buyer(nodes, staged)
    query = me.query([[1.0, 0.0]])
    before = stores(nodes)
    nothing_changes(nodes.ask(me.job(query), uploads=[query]), "unknown_model", before=before)


def test_a_model_enters_only_what_its_makers_allow(nodes, model, nothing_changes):
    me = Buyer(nodes, model)
    wide = me.query([[1.0, 0.0, 0.5]])
    answers = nodes.ask(me.job(wide), uploads=[wide])
    nothing_changes(answers, "wrong_shape", before=stores(nodes))
    r = Round(nodes).put()
    job = r.job(model=model)
    nothing_changes(nodes.ask(job), "wrong_model", before=stores(nodes))


def test_answers_are_as_coarse_as_the_makers_signed(nodes, nothing_changes):
    """The server asks as a buyer: under its own key and ticket, in every way that is finer."""
    model = trained_model(nodes, resolution="label")
    rows = [[1.0, 0.5], [-1.0, 0.5]]
    for finer in ("band", "rounded", "logit"):
        me = Buyer(nodes, model, resolution=finer)
        query = me.query(rows)
        before = stores(nodes)
        answers = nodes.ask(me.job(query), uploads=[query])
        nothing_changes(answers, "resolution_differs", before=before)
    # the makers' resolution in the ticket, a finer circuit in ticket and job
    me = Buyer(nodes, model, resolution="label")
    query = me.query(rows, circuits=["logistic_infer@1"])
    job = me.job(query, circuit="logistic_infer@1")
    before = stores(nodes)
    nothing_changes(nodes.ask(job, uploads=[query]), "resolution_differs", before=before)
    # a finer circuit in the job alone
    query = me.query(rows)
    job = me.job(query, circuit="logistic_infer@1")
    nothing_changes(nodes.ask(job, uploads=[query]), "circuit_not_allowed", before=before)
    answers = nodes.ask(me.job(query), uploads=[query])
    assert me.open(query, answers).tolist() == [1, 0]


def test_holders_alone_are_answered_whatever_the_site_admits(nodes, nothing_changes):
    """The server asks for whom it likes: without a credential, by one that it saw in another's
    ticket, by one that is over, or that it signed itself."""
    issuer, holder, server = (Ed25519PrivateKey.generate() for _ in range(3))
    model = trained_model(nodes, access=demand(issuer).params)
    me, rows, later = Buyer(nodes, model), [[1.0, 0.5]], int(time.time() * 1000) + 60_000
    asker = wire.public_hex(me.key)
    mine = proof(issuer, holder, asker=asker, until_ms=later)
    others = proof(issuer, holder, asker=wire.public_hex(holder), until_ms=later)
    over = proof(issuer, holder, asker=asker, until_ms=later - 120_000)
    own = proof(server, holder, asker=asker, until_ms=later)
    forged = own | {"signed": own["signed"] | {"key": wire.public_hex(issuer)}}
    before = stores(nodes)
    for shown in (None, others, over, own, forged):
        query = me.query(rows, **({"access": shown} if shown else {}))
        answers = nodes.ask(me.job(query), uploads=[query])
        nothing_changes(answers, "not_admitted", before=before)
    # the holder's own question, under a ticket of the server's or without the proof
    query = me.query(rows, access=mine)
    taken = resigned(query, server)
    nothing_changes(nodes.ask(me.job(taken), uploads=[taken]), "sealed_elsewhere", before=before)
    bare = query | {"ticket": {k: v for k, v in query["ticket"].items() if k != "access"}}
    nothing_changes(nodes.ask(me.job(bare), uploads=[bare]), "bad_signature", before=before)
    answers = nodes.ask(me.job(query), uploads=[query])
    assert [a.status_code for a in answers] == [200] * 3 and me.open(query, answers).shape == (1,)
    # nor are owners of one round made to sign for two: one of them for everybody
    r = Round(nodes, access=demand(issuer).params)
    r.uploads["update"][0] = nodes.upload(
        r.custodians[0],
        fixed(r.weights[0]),
        **{k: v for k, v in r.fields("update").items() if k != "access"},
    )
    r.put()
    nothing_changes(nodes.ask(r.job()), "access_differs", before=stores(nodes))


# ---- someone else's query -------------------------------------------------------------------


def test_a_swapped_reply_key_breaks_the_signature_or_the_seal(nodes, model, nothing_changes):
    buyer, thief = Buyer(nodes, model), Ed25519PrivateKey.generate()
    query = buyer.query([[0.5, -1.0]])
    mine = keys.hpke_public_hex(X25519PrivateKey.generate())
    swapped = query | {"ticket": query["ticket"] | {"reply_key": mine}}
    before = stores(nodes)
    nothing_changes(nodes.post_all("/shares", swapped), "bad_signature", before=before)
    job = buyer.job(swapped)
    nothing_changes(nodes.ask(job, uploads=[swapped]), "bad_signature", before=before)
    own = resigned(query, thief, reply_key=mine)
    answers = nodes.ask(buyer.job(own), uploads=[own])
    nothing_changes(answers, "wrong_reply_key", before=before)
    own = resigned(query, thief)
    answers = nodes.ask(buyer.job(own), uploads=[own])
    nothing_changes(answers, "sealed_elsewhere", before=before)


def test_a_row_lies_on_no_disk_whatever_it_is_handed_over_with(nodes, model, nothing_changes):
    """Nor would a refusal delete what the write-ahead log holds by then."""
    query = Buyer(nodes, model).query([[0.5, -1.0]])
    job = Round(nodes).job()
    job["inputs"]["update"][0] = query["ticket"]["share_id"]
    before = stores(nodes)
    nothing_changes(nodes.post_all("/shares", query), "wrong_scope", before=before)
    nothing_changes(nodes.ask(job, uploads=[query]), "wrong_scope", before=before)


def test_a_foreign_blob_under_an_own_ticket_does_not_open(nodes, nothing_changes):
    victim, me = Round(nodes), Ed25519PrivateKey.generate()
    before = stores(nodes)
    for upload in (victim.uploads["update"][0], victim.uploads["holdout"][0]):
        stolen = resigned(upload, me, share_id=uuid.uuid4().hex)
        nothing_changes(nodes.post_all("/shares", stolen), "sealed_elsewhere", before=before)


def test_a_row_meets_only_the_model_that_its_owner_named(nodes, model, nothing_changes):
    buyer = Buyer(nodes, "ab" * 32)
    query = buyer.query([[0.5, -1.0]])
    job = buyer.job(query, model=model)
    before = stores(nodes)
    nothing_changes(nodes.ask(job, uploads=[query]), "wrong_model", before=before)


def test_a_query_runs_once(nodes, model, nothing_changes):
    buyer = Buyer(nodes, model)
    query = buyer.query([[0.5, -1.0]])
    job = buyer.job(query)
    first = nodes.ask(job, uploads=[query])
    assert [a.status_code for a in first] == [200] * 3
    before = stores(nodes)
    again = nodes.ask(job, uploads=[query])
    assert [a.json() for a in again] == [a.json() for a in first]
    replay = buyer.job(query)
    nothing_changes(nodes.ask(replay, uploads=[query]), "already_completed", before=before)
    for attempt in range(2, 11):
        later = nodes.ask(job | {"attempt": attempt}, uploads=[query])
        assert [a.status_code for a in later] == [200] * 3
    late = job | {"attempt": 11}
    refused = nodes.ask(late, uploads=[query])
    nothing_changes(refused, "too_many_attempts", before=stores(nodes))


def test_a_query_that_has_begun_belongs_to_its_job(nodes, model):
    buyer = Buyer(nodes, model)
    query = buyer.query([[0.5, -1.0]])
    alone = nodes.ask(buyer.job(query, deadline_s=1), nodes=(0,), uploads=[query])
    assert alone[0].status_code == 503
    other = nodes.ask(buyer.job(query), nodes=(0,), uploads=[query])
    assert other[0].json()["code"] == "share_used"


def drop(nodes, upload, *, signer=None, **changes):
    ticket = upload["ticket"]
    body = {"v": 1, "share_id": ticket["share_id"], "ticket_id": tickets.ticket_id(ticket)}
    body |= changes
    signature = wire.sign(signer or nodes.coordinator, jobs.DROP_DOMAIN, body)
    content = {"drop": body, "signature": signature}
    return nodes.post_all(f"/shares/{ticket['share_id']}/drop", content)


def test_dropping_a_share_is_refusing_service_and_no_more(nodes, model, nothing_changes):
    r = Round(nodes).put()
    first = r.uploads["update"][0]
    before = stores(nodes)
    stranger = Ed25519PrivateKey.generate()
    nothing_changes(drop(nodes, first, signer=stranger), "bad_signature", before=before)
    other = drop(nodes, first, share_id="00" * 16)
    nothing_changes(other, "malformed", before=before, status=400)
    assert [a.json() for a in drop(nodes, first, ticket_id="00" * 32)] == [{"dropped": False}] * 3
    assert stores(nodes) == before

    assert [a.json() for a in drop(nodes, first)] == [{"dropped": True}] * 3
    assert [a.json()["code"] for a in nodes.ask(r.job(deadline_s=5))] == ["unknown_share"] * 3
    nodes.put(first)
    answers = nodes.ask(r.job())
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]
    before = stores(nodes)  # its openings are out: the inputs of this round are fixed
    for _ in range(2):
        assert [a.json() for a in drop(nodes, first)] == [{"dropped": False}] * 3
        assert stores(nodes) == before
        assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
        before = stores(nodes)


def test_a_dropped_query_still_belongs_to_its_job(nodes, model):
    buyer = Buyer(nodes, model)
    query = buyer.query([[0.5, -1.0]])
    job = buyer.job(query, deadline_s=1)
    assert nodes.ask(job, nodes=(0,), uploads=[query])[0].status_code == 503
    assert [a.json()["dropped"] for a in drop(nodes, query)] == [False] * 3
    other = nodes.ask(buyer.job(query), nodes=(0,), uploads=[query])
    assert other[0].json()["code"] == "share_used"
    answers = nodes.ask(job | {"attempt": 2, "deadline_s": 20}, uploads=[query])
    assert abs(buyer.open(query, answers)[0] - 2.0) < 0.3


# ---- a holdout that stays for further rounds (M-FL3) ----------------------------------------


def staying(nodes):
    """A completed round whose validator let its holdout stay, and the same parties' next one, to
    which custodians have sent their updates."""
    first = Round(nodes)
    fields = first.fields("holdout", uses=5)
    first.uploads["holdout"] = [nodes.upload(first.validators[0], fixed(first.holdout), **fields)]
    answers = nodes.ask(first.put().job())
    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
    second = first.next()
    nodes.put(*second.uploads["update"])
    return first.uploads["holdout"][0], second


def job_with(round_, holdout, **changes):
    job = round_.job(**changes)
    job["inputs"]["holdout"] = [holdout["ticket"]["share_id"]]
    return job


def test_a_holdout_that_stays_enters_no_round_without_its_owners_word(nodes, nothing_changes):
    came, second = staying(nodes)
    before = stores(nodes)
    nothing_changes(nodes.ask(job_with(second, came)), "wrong_scope", before=before)
    # a ticket of the server's own making: unsigned, or under its own key
    forged = second.kept(came, nodes.coordinator)
    nothing_changes(nodes.post_all("/shares", forged), "not_kept", before=before)
    named = forged["ticket"] | {"sender": came["ticket"]["sender"]}
    forged |= {"ticket": named}
    nothing_changes(nodes.post_all("/shares", forged), "bad_signature", before=before)
    # the ticket that it came with, as one for what is kept
    turned = {"ticket": came["ticket"] | {"type": "kept", "uses": 1}, "envelopes": []}
    turned |= {"signature": came["signature"], "correction": ""}
    nothing_changes(nodes.post_all("/shares", turned), "bad_signature", before=before)
    # and whole, once more: its round is over
    nodes.post_all("/shares", came)
    assert stores(nodes) == before


def test_its_owners_word_is_for_one_round_roster_circuit_and_scale(nodes, nothing_changes):
    came, second = staying(nodes)
    kept = second.kept(came, second.validators[0])
    before = stores(nodes)
    for changes in (
        {"scope": f"round:{uuid.uuid4()}"},
        {"roster": "22" * 32},
        {"circuits": ["logistic_sgd@1"]},
        {"params": second.params | {"normalisation": "cd" * 32}},
        {"model": "ab" * 32},
        {"resolution": "label"},
        {"commitment": ["aa" * 32, *kept["ticket"]["commitment"][1:]]},
        {"expires_at": kept["ticket"]["expires_at"] + 1},
    ):
        forged = kept | {"ticket": kept["ticket"] | changes}
        nothing_changes(nodes.post_all("/shares", forged), "bad_signature", before=before)
    nodes.put(kept)
    third = second.next()
    nodes.put(*third.uploads["update"])
    before = stores(nodes)
    nothing_changes(nodes.ask(job_with(third, kept)), "wrong_scope", before=before)
    members = [m | {"name": "another"} for m in second.roster["members"]]
    roster = {**second.roster, "members": members}
    answers = nodes.ask(job_with(second, kept, roster=roster))
    nothing_changes(answers, "roster_differs", before=before)
    other = second.fields("update", params=second.params | {"min_cell": 4})
    odd = [nodes.upload(k, fixed(w), **other) for k, w in zip(second.custodians, second.weights)]
    nodes.put(*odd)
    before = stores(nodes)
    job = job_with(second, kept)
    job["inputs"]["update"] = [upload["ticket"]["share_id"] for upload in odd]
    nothing_changes(nodes.ask(job), "params_differ", before=before)


def test_a_holdout_that_stays_enters_a_round_once(nodes, nothing_changes):
    came, second = staying(nodes)
    one, two = second.kept(came, second.validators[0]), second.kept(came, second.validators[0])
    nodes.put(one, two)
    before = stores(nodes)
    job = job_with(second, one)
    job["inputs"]["holdout"] *= 2
    nothing_changes(nodes.ask(job), "duplicate_input", before=before, status=400)
    job["inputs"]["holdout"][1] = two["ticket"]["share_id"]
    nothing_changes(nodes.ask(job), "duplicate_sender", before=before)
    answers = nodes.ask(job_with(second, one))
    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
    before = stores(nodes)
    nothing_changes(nodes.ask(job_with(second, two)), "scope_bound", before=before)
    late = second.kept(came, second.validators[0])
    nothing_changes(nodes.post_all("/shares", late), "already_completed", before=before)


def test_a_holdout_taken_back_is_in_no_store_and_enters_nothing_again(nodes):
    came, second = staying(nodes)
    kept = second.kept(came, second.validators[0])
    nodes.put(kept)
    ticket = came["ticket"]
    about = {"share_id": ticket["share_id"], "ticket_id": tickets.ticket_id(ticket)}
    word = sharing.withdrawal_of(**about, at=int(time.time()))
    for key, code in ((nodes.coordinator, "bad_signature"), (second.validators[0], None)):
        body = {"ticket": ticket, "withdrawal": word}
        body["signature"] = wire.sign(key, sharing.WITHDRAWAL_DOMAIN, word)
        answers = nodes.post_all(f"/shares/{about['share_id']}/withdraw", body)
        assert [a.json().get("code") for a in answers] == [code] * 3
    for shares, _scopes, _jobs, _models, staying_still in stores(nodes):
        ids = (about["share_id"], kept["ticket"]["share_id"])
        assert not any(row[5] for row in shares if row[0] in ids)
        assert about["share_id"] not in [row[1] for row in staying_still]
    for upload in (kept, second.kept(came, second.validators[0])):
        answers = nodes.post_all("/shares", upload)
        assert [a.json()["code"] for a in answers] == ["withdrawn"] * 3
    assert [a.json()["code"] for a in nodes.ask(job_with(second, kept))] == ["share_used"] * 3


# ---- who is in the round --------------------------------------------------------------------


def test_leaving_one_out_is_refused(nodes, nothing_changes):
    r = Round(nodes).put()
    before = stores(nodes)
    job = r.job()
    job["inputs"]["update"].pop()
    nothing_changes(nodes.ask(job), "sub_roster", before=before)
    smaller = copy.deepcopy(r.roster)
    smaller["members"].pop(0)
    job = r.job(roster=smaller)
    job["inputs"]["update"].pop(0)
    nothing_changes(nodes.ask(job), "roster_differs", before=before)


def test_a_roster_names_each_key_once(nodes, nothing_changes):
    r = Round(nodes).put()
    before = stores(nodes)
    doubled = copy.deepcopy(r.roster)
    doubled["members"].insert(0, dict(doubled["members"][0]))
    nothing_changes(nodes.ask(r.job(roster=doubled)), "bad_roster", before=before, status=400)


def test_nobody_is_surrounded_by_inventions(nodes, nothing_changes):
    """The server enrols itself beside one victim: the victim signed another roster."""
    victim, mine = Round(nodes).put(), Round(nodes)
    joint = copy.deepcopy(mine.roster)
    joint["scope_of"] = victim.id
    joint["members"][0]["key"] = victim.uploads["update"][0]["ticket"]["sender"]
    joint = tickets.roster_of(round_id=victim.id, members=joint["members"])
    mine.id, mine.scope, mine.roster = victim.id, victim.scope, joint
    mine.uploads = mine.make_uploads()
    mine.put()
    before = stores(nodes)
    job = mine.job()
    senders = {u["ticket"]["sender"]: u["ticket"]["share_id"] for u in mine.uploads["update"]}
    senders |= {
        victim.uploads["update"][0]["ticket"]["sender"]: victim.uploads["update"][0]["ticket"][
            "share_id"
        ]
    }
    job["inputs"]["update"] = [senders[k] for k in tickets.members_with_role(joint, "custodian")]
    nothing_changes(nodes.ask(job), "roster_differs", before=before)


def test_outsiders_doubles_and_disorder_are_refused(nodes, nothing_changes):
    r = Round(nodes)
    outsider = nodes.upload(Ed25519PrivateKey.generate(), fixed([1, 2, 3]), **r.fields("update"))
    twice = nodes.upload(r.custodians[0], fixed([1, 2, 3]), **r.fields("update"))
    r.put()
    nodes.put(outsider, twice)
    before = stores(nodes)
    for spoil, code in (
        (lambda ids: ids.__setitem__(0, outsider["ticket"]["share_id"]), "not_on_roster"),
        (lambda ids: ids.append(twice["ticket"]["share_id"]), "duplicate_sender"),
        (lambda ids: ids.reverse(), "roster_order"),
    ):
        job = r.job()
        spoil(job["inputs"]["update"])
        nothing_changes(nodes.ask(job), code, before=before)
    job = r.job()
    job["inputs"]["update"][1] = job["inputs"]["update"][0]
    nothing_changes(nodes.ask(job), "duplicate_input", before=before, status=400)


def test_two_custodians_are_too_few(nodes, nothing_changes):
    r = Round(nodes, custodians=2).put()
    nothing_changes(nodes.ask(r.job()), "too_few_custodians", before=stores(nodes))


# ---- once per round -------------------------------------------------------------------------


def test_a_round_is_bound_to_its_first_descriptor_and_completes_once(nodes, nothing_changes):
    r = Round(nodes)
    other = nodes.upload(r.custodians[0], fixed([9, 9, 9]), **r.fields("update"))
    r.put()
    nodes.put(other)
    job = r.job()
    answers = nodes.ask(job)
    assert [a.status_code for a in answers] == [200] * 3
    before = stores(nodes)

    changed = r.job(attempt=2, job_id=job["job_id"])
    changed["inputs"]["update"][0] = other["ticket"]["share_id"]
    nothing_changes(nodes.ask(changed), "job_id_taken", before=before)
    changed = r.job()
    changed["inputs"]["update"][0] = other["ticket"]["share_id"]
    nothing_changes(nodes.ask(changed), "scope_bound", before=before)
    renamed = copy.deepcopy(r.roster)
    renamed["members"][0]["name"] = "someone else"
    nothing_changes(nodes.ask(r.job(attempt=2, roster=renamed)), "scope_bound", before=before)

    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
    before = stores(nodes)
    nothing_changes(nodes.ask(r.job()), "already_completed", before=before)
    nothing_changes(nodes.ask(changed | {"attempt": 2}), "scope_bound", before=before)


@pytest.mark.parametrize("first", ["whole", "smaller"])
def test_a_round_is_scored_over_one_of_its_rosters_only(nodes, nothing_changes, first):
    """Sub-roster re-scoring: those present have signed a smaller roster because one was late. The
    server has both sets of shares, and computes both: the difference would show the late one."""
    whole = Round(nodes)
    smaller = copy.copy(whole)
    smaller.custodians, smaller.weights = whole.custodians[1:], whole.weights[1:]
    left = [m for m in whole.roster["members"] if m["key"] != wire.public_hex(whole.custodians[0])]
    smaller.roster = tickets.roster_of(round_id=whole.id, members=left)
    smaller.uploads = smaller.make_uploads()
    whole.put(), smaller.put()
    one, other = (whole, smaller) if first == "whole" else (smaller, whole)
    job = one.job()
    answers = nodes.ask(job)
    assert [a.status_code for a in answers] == [200] * 3
    before = stores(nodes)
    nothing_changes(nodes.ask(other.job()), "scope_bound", before=before)
    again = other.job(job_id=job["job_id"], attempt=2)
    nothing_changes(nodes.ask(again), "job_id_taken", before=before)

    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
    before = stores(nodes)
    nothing_changes(nodes.ask(other.job()), "scope_bound", before=before)
    for home in nodes.homes:  # what was signed for the other roster can't be read there any more
        db = sqlite3.connect(f"file:{home / 'store.sqlite'}?mode=ro", uri=True)
        ids = [u["ticket"]["share_id"] for listed in other.uploads.values() for u in listed]
        marks = ", ".join("?" * len(ids))
        kept = f"SELECT count(*), count(words) FROM shares WHERE share_id IN ({marks})"
        assert db.execute(kept, ids).fetchone() == (len(ids), 0)
        db.close()


def test_a_round_has_one_set_of_parameters(nodes, nothing_changes):
    r = Round(nodes)
    odd = nodes.upload(
        r.custodians[0],
        fixed([1, 2, 3]),
        **r.fields("update", params=r.params | {"min_cell": 7}),
    )
    r.uploads["update"][0] = odd
    r.put()
    nothing_changes(nodes.ask(r.job()), "params_differ", before=stores(nodes))


def test_noise_that_the_tickets_demand_is_neither_left_out_nor_made_less(nodes, nothing_changes):
    """The server tells some owners of less noise, or of none; or it asks for the job without."""
    noise = {CLIP: 2000, RHO: 100_000}
    for told in ({}, noise | {RHO: 50_000_000}, noise | {CLIP: 100}):
        r = Round(nodes, params=noise)
        fewer = {name: value for name, value in r.params.items() if name not in noise} | told
        for place, key in list(enumerate(r.custodians))[1:]:
            own = r.fields("update", params=fewer)
            r.uploads["update"][place] = nodes.upload(key, fixed(r.weights[place]), **own)
        r.put()
        nothing_changes(nodes.ask(r.job()), "params_differ", before=stores(nodes))
    r = Round(nodes, params=noise).put()
    before = stores(nodes)
    job = r.job() | {"params": {"features": 2}}
    nothing_changes(nodes.ask(job), "malformed_job", before=before, status=400)
    half = Round(nodes)
    alone = nodes.upload(
        half.custodians[0],
        fixed([1, 2, 3]),
        **half.fields("update", params={**half.params, RHO: 1}),
    )
    before = stores(nodes)
    nothing_changes(nodes.post_all("/shares", alone), "bad_params", before=before)


def test_a_model_with_noise_answers_with_it(nodes):
    """Noise so large that all weights lie on ±64 or near: the makers' own are below 2."""
    model = trained_model(nodes, params={CLIP: 2000, RHO: 1})
    me = Buyer(nodes, model)
    query = me.query([[16.0, 0.0], [0.0, 16.0], [0.0, 0.0]])
    scores = me.open(query, nodes.ask(me.job(query), uploads=[query]))
    assert np.max(np.abs(scores)) > 40  # but for once in 10^6 runs


def test_members_that_hold_different_descriptors_compute_nothing(nodes):
    r = Round(nodes)
    other = nodes.upload(r.custodians[0], fixed([9, 9, 9]), **r.fields("update"))
    r.put()
    nodes.put(other)
    job = r.job()
    lie = copy.deepcopy(job)
    lie["inputs"]["update"][0] = other["ticket"]["share_id"]
    pending = [nodes.begin(job, 0), nodes.begin(lie, 1), nodes.begin(job, 2)]
    answers = [p.result() for p in pending]
    codes = {a.json()["code"] for a in answers}
    assert "members_disagree" in codes and codes <= {"members_disagree", "peer_refused"}
    assert all(nodes.state(i, job["job_id"])["state"] == "failed" for i in range(3))


# ---- shares that are not what they seem -----------------------------------------------------


def test_forged_expired_and_foreign_tickets_are_refused(nodes, nothing_changes):
    r = Round(nodes)
    upload, now = r.uploads["update"][0], int(time.time())
    before = stores(nodes)
    forged = upload | {"signature": "00" * 64}
    nothing_changes(nodes.post_all("/shares", forged), "bad_signature", before=before)
    for changes, code in (
        ({"issued_at": now - 100, "expires_at": now - 10}, "expired"),
        ({"circuits_hash": "00" * 32}, "circuits_differ"),
        ({"circuits": ["logistic_round@9"]}, "unknown_circuit"),
        ({"slot": "row"}, "wrong_slot"),
    ):
        spoilt = nodes.upload(r.custodians[0], fixed([1, 2, 3]), **(r.fields("update") | changes))
        nothing_changes(nodes.post_all("/shares", spoilt), code, before=before)
    elsewhere = resigned(upload, r.custodians[0], nodes=nodes.fingerprints[::-1])
    nothing_changes(nodes.post_all("/shares", elsewhere), "wrong_nodes", before=before)


def test_a_share_expires_in_the_store(nodes, nothing_changes):
    r = Round(nodes)
    for life_s in (2, 8, 32):  # on a busy machine the first may have expired before it is there
        end = int(time.time()) + life_s
        short = nodes.upload(
            r.custodians[0], fixed([1, 2, 3]), **r.fields("update", expires_at=end)
        )
        if {a.status_code for a in nodes.post_all("/shares", short)} == {201}:
            break
    r.uploads["update"][0] = short
    nodes.put(*r.uploads["update"][1:], *r.uploads["holdout"])
    before = stores(nodes)
    while time.time() <= end:
        nodes.http.get(nodes.control[0] + "/health")
    nothing_changes(nodes.ask(r.job()), "expired", before=before)


def test_a_share_sealed_to_the_wrong_node_is_refused(nodes, nothing_changes):
    upload = copy.deepcopy(Round(nodes).uploads["update"][0])
    envelopes = upload["envelopes"]
    upload["envelopes"] = [envelopes[1], envelopes[2], envelopes[0]]
    before = stores(nodes)
    nothing_changes(nodes.post_all("/shares", upload), "sealed_elsewhere", before=before)


@pytest.mark.parametrize("j", range(3))
def test_an_altered_commitment_is_refused_by_both_holders(nodes, j, monkeypatch):
    honest = sealing.commitments.commit

    def lie(**what):
        return "00" * 32 if what["j"] == j else honest(**what)

    r = Round(nodes)
    monkeypatch.setattr(sealing.commitments, "commit", lie)
    upload = nodes.upload(r.custodians[0], fixed([1, 2, 3]), **r.fields("update"))
    answers = nodes.post_all("/shares", upload)
    codes = [a.json().get("code") for a in answers]
    assert codes == [None if i == j else "bad_commitment" for i in range(3)]


def test_another_share_under_a_stored_id_is_refused(nodes, nothing_changes):
    upload = Round(nodes).uploads["update"][0]
    nodes.put(upload)
    before = stores(nodes)
    me = Ed25519PrivateKey.generate()
    answers = nodes.post_all("/shares", resigned(upload, me))
    nothing_changes(answers, "share_conflict", before=before, status=409)


def test_shares_that_did_not_arrive_stop_the_job(nodes, nothing_changes):
    r = Round(nodes)
    answers = nodes.ask(r.job())
    nothing_changes(answers, "unknown_share", before=stores(nodes), status=409)
    assert all(a.json()["retryable"] for a in answers)


# ---- the server's own signatures ------------------------------------------------------------


def test_only_the_coordinators_jobs_count(nodes, nothing_changes):
    r = Round(nodes).put()
    before = stores(nodes)
    job = r.job()
    for signature in (wire.sign(Ed25519PrivateKey.generate(), jobs.JOB_DOMAIN, job), "", None):
        body = {"descriptor": job, "signature": signature}
        nothing_changes(nodes.post_all("/jobs", body), "bad_signature", before=before)
    unsigned = nodes.post_all("/jobs", {"descriptor": job})
    nothing_changes(unsigned, "malformed", before=before, status=400)


def test_receipts_cannot_be_forged_mixed_or_repeated(nodes, nothing_changes):
    answers = nodes.ask(Round(nodes).put().job())
    others = nodes.ask(Round(nodes).put().job())
    signed = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
    foreign = [{k: a.json()[k] for k in ("receipt", "signature")} for a in others]
    job_id = signed[0]["receipt"]["job_id"]
    before = stores(nodes)
    me = Ed25519PrivateKey.generate()
    lie = copy.deepcopy(signed[1]["receipt"]) | {"model": "00" * 32}
    forged = {"receipt": lie, "signature": wire.sign(me, jobs.RECEIPT_DOMAIN, lie)}
    for receipts, code in (
        ([signed[0], forged, signed[2]], "bad_receipt"),
        ([signed[0]] * 3, "bad_receipt"),
        (signed[:2], "bad_receipt"),
        ([signed[0], signed[1], foreign[2]], "receipts_disagree"),
        (foreign, "receipts_disagree"),
        ([], "bad_receipt"),
        (None, "bad_receipt"),
    ):
        tried = nodes.post_all(f"/jobs/{job_id}/commit", {"receipts": receipts})
        nothing_changes(tried, code, before=before)
    assert {nodes.state(i, job_id)["state"] for i in range(3)} == {"staged"}
    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3


def test_a_colluding_node_alone_commits_nothing(nodes, nothing_changes):
    """The server has node 0's home and signs receipts in its name: the others want their own."""
    answers = nodes.ask(Round(nodes).put().job())
    signed = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
    bad = keys.signing_key(keys.load(nodes.homes[0] / "sign.key"))
    lie = signed[0]["receipt"] | {"openings": "00" * 32}
    signed[0] = {"receipt": lie, "signature": wire.sign(bad, jobs.RECEIPT_DOMAIN, lie)}
    job_id, before = lie["job_id"], stores(nodes)
    tried = nodes.post_all(f"/jobs/{job_id}/commit", {"receipts": signed})
    nothing_changes(tried, "receipts_disagree", before=before)


# ---- a stolen store -------------------------------------------------------------------------


def stolen(nodes):
    """Node 0's store, open to whoever holds its home."""
    return Store(nodes.homes[0] / "store.sqlite", homes.load(nodes.homes[0]).store_key)


def test_a_model_planted_in_one_store_is_no_model_of_the_others(nodes, model):
    """One-hot weights under an id of the server's own, with the ticket of a real model."""
    store, forged = stolen(nodes), secrets.token_hex(32)
    real = store.model(model)
    one_hot = fixed([1, 0, 0]).view(np.uint64)
    job = StoredJob(
        job_id=secrets.token_hex(16), scope=f"round:{uuid.uuid4()}", attempt=1,
        digest="00" * 32, state="staged", record={"answer": {}, "share_ids": [], "model": forged},
    )  # fmt: skip
    store.stage(job, model=forged, result=real.ticket, words=(one_hot, one_hot))
    store.commit(job.job_id, share_ids=[])
    assert store.model(forged) is not None
    store.close()
    me = Buyer(nodes, forged)
    query = me.query([[1.0, 0.0]])
    answers = nodes.ask(me.job(query, deadline_s=2), uploads=[query])
    assert [a.json()["code"] for a in answers[1:]] == ["unknown_model"] * 2
    assert answers[0].status_code == 503 and "sealed" not in answers[0].json()


def test_a_scope_forgotten_by_one_node_is_bound_at_the_others(nodes):
    """With node 0's memory of a round edited, the round still has one set of inputs."""
    r = Round(nodes)
    other = nodes.upload(r.custodians[0], fixed([9, 9, 9]), **r.fields("update"))
    r.put()
    nodes.put(other)
    job = r.job()
    assert [a.status_code for a in nodes.ask(job)] == [200] * 3
    store = stolen(nodes)
    gone = [
        store._db.execute(f"DELETE FROM {table} WHERE scope = ?", (r.scope,)).rowcount
        for table in ("scopes", "jobs")
    ]
    store._db.execute("UPDATE shares SET used_by = NULL WHERE used_by = ?", (job["job_id"],))
    store.close()
    assert gone == [1, 1]
    again = r.job(deadline_s=2)
    again["inputs"]["update"][0] = other["ticket"]["share_id"]
    answers = nodes.ask(again)
    assert [a.json()["code"] for a in answers[1:]] == ["scope_bound"] * 2
    assert answers[0].status_code == 503 and "openings" not in answers[0].json()


# ---- the nodes' own network -----------------------------------------------------------------


def knock(address, context):
    host, port = address.split(":")
    plain = socket.create_connection((host, int(port)), timeout=6)
    with plain, context.wrap_socket(plain) as sock:
        return sock.recv(100)


def test_the_mesh_speaks_only_with_pinned_certificates(nodes, tmp_path, model):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = nodes.descriptors[1]["mesh"]
    with pytest.raises(OSError):
        knock(address, context)
    stranger = Ed25519PrivateKey.generate()
    file = tmp_path / "pem"
    file.write_bytes(
        identity.private_pem(stranger) + identity.certificate_pem(stranger, "node-0").encode()
    )
    context.load_cert_chain(file)
    with pytest.raises(OSError):
        knock(address, context)
    buyer = Buyer(nodes, model)
    query = buyer.query([[0.5, -1.0]])
    assert [a.status_code for a in nodes.ask(buyer.job(query), uploads=[query])] == [200] * 3
