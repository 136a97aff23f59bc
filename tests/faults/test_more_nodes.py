"""Four and five nodes over their real mesh: whoever dies, the others make and ask a model."""

from itertools import combinations

import pytest

from tests.support.nodes import Buyer, Round

TRUTH = 2.0  # the model's logit for the row below
ROW = [[0.5, -1.0]]


@pytest.fixture
def nodes(sets, request):
    return sets(request.param)


def of(*counts):
    return pytest.mark.parametrize("nodes", counts, indirect=True)


def group(computing, holding=()):
    return {"computing": list(computing), "holding": list(holding)}


def make(nodes, computing, holding=(), *, put=None):
    """A committed model, and its commit's answers."""
    job = Round(nodes).put(put).job(**group(computing, holding))
    answers = nodes.ask(job)
    assert [a.status_code for a in answers] == [200] * len(answers), [a.text for a in answers]
    committed = nodes.commit(answers)
    assert all(c.json().get("committed") for c in committed), [c.text for c in committed]
    return committed[0].json()["model"]


def ask(nodes, model, computing, **changes):
    """The logit that these three compute."""
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    job = buyer.job(query, **group(computing), **changes)
    answers = nodes.ask(job, uploads=[query])
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]
    return buyer.open(query, answers, computing)[0]


@of(4, 5)
def test_every_three_of_those_who_keep_a_model_answer_alike(nodes):
    everyone = range(nodes.n)
    computing = tuple(everyone)[-3:]
    model = make(nodes, computing, [i for i in everyone if i not in computing])
    for three in combinations(everyone, 3):
        assert abs(ask(nodes, model, three) - TRUTH) < 0.3, three


@of(4, 5)
def test_with_as_many_dead_as_can_be_a_model_is_made_and_asked_without_a_stop(nodes):
    dead = list(range(nodes.n - 3))
    alive = [i for i in range(nodes.n) if i not in dead]
    whole = make(nodes, alive, dead)
    for i in dead:
        nodes.kill(i)
    try:
        model = make(nodes, alive, put=alive)
        assert abs(ask(nodes, model, alive) - TRUTH) < 0.3
        assert abs(ask(nodes, whole, alive) - TRUTH) < 0.3
    finally:
        for i in dead:
            nodes.start(i)


@of(4)
def test_a_node_takes_over_only_what_all_members_signed(nodes):
    dead, alive = 0, [1, 2, 3]
    job = Round(nodes).put().job(**group(alive))
    answers = nodes.ask(job)
    assert [c.status_code for c in nodes.commit(answers)] == [200] * 3
    other = Round(nodes).job(**group(alive))
    for described, signed, code in (
        (job, answers[:2], "bad_receipt"),
        (job | group([0, 1, 2]), answers, "bad_receipt"),
        (job | {"attempt": 2}, answers, "bad_receipt"),
        (other, answers, "bad_receipt"),
        (job | {"nodes": job["nodes"][:3]}, answers, "malformed_job"),
    ):
        refused = nodes.show(dead, described, signed)
        assert (refused.status_code, refused.json()["code"]) == (403, code), refused.text
    first = nodes.show(dead, job, answers).json()
    assert first["committed"] and nodes.show(dead, job, answers).json() == first
    # its share of the inputs is gone with that, and the round is over for it too
    again = nodes.ask(job | {"job_id": "ab" * 16, **group([0, 1, 2])})
    assert {a.json()["code"] for a in again} <= {"already_completed", "peer_refused"}
    assert "already_completed" in {a.json()["code"] for a in again}


@of(5)
def test_words_of_two_attempts_are_never_computed_on_together(nodes):
    """A coordinator commits two attempts of one job, each at those who made it."""
    job = Round(nodes).put().job(**group([0, 1, 2]))
    first = nodes.ask(job)
    again = job | {"attempt": 2, **group([2, 3, 4])}
    second = nodes.ask(again)
    assert [a.status_code for a in (*first, *second)] == [200] * 6
    assert [c.status_code for c in nodes.commit(first, [0, 1])] == [200] * 2
    assert nodes.commit(first, [2])[0].json()["code"] == "bad_receipt"
    committed = nodes.commit(second)
    model = committed[0].json()["model"]
    assert [c.status_code for c in committed] == [200] * 3
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    answers = nodes.ask(buyer.job(query, **group([1, 2, 3])), uploads=[query])
    assert {a.json()["code"] for a in answers} <= {"members_disagree", "peer_refused"}
    assert abs(ask(nodes, model, (2, 3, 4)) - TRUTH) < 0.3


@of(5)
def test_another_roster_is_refused_by_the_one_node_that_is_in_both_threes(nodes):
    """Only the form of the refusal is tested here: whose answers count are all three."""
    r = Round(nodes).put()
    assert [a.status_code for a in nodes.ask(r.job(**group([0, 1, 2])))] == [200] * 3
    short = {slot: [u["ticket"]["share_id"] for u in listed] for slot, listed in r.uploads.items()}
    short["update"] = short["update"][::-1]
    answers = nodes.ask(r.job(inputs=short, **group([2, 3, 4])))
    assert answers[0].json()["code"] == "scope_bound"
    assert all(a.status_code != 200 for a in answers)


@of(4)
def test_a_node_that_takes_no_part_says_so(nodes):
    job = Round(nodes).put().job(**group([0, 1, 2]))
    assert nodes.ask(job, [3])[0].json()["code"] == "not_a_member"
