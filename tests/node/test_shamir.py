"""Shamir shares on five real nodes: with t = 2 two of them that look together see nothing, with
t = 1 two of them may be dead. Who lies is named, and no other engine or threshold gets a share."""

import contextlib
import json

import httpx
import numpy as np
import pytest

from apps.protocol import jobs, tickets
from tests.faults.test_recovery import recover, words_of
from tests.faults.test_resharing import reshare
from tests.support.meshes import until
from tests.support.nodes import Buyer, NodeSet, Round
from workers.mpc import sealing, shamir_shares
from workers.mpc.engines import field89

ONE, TWO = "shamir_t1", "shamir_t2"
ALL, CHEAT = [0, 1, 2, 3, 4], 3
FELL = 9  # what a node that falls exits with
ROW, LOGIT = [[0.5, -1.0]], 2.0  # what the model says of it, roughly


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = NodeSet(tmp_path_factory.mktemp("shamir"), {"rows_per_epoch": 10**6}, n=5)
    nodes.modules |= dict.fromkeys((0, CHEAT), "tests.support.cheating_node")
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
    """(the model, its makers' keys)"""
    held = round_of(nodes, engine).put()
    answers = nodes.ask(held.job(**named(engine)))
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert codes(nodes.commit(answers)) == [200] * 5
    return answers[0].json()["receipt"]["model"], held.custodians


@pytest.fixture(scope="module")
def made(nodes):
    return {engine: make(nodes, engine) for engine in (ONE, TWO)}


@pytest.fixture(scope="module")
def models(made):
    return {engine: model for engine, (model, _) in made.items()}


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


def bits_taken(nodes):
    return [nodes.counted(i, 'flai_node_bits_used_total{made="before"}') for i in ALL]


def bits_kept(nodes):
    return [nodes.counted(i, "flai_node_bits") for i in ALL]


def bits_made(nodes, before):
    """After a job wait until all have more bits for its nodes, or as many as before it."""
    after = bits_kept(nodes)

    def made():
        kept = zip(bits_kept(nodes), before, after)
        return all(now >= most > 0 or now > least for now, most, least in kept)

    until(made, 60)


def given(nodes):
    """The names of the blocks that jobs were given, as two members wrote them down: each once."""
    for i in (0, CHEAT):
        path = nodes.homes[i] / "bits"
        names = path.read_text().split() if path.exists() else []
        assert len(names) == len(set(names))
    return len(names)


def test_bits_made_in_idle_time_are_taken_by_the_queries_that_come(nodes, models):
    before = bits_kept(nodes)
    first, query, _, answers = ask(nodes, models[TWO], TWO)
    wanted = first.open(query, answers, ALL)[0]
    bits_made(nodes, before)
    taken, names, before = bits_taken(nodes), given(nodes), bits_kept(nodes)
    buyers = [Buyer(nodes, models[TWO]) for _ in range(4)]
    uploads = [buyer.query(ROW, engine=TWO) for buyer in buyers]
    asked = [buyer.job(upload, **named(TWO)) for buyer, upload in zip(buyers, uploads)]
    pending = [[nodes.begin(j, i, uploads=[u]) for i in ALL] for j, u in zip(asked, uploads)]
    for buyer, upload, answers in zip(buyers, uploads, pending):
        found = buyer.open(upload, [answer.result() for answer in answers], ALL)[0]
        assert abs(found - wanted) < 1e-3
    more = {now - then for now, then in zip(bits_taken(nodes), taken)}
    assert len(more) == 1 and more.pop() > 0 and given(nodes) > names
    bits_made(nodes, before)


def test_with_two_of_five_dead_three_go_on_at_their_own_points(nodes, models):
    wanted = []
    for computing in (ALL, [0, 2, 3]):
        buyer, query, _, answers = ask(nodes, models[ONE], ONE, computing)
        wanted.append(buyer.open(query, answers, computing)[0])
    held, before = round_of(nodes, TWO).put(), given(nodes)
    dying = held.job(**named(TWO))
    pending = [nodes.begin(dying, i) for i in ALL]
    until(lambda: given(nodes) > before)  # bits made before, which die with this attempt
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
    before = bits_kept(nodes)
    answers = nodes.ask(waiting | {"attempt": 2}, uploads=[query])
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert abs(buyer.open(query, answers, ALL)[0] - LOGIT) < 0.3
    bits_made(nodes, before)  # with those that came back without
    before = given(nodes)
    answers = nodes.ask(dying | {"attempt": 2})
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert codes(nodes.commit(answers)) == [200] * 5 and given(nodes) > before


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


def test_who_missed_a_round_keeps_no_input_and_gets_its_share_when_others_can_tell_it(nodes):
    """Two stores that keep what the others have used would tell every site's update together."""
    held = round_of(nodes, ONE).put()
    job = held.job(**named(ONE, [0, 1, 2, 4]))
    lost = nodes.ask(job)
    assert codes(lost) == [200] * 4  # and nobody hears of it
    job = job | {"attempt": 2} | named(ONE, [0, 1, 2, 3])
    answers = nodes.ask(job)
    assert codes(answers) == [200] * 4
    assert codes(nodes.commit(answers, [0])) == [200]
    model = answers[0].json()["receipt"]["model"]
    # what it has staged is the first attempt's; one other alone can tell it nothing
    shown = nodes.show(4, job, answers)
    assert shown.json() == {"committed": True, "model": model, "held": False}, shown.text
    uploads = [one["ticket"]["share_id"] for one in held.uploads["update"]]
    gone = [nodes.http.get(f"{nodes.control[4]}/shares/{share_id}") for share_id in uploads]
    assert set(codes(gone)) == {"unknown_share"}
    assert "unknown_model" in codes(ask(nodes, model, ONE, [0, 1, 4])[3])
    assert codes(nodes.commit(answers, [1, 2])) == [200] * 2
    for i in (3, 4):  # the other one has staged its own
        assert nodes.show(i, job, answers).json() == {"committed": True, "model": model}
    buyer, query, _, answers = ask(nodes, model, ONE, [1, 3, 4])
    assert abs(buyer.open(query, answers, [1, 3, 4])[0] - LOGIT) < 0.3
    # a scope that is completed is not computed again there, and no input is left
    assert nodes.state(4, job["job_id"]) == {"state": "done", "answer": None}
    for share_id in uploads:
        gone = [nodes.http.get(f"{control}/shares/{share_id}") for control in nodes.control]
        assert codes(gone) == ["unknown_share"] * 5


def shares_of(nodes, model, engine):
    """Each node's share, as its store has it; all of them fit, and this is what they tell."""
    shares = {}
    for i in range(nodes.n):
        limbs = words_of(nodes, i, model)[0]
        shares[i] = tuple(limb.reshape(-1) for limb in limbs)
    return shares, shamir_shares.opened(shares, tickets.SHAMIR[engine])


def all_of(nodes, models):
    return {engine: shares_of(nodes, model, engine) for engine, model in models.items()}


def differ(old, new):
    return not any(np.any(field89.to_words(a) == field89.to_words(b)) for a, b in zip(old, new))


def test_all_refresh_what_they_keep_together_and_no_other_way(nodes, models):
    """The server asks for too few, for the wrong epoch, again, or of other nodes."""
    before, number = all_of(nodes, models), nodes.refreshed(0)
    changed = {"nodes": list(reversed(nodes.fingerprints))}
    for members, asked_of, changes, code in (
        ([0, 1], [0, 1], {}, "malformed"),
        (ALL, ALL, {"after": number + 1}, "other_number"),
        (ALL, ALL, changed, "wrong_nodes"),
        ([0, 1, 2], [3, 4], {}, "not_a_member"),
    ):
        said = set(codes(nodes.refresh(members, asked_of, **changes)))
        assert said - {"peer_refused"} == {code}
    name = {"id": "ab" * 16, "after": number}
    answers = nodes.refresh(ALL, **name)
    assert codes(answers) == [200] * 5, [a.text for a in answers]
    assert answers[0].json()["receipt"]["left"] == 0
    after = all_of(nodes, models)
    for engine, t in ((ONE, 1), (TWO, 2)):
        (old, secret), (new, same) = before[engine], after[engine]
        assert np.array_equal(secret, same) and differ(old.values(), new.values())
        mixed = {i: (old if i < t else new)[i] for i in range(t + 1)}  # what a thief may come to
        assert not np.any(shamir_shares.join(mixed) == secret)
    again = nodes.refresh(ALL, **name)
    assert [a.json() for a in again] == [a.json() for a in answers]
    assert np.array_equal(all_of(nodes, models)[TWO][0][0], after[TWO][0][0])
    buyer, query, _, said = ask(nodes, models[TWO], TWO)
    assert abs(buyer.open(query, said, ALL)[0] - LOGIT) < 0.3


def test_a_refresh_by_three_renews_what_three_can_compute_and_the_others_get_theirs(nodes, models):
    before = all_of(nodes, models)
    answers = nodes.refresh([0, 1, 2])
    assert codes(answers) == [200] * 3 and answers[0].json()["receipt"]["left"] > 0
    said = codes(ask(nodes, models[ONE], ONE, [2, 3, 4])[3])  # by which the two learn of it
    assert set(said) <= {"shares_moved", "peer_refused"} or said == [200] * 3
    until(lambda: len({nodes.refreshed(i) for i in ALL}) == 1, 15)
    after = all_of(nodes, models)  # which all fit again
    assert differ(before[ONE][0].values(), after[ONE][0].values())
    assert np.array_equal(before[TWO][0][4], after[TWO][0][4])
    buyer, query, _, said = ask(nodes, models[ONE], ONE, [2, 3, 4])
    assert abs(buyer.open(query, said, [2, 3, 4])[0] - LOGIT) < 0.3


def falls(nodes, monkeypatch, when, ask):
    """What comes of a request in which one node ends at this point; it is started again."""
    honest = nodes.post

    def post(*about):
        with contextlib.suppress(httpx.HTTPError):
            return honest(*about)

    (nodes.homes[CHEAT] / "cheat").write_text(when)
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "post", post)
        said = ask()
    assert nodes.processes[CHEAT].wait(10) == FELL
    (nodes.homes[CHEAT] / "cheat").unlink()
    nodes.kill(CHEAT)
    nodes.start(CHEAT)
    return said


@pytest.mark.parametrize(("when", "done"), [("staged", 0), ("proved", 1)])
def test_who_falls_in_a_refresh_has_the_old_shares_with_all_others_or_the_new(
    nodes, models, monkeypatch, when, done
):
    before, number = all_of(nodes, models), nodes.refreshed(0)
    said = falls(nodes, monkeypatch, when, lambda: nodes.refresh(ALL))
    others = [a for i, a in enumerate(said) if i != CHEAT]
    assert set(codes(others)) <= ({200} if done else {"peer_lost", "peer_refused"})
    until(lambda: {nodes.refreshed(i) for i in ALL} == {number + done}, 15)
    after = all_of(nodes, models)
    for engine in models:
        assert np.array_equal(before[engine][1], after[engine][1])
        old, new = before[engine][0].values(), after[engine][0].values()
        assert differ(old, new) if done else not differ(old, new)
    if not done:  # and what is staged does not stand in the way of the next one
        assert codes(nodes.refresh(ALL)) == [200] * 5


def test_a_lost_store_is_filled_by_the_others_though_one_falls_on_the_way(
    nodes, models, monkeypatch
):
    before = all_of(nodes, models)
    nodes.kill(4)
    for file in nodes.homes[4].glob("store.sqlite*"):
        file.unlink()
    done = falls(nodes, monkeypatch, "helping", lambda: recover(nodes, 4))
    told = json.loads(done.stdout)
    assert set(models.values()) <= set(told["models"]) and not told["left_out"], done.stderr
    after = all_of(nodes, models)
    for engine in models:
        for mine, now in zip(before[engine][0][4], after[engine][0][4]):
            assert np.array_equal(mine, now)
    nodes.start(4)
    buyer, query, _, said = ask(nodes, models[TWO], TWO)
    assert abs(buyer.open(query, said, ALL)[0] - LOGIT) < 0.3


def test_a_model_goes_to_fewer_nodes_and_back_by_the_thresholds_that_its_makers_signed_for(
    nodes, made, monkeypatch
):
    model, makers = made[TWO]
    everyone, (first, secret) = nodes.descriptors, shares_of(nodes, model, TWO)
    for who, engine, changes, code in (
        (makers, None, {}, "same_nodes"),
        (makers[:3], ONE, {}, "no_consent"),
        (makers, ONE, {"signed": None}, "no_consent"),  # a lower one than they have signed for
        (makers, "shamir_t3", {}, "too_few_nodes"),
        (makers, "ring", {}, "malformed"),
        (makers, ONE, {"after": 99}, "other_number"),
    ):
        said = codes(reshare(nodes, model, who, engine=engine, **changes))
        assert set(said) - {"peer_refused"} == {code}
    said = falls(nodes, monkeypatch, "staged", lambda: reshare(nodes, model, makers, engine=ONE))
    assert 200 not in codes([a for i, a in enumerate(said) if i != CHEAT])
    assert not differ(first.values(), shares_of(nodes, model, TWO)[0].values())
    assert codes(nodes.refresh(ALL)) == [200] * 5

    nodes.become(everyone[:3])
    assert "too_few_nodes" in codes(reshare(nodes, model, makers))
    assert codes(reshare(nodes, model, makers, engine=ONE)) == [200] * 3
    three, same = shares_of(nodes, model, ONE)
    assert np.array_equal(same, secret)
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW, engine=ONE)
    said = nodes.ask(buyer.job(query, engine=ONE, deadline_s=60), uploads=[query])
    assert abs(buyer.open(query, said)[0] - LOGIT) < 0.3
    assert codes(nodes.refresh([0, 1, 2])) == [200] * 3

    nodes.become(everyone)  # of whom two have what it was before, and the number that it had
    until(lambda: codes(reshare(nodes, model, makers, engine=TWO)) == [200] * 5, 30)
    last, same = shares_of(nodes, model, TWO)
    assert np.array_equal(same, secret) and differ(first.values(), last.values())
    assert differ(three.values(), list(last.values())[:3])
    buyer, query, _, said = ask(nodes, model, TWO)
    assert abs(buyer.open(query, said, ALL)[0] - LOGIT) < 0.3
