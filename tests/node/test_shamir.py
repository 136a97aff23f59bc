"""Shamir shares on five real nodes: with t = 2 two of them that look together see nothing, with
t = 1 two of them may be dead. Who lies is named, and no other engine or threshold gets a share."""

import pytest

from apps.protocol import jobs
from tests.support.nodes import Buyer, NodeSet, Round
from workers.mpc import sealing, shamir_shares

ONE, TWO = "shamir_t1", "shamir_t2"
ALL, CHEAT = [0, 1, 2, 3, 4], 3
ROW, LOGIT = [[0.5, -1.0]], 2.0  # what the model says of it, roughly


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = NodeSet(tmp_path_factory.mktemp("shamir"), {"rows_per_epoch": 10**6}, n=5)
    nodes.modules[CHEAT] = "tests.support.cheating_node"
    nodes.start()
    yield nodes
    nodes.stop()


def named(engine, computing=ALL):
    return {"engine": engine, "computing": list(computing), "holding": [], "deadline_s": 60}


def round_of(nodes, engine):
    return Round(nodes, engine=engine, custodians=4, rows=12)


def codes(answers):
    return [a.status_code if a.status_code == 200 else a.json()["code"] for a in answers]


def make(nodes, engine):
    answers = nodes.ask(round_of(nodes, engine).put().job(**named(engine)))
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert codes(nodes.commit(answers)) == [200] * 5
    return answers[0].json()["receipt"]["model"]


@pytest.fixture(scope="module")
def models(nodes):
    return {engine: make(nodes, engine) for engine in (ONE, TWO)}


def ask(nodes, model, engine, computing=ALL, *, signed=None, upload=None):
    buyer = Buyer(nodes, model)
    query = upload or buyer.query(ROW, engine=signed or engine)
    job = buyer.job(query, **named(engine, computing))
    return buyer, query, job, nodes.ask(job, uploads=[query])


def unfitting(monkeypatch):
    """From now on owners deal nodes 1 and 2 each other's shares, and commit to them."""
    honest = shamir_shares.split

    def swapped(ints, *, n, t):
        zero, one, two, *rest = honest(ints, n=n, t=t)
        return [zero, two, one, *rest]

    monkeypatch.setattr(sealing.shamir_shares, "split", swapped)


def test_five_nodes_of_which_two_may_look_make_a_model_and_answer(nodes, models):
    buyer, query, job, answers = ask(nodes, models[TWO], TWO)
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert abs(buyer.open(query, answers, ALL)[0] - LOGIT) < 0.3
    signed = [{k: a.json()[k] for k in ("receipt", "signature")} for a in answers]
    keys = {f: d["sign_key"] for f, d in zip(nodes.fingerprints, nodes.descriptors)}
    receipts = jobs.check_receipts(signed, sign_keys=keys, nodes=nodes.fingerprints)
    assert {jobs.engine_of(r) for r in receipts} == {TWO}
    # who opens it needs all five, and asking again gives the same
    with pytest.raises(sealing.SealError):
        buyer.open(query, answers[:4], ALL[:4])
    assert [a.json() for a in nodes.ask(job, uploads=[query])] == [a.json() for a in answers]
    fewer = Buyer(nodes, models[TWO]).job(query, **named(TWO, ALL[:4]))
    assert codes(nodes.ask(fewer, uploads=[query])) == ["malformed_job"] * 4


def test_with_two_of_five_dead_three_go_on_at_their_own_points(nodes, models):
    wanted = []
    for computing in (ALL, [0, 2, 3]):
        buyer, query, _, answers = ask(nodes, models[ONE], ONE, computing)
        wanted.append(buyer.open(query, answers, computing)[0])
    held = round_of(nodes, TWO).put()
    dying = held.job(**named(TWO))
    pending = [nodes.begin(dying, i) for i in ALL]
    nodes.wait_for_state(4, dying["job_id"], "running")
    nodes.kill(0)
    assert codes([p.result() for p in pending[1:]]) == ["peer_lost"] * 4
    nodes.kill(3)
    try:
        buyer, query, _, answers = ask(nodes, models[ONE], ONE, [1, 2, 4])
        assert codes(answers) == [200] * 3, [a.text for a in answers]
        wanted.append(buyer.open(query, answers, [1, 2, 4])[0])
        buyer = Buyer(nodes, models[TWO])
        query = buyer.query(ROW, engine=TWO)
        waiting = buyer.job(query, **named(TWO))
        assert codes(nodes.ask(waiting, [1, 2, 4], uploads=[query])) == ["peer_lost"] * 3
    finally:
        nodes.start(0, 3)
    assert max(wanted) - min(wanted) < 1e-3 and abs(wanted[0] - LOGIT) < 0.3
    # back with their stores, both go on with the next attempt
    answers = nodes.ask(waiting | {"attempt": 2}, uploads=[query])
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert abs(buyer.open(query, answers, ALL)[0] - LOGIT) < 0.3
    answers = nodes.ask(dying | {"attempt": 2})
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert codes(nodes.commit(answers)) == [200] * 5


def test_no_other_engine_or_threshold_gets_a_share(nodes, models):
    ring = Round(nodes).put()
    answers = nodes.ask(ring.job(computing=[0, 1, 2], holding=[3, 4]))
    assert codes(nodes.commit(answers)) == [200] * 5
    models = models | {"ring": answers[0].json()["receipt"]["model"]}
    three = [0, 1, 2]
    for made, signed, asked in (
        (TWO, ONE, ONE),  # fewer nodes could read this query
        (TWO, ONE, TWO),
        (TWO, TWO, ONE),
        (ONE, TWO, TWO),
        (TWO, "ring", "ring"),
        (ONE, "ring", ONE),
        ("ring", ONE, ONE),
        ("ring", ONE, "ring"),
    ):
        computing = ALL if asked == TWO else three
        answers = ask(nodes, models[made], asked, computing, signed=signed)[3]
        assert codes(answers) == ["wrong_engine"] * len(computing), (made, signed, asked)
    held = round_of(nodes, TWO).put()
    for engine, computing in (("ring", three), (ONE, three), (ONE, ALL)):
        answers = nodes.ask(held.job(**named(engine, computing)))
        assert codes(answers) == ["wrong_engine"] * len(computing), engine
    holding = held.job(**named(ONE, three) | {"holding": [3]})
    assert set(codes(nodes.ask(holding))) == {"malformed_job"}


def test_a_share_is_of_one_node_and_one_job(nodes, models):
    buyer, query, _, answers = ask(nodes, models[ONE], ONE, [0, 1, 2])
    assert codes(answers) == [200] * 3
    for other in (buyer.job(query, **named(ONE, [2, 3, 4])), buyer.job(query, **named(ONE))):
        assert set(codes(nodes.ask(other, uploads=[query]))) <= {
            *("share_used", "scope_bound", "already_completed", "peer_refused")
        }
    swapped = buyer.query(ROW, engine=ONE)
    swapped["envelopes"][1], swapped["envelopes"][2] = swapped["envelopes"][2:0:-1]
    answers = ask(nodes, models[ONE], ONE, [0, 1, 2], upload=swapped)[3]
    assert "wrong_reply_key" in codes(answers) or "sealed_elsewhere" in codes(answers)
    size = len(swapped["correction"])
    spoilt = buyer.query(ROW, engine=ONE)
    spoilt["correction"] = spoilt["correction"][: size // 5] + swapped["correction"][size // 5 :]
    assert "bad_correction" in codes(ask(nodes, models[ONE], ONE, [0, 1, 2], upload=spoilt)[3])


def test_shares_of_other_points_are_no_sharing_and_spoil_no_others_query(
    nodes, models, monkeypatch
):
    """Their owner commits to them, so that each node takes its own; together they are found out,
    and spoil no other's query."""
    buyers = [Buyer(nodes, models[TWO]) for _ in range(3)]
    uploads = [buyer.query(ROW, engine=TWO) for buyer in buyers]
    unfitting(monkeypatch)
    uploads[1] = buyers[1].query(ROW, engine=TWO)
    bad = round_of(nodes, TWO).put()
    monkeypatch.undo()
    answers = nodes.ask(bad.job(**named(TWO)))
    seen = [a.json() for a in answers if a.json()["code"] != "peer_refused"]
    assert seen and {one["code"] for one in seen} == {"bad_sharing"}, [a.text for a in answers]
    first = bad.uploads["update"][0]["ticket"]["sender"]
    assert all(first[:8] in one["detail"] for one in seen)
    assert not any("openings" in a.json() for a in answers)
    asked = [(b.job(u, **named(TWO)), u) for b, u in zip(buyers, uploads)]
    said = nodes.post_all("/bundles", nodes.signed_bundle(asked), ALL)
    for k, (buyer, upload) in enumerate(zip(buyers, uploads)):
        mine = [answer.json()["answers"][k] for answer in said]
        if k == 1:
            assert {one["error"]["code"] for one in mine} == {"bad_sharing"}
        else:
            blobs = [one["answer"]["sealed"] for one in mine]
            assert abs(buyer.open_sealed(upload, blobs, ALL)[0] - LOGIT) < 0.3


def test_a_node_that_lies_in_an_opening_is_named_where_there_are_enough(nodes, models):
    """Of five with t = 2 one; of three with t = 1 none can tell which, and nothing is opened."""
    cheat = nodes.homes[CHEAT] / "cheat"
    cheat.write_text("shamir")
    try:
        five = ask(nodes, models[TWO], TWO)[3]
        three = ask(nodes, models[ONE], ONE, [2, 3, 4])[3]
    finally:
        cheat.unlink()
    seen = [a.json() for a in five if a.json()["code"] != "peer_refused"]
    assert seen and {one["code"] for one in seen} == {"cheating_suspected"}, [a.text for a in five]
    assert all(f"node-{CHEAT}" in one["detail"] for one in seen)
    assert "sealed" not in three[0].json() and "sealed" not in three[2].json()
    assert "members_disagree" in codes(three), [a.text for a in three]
    assert codes(ask(nodes, models[TWO], TWO)[3]) == [200] * 5


def test_who_missed_a_round_keeps_no_input_and_who_missed_its_commit_gets_its_share(nodes):
    """Two stores that keep what the others have used would tell every site's update together."""
    held = round_of(nodes, ONE).put()
    job = held.job(**named(ONE, [0, 1, 2, 4]))
    lost = nodes.ask(job)
    assert codes(lost) == [200] * 4  # and nobody hears of it
    job = job | {"attempt": 2} | named(ONE, [0, 1, 2, 3])
    answers = nodes.ask(job)
    assert codes(answers) == [200] * 4
    assert codes(nodes.commit(answers, [0, 1, 2])) == [200] * 3
    model = answers[0].json()["receipt"]["model"]
    late = nodes.show(3, job, answers)  # it has staged its own
    assert late.json() == {"committed": True, "model": model}, late.text
    shown = nodes.show(4, job, answers)  # what it has staged is the first attempt's
    assert shown.json() == {"committed": True, "model": model, "held": False}, shown.text
    assert codes(ask(nodes, model, ONE, [0, 1, 3])[3]) == [200] * 3
    assert "unknown_model" in codes(ask(nodes, model, ONE, [0, 1, 4])[3])
    # a scope that is completed is not computed again there, and no input is left
    assert nodes.state(4, job["job_id"]) == {"state": "done", "answer": None}
    for upload in held.uploads["update"]:
        path = f"/shares/{upload['ticket']['share_id']}"
        gone = [nodes.http.get(f"{control}{path}") for control in nodes.control]
        assert codes(gone) == ["unknown_share"] * 5


def test_what_is_not_done_for_shamir_shares_is_refused_or_left_alone(nodes, models):
    """They are not refreshed, not copied to who was away, and stay with their nodes."""
    assert codes(nodes.refresh(ALL)) == [200] * 5
    assert codes(ask(nodes, models[TWO], TWO)[3]) == [200] * 5
    held = round_of(nodes, ONE).put()
    job = held.job(**named(ONE, [0, 1, 2]))
    answers = nodes.ask(job)
    assert codes(nodes.commit(answers)) == [200] * 3
    model = answers[0].json()["receipt"]["model"]
    for _again in range(2):
        shown = nodes.show(4, job, answers)
        assert shown.json() == {"committed": True, "model": model, "held": False}, shown.text
    uploads = [one["ticket"]["share_id"] for one in held.uploads["update"]]
    kept = [nodes.http.get(f"{nodes.control[i]}/shares/{uploads[0]}") for i in (0, 3, 4)]
    assert codes(kept) == ["unknown_share", 200, "unknown_share"]
    assert "unknown_model" in codes(ask(nodes, model, ONE, [0, 1, 4])[3])
    assert codes(ask(nodes, model, ONE, [0, 1, 2])[3]) == [200] * 3
    asked = {"type": "reshare", "model": model, "consents": []}
    assert set(codes(nodes.refresh(ALL, **asked))) <= {"not_held", "same_nodes", "peer_refused"}
