"""Verified mode on real nodes: who demands it gets it or is refused, and a node that cheats is
named before anything is opened. Of five nodes four compute and one holds."""

import json
import os
import secrets
import uuid
from types import SimpleNamespace

import pytest

from apps.protocol import jobs
from apps.protocol.tickets import VERIFIED, TicketError
from tests.support.nodes import Buyer, NodeSet, Round, RowsRound, trained_model
from workers.mpc import keeping, sealing
from workers.mpc.engines.counted import Disagreement
from workers.mpc.sessions import PeerAborted, Session
from workers.mpc.transport import PeerLost
from workers.node import computation
from workers.node.errors import Unavailable

COMPUTING, HOLDING, CHEAT = [0, 2, 3, 4], [1], 3
GROUP = {"engine": VERIFIED, "computing": COMPUTING, "holding": HOLDING}
ROW, LOGIT = [[0.5, -1.0]], 2.0  # what the model says of it, roughly


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = NodeSet(tmp_path_factory.mktemp("verified"), {"rows_per_epoch": 10**6}, n=5)
    nodes.modules[CHEAT] = "tests.support.cheating_node"
    nodes.start()
    yield nodes
    nodes.stop()


def codes(answers):
    return [a.status_code if a.status_code == 200 else a.json()["code"] for a in answers]


def receipts_of(nodes, answers, job):
    """Those that agree, as who asked for the job checks them."""
    signed = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
    members = jobs.members_of(job)
    keys = {nodes.fingerprints[i]: nodes.descriptors[i]["sign_key"] for i in members}
    return jobs.check_receipts(signed, sign_keys=keys, nodes=nodes.fingerprints)


def make(nodes, **how):
    """A model that four have made, verified, and that all five keep."""
    job = Round(nodes, **how).put().job(**GROUP)
    answers = nodes.ask(job)
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert {jobs.engine_of(r) for r in receipts_of(nodes, answers, job)} == {VERIFIED}
    assert codes(nodes.commit(answers)) == [200] * 5
    return jobs.model_id(job)


def ask(nodes, model, *, group, demanded="ring", buyer=None):
    buyer = buyer or Buyer(nodes, model)
    query = buyer.query(ROW, engine=demanded)
    job = buyer.job(query, **{"holding": []} | group)
    return buyer, query, job, nodes.ask(job, uploads=[query])


def test_four_nodes_make_a_model_and_answer_and_their_receipts_say_so(nodes):
    model = make(nodes)
    for computing in (COMPUTING, [0, 1, 2, 4]):
        group = {"engine": VERIFIED, "computing": computing}
        buyer, query, job, answers = ask(nodes, model, group=group, demanded=VERIFIED)
        assert {jobs.engine_of(r) for r in receipts_of(nodes, answers, job)} == {VERIFIED}
        assert abs(buyer.open(query, answers, computing)[0] - LOGIT) < 0.3
    # nobody demanded it of this model: three may answer too, and say what they are
    buyer, query, job, answers = ask(nodes, model, group={"computing": [0, 1, 4]})
    assert {jobs.engine_of(r) for r in receipts_of(nodes, answers, job)} == {"ring"}
    assert "engine" not in answers[0].json()["receipt"]
    assert abs(buyer.open(query, answers, [0, 1, 4])[0] - LOGIT) < 0.3


def test_queries_are_answered_together_in_verified_mode_too(nodes):
    model = make(nodes)
    buyers = [Buyer(nodes, model) for _ in range(3)]
    uploads = [buyer.query([[0.5, k - 1.0]]) for k, buyer in enumerate(buyers)]
    group = {"engine": VERIFIED, "computing": COMPUTING, "holding": []}
    asked = [(b.job(u, **group), u) for b, u in zip(buyers, uploads)]
    said = nodes.post_all("/bundles", nodes.signed_bundle(asked), COMPUTING)
    for k, (buyer, upload) in enumerate(zip(buyers, uploads)):
        mine = [answer.json()["answers"][k]["answer"] for answer in said]
        assert {jobs.engine_of(one["receipt"]) for one in mine} == {VERIFIED}
        logit = buyer.open_sealed(upload, [one["sealed"] for one in mine], COMPUTING)[0]
        assert abs(logit - (LOGIT - k)) < 0.3


@pytest.mark.parametrize("what", ["message", "notes", "opening"])
def test_a_node_that_cheats_is_named_and_nothing_is_opened(nodes, what):
    """By all honest nodes; the one that only holds hears it from them. When it keeps to the
    protocol again, the same round goes on."""
    cheat = nodes.homes[CHEAT] / "cheat"
    job = Round(nodes).put().job(**GROUP)
    cheat.write_text(what)
    try:
        answers = nodes.ask(job)
    finally:
        cheat.unlink()
    for i, answer in enumerate(answers):
        if i != CHEAT:
            assert answer.status_code != 200 and "openings" not in answer.json()
            assert answer.json()["code"] == "cheating_suspected", (i, answer.text)
            assert f"node-{CHEAT}" in answer.json()["detail"]
            assert nodes.state(i, job["job_id"])["state"] == "failed"
    warned = [
        json.loads(line) for line in nodes.logs().splitlines() if "cheating suspected" in line
    ]
    assert all(nodes.fingerprints[CHEAT] in line["suspects"] for line in warned) and warned
    answers = nodes.ask(job | {"attempt": 2})
    assert codes(answers) == [200] * 5, [a.text for a in answers]


def test_an_accusation_falls_on_who_makes_it_too():
    """A cheat that accuses two others, before they have seen anything, is suspected with them."""
    group = keeping.Group(5, tuple(COMPUTING), tuple(HOLDING))
    accusation = computation._accusation([0, 2])
    assert computation._accused(PeerAborted(3, accusation), group) == [0, 2, 3]
    assert computation._accused(PeerAborted(2, accusation), group) == [0, 2]
    assert computation._accused(PeerAborted(1, "peer_lost"), group) == []
    assert computation._accused(PeerAborted(1, ""), group) == []
    assert computation._accused(PeerLost("gone"), group) == []
    four = keeping.Group(5, tuple(COMPUTING), ())
    assert computation._accused(PeerAborted(1, accusation), four) == []  # it is not in the job
    passive = keeping.Group(5, (0, 1, 2), (3, 4))
    assert computation._accused(PeerAborted(2, accusation), passive) == []


def test_members_that_disagree_hear_of_it_whatever_the_store_says():
    told = []
    session = SimpleNamespace(abort=told.append, close=lambda: None)
    broken = SimpleNamespace(
        moved=lambda *_: (_ for _ in ()).throw(Unavailable("store_failed", ""))
    )
    node = SimpleNamespace(fingerprint="", index=0)
    mesh = SimpleNamespace(open=lambda *_, **__: session)
    peers = SimpleNamespace(fingerprints=())
    parts = {"store": None, "mesh": mesh, "refreshing": broken, "reserve": None}
    of = computation.Computation(node=node, peers=peers, **parts)
    admitted = SimpleNamespace(job={"model": "ab"}, sharing="cd")
    with pytest.raises(Unavailable), of._session(b"", 1, keeping.Group(3, (0, 1, 2), ()), admitted):
        raise Disagreement("they hold different words")
    assert told == ["members_disagree"]


def test_a_peer_is_busy_only_before_all_that_compute_have_said_something():
    """Else a cheat could have what it saw of an attempt, and the attempt not counted."""
    group = keeping.Group(5, tuple(COMPUTING), tuple(HOLDING))
    session = Session(SimpleNamespace(me=0, n=5), b"", group.members)
    codes = []
    for peer in (2, 3, 4):
        busy = PeerAborted(4, "busy")
        codes.append(computation._unavailable(busy, begun=computation._begun(session, group)).code)
        session.put(peer, 0, b"a key")
    assert codes == ["peer_busy"] * 3
    assert computation._begun(session, group)
    assert computation._unavailable(busy, begun=True).code == "peer_refused"


def test_who_demands_verified_mode_is_not_computed_without(nodes):
    """An owner by its ticket, and for good: the model's makers too."""
    demanded = Round(nodes, engine=VERIFIED).put()
    three = {"computing": [0, 1, 2], "holding": [3, 4]}
    assert codes(nodes.ask(demanded.job(**three))) == ["verified_only"] * 5
    # four that only say that they are verified, and three that say so
    for group, code in (
        (GROUP | {"engine": "ring"}, "malformed_job"),
        (three | {"engine": VERIFIED}, "malformed_job"),
    ):
        assert set(codes(nodes.ask(demanded.job(**group)))) == {code}
    model = make(nodes, engine=VERIFIED)
    _, _, _, answers = ask(nodes, model, group={"computing": [0, 1, 2]})
    assert codes(answers) == ["verified_only"] * 3
    assert codes(ask(nodes, model, group={"engine": VERIFIED, "computing": COMPUTING})[3]) == (
        [200] * 4
    )
    # a buyer may demand it of any model
    answers = ask(nodes, make(nodes), group={"computing": [0, 1, 2]}, demanded=VERIFIED)[3]
    assert codes(answers) == ["verified_only"] * 3


def test_a_model_that_is_trained_on_keeps_its_makers_demand(nodes):
    """Whatever the tickets of the later round name."""
    first = RowsRound(nodes, engine=VERIFIED).put()
    answers = nodes.ask(first.job(**GROUP))
    assert codes(nodes.commit(answers)) == [200] * 5
    first.engine = "ring"
    later = first.again(answers[0].json()["receipt"]["model"]).put()
    job = later.job(computing=[0, 1, 2], holding=[3, 4])
    assert codes(nodes.ask(job)) == ["verified_only"] * 5
    answers = nodes.ask(later.job(**GROUP))
    assert codes(nodes.commit(answers)) == [200] * 5
    newer = answers[0].json()["receipt"]["model"]
    for demanding in (later.model, newer):
        buyer = Buyer(nodes, demanding, normalisation="ab" * 32)
        three, four = (
            ask(nodes, demanding, group=group, buyer=buyer)[3]
            for group in ({"computing": [0, 1, 2]}, {"engine": VERIFIED, "computing": COMPUTING})
        )
        assert codes(three) == ["verified_only"] * 3 and codes(four) == [200] * 4


def test_with_three_alive_jobs_are_passive_and_say_so_or_are_refused(nodes):
    model = make(nodes)
    nodes.kill(1)
    nodes.kill(2)
    try:
        alive = [0, 3, 4]
        _, _, job, answers = ask(nodes, model, group={"computing": alive})
        assert {jobs.engine_of(r) for r in receipts_of(nodes, answers, job)} == {"ring"}
        buyer = Buyer(nodes, model)
        query = buyer.query(ROW, engine=VERIFIED)
        job = buyer.job(query, engine=VERIFIED, computing=COMPUTING, holding=[])
        assert codes(nodes.ask(job, alive, uploads=[query])) == ["peer_lost"] * 3
    finally:
        nodes.start(1, 2)


def test_an_operator_may_take_part_in_verified_jobs_alone(nodes):
    policy = nodes.homes[2] / "policy.json"
    nodes.kill(2)
    policy.write_text('{"rows_per_epoch": 1000000, "verified_only": true}')
    nodes.start(2)
    try:
        model = make(nodes)
        answers = ask(nodes, model, group={"computing": [0, 1, 2]})[3]
        assert sorted(codes(answers)) == ["peer_refused", "peer_refused", "verified_only"]
        assert codes(ask(nodes, model, group={"computing": [0, 1, 4]})[3]) == [200] * 3
        # nor does it keep what three have made without it
        job = Round(nodes).put().job(computing=[0, 1, 4], holding=[3])
        answers = nodes.ask(job)
        assert codes(nodes.commit(answers)) == [200] * 4
        assert codes([nodes.show(2, job, answers)]) == ["verified_only"]
    finally:
        nodes.kill(2)
        policy.write_text('{"rows_per_epoch": 1000000}')
        nodes.start(2)


@pytest.mark.parametrize("engine", ["ring", VERIFIED])
def test_two_tickets_for_one_share_are_not_computed_with(nodes, engine, monkeypatch):
    """A buyer, in league with the server, signs twice; each ticket goes to some of the nodes."""
    buyer, scope = Buyer(nodes, make(nodes)), f"query:{uuid.uuid4().hex}"
    share_id = secrets.token_bytes(16)

    def twice(values):
        drawn = iter([share_id])  # the first that is drawn
        monkeypatch.setattr(
            sealing.secrets, "token_bytes", lambda size: next(drawn, None) or os.urandom(size)
        )
        return buyer.query(values, scope=scope)

    uploads = [twice(ROW), twice([[0.5, 2.0]])]
    monkeypatch.undo()
    assert {upload["ticket"]["share_id"] for upload in uploads} == {share_id.hex()}
    members = COMPUTING if engine == VERIFIED else [0, 1, 4]
    job = buyer.job(uploads[0], engine=engine, computing=members, holding=[])
    pending = [nodes.begin(job, i, uploads=[uploads[at >= 2]]) for at, i in enumerate(members)]
    answers = [answer.result() for answer in pending]
    assert set(codes(answers)) <= {"members_disagree", "peer_refused"}
    assert "members_disagree" in codes(answers)


def test_three_nodes_have_no_verified_mode(three_nodes):
    job = Round(three_nodes).job(engine=VERIFIED)
    assert set(codes(three_nodes.ask(job))) == {"too_few_nodes"}
    with pytest.raises(TicketError, match="4 nodes, not 3"):
        Round(three_nodes, engine=VERIFIED)
    assert trained_model(three_nodes)
