"""Four and five nodes over their real mesh: whoever dies, the others make and ask a model."""

from itertools import combinations

import pytest

from tests.support.nodes import Buyer, NodeSet, Round

TRUTH = 2.0  # the model's logit for the row below
ROW = [[0.5, -1.0]]


@pytest.fixture(scope="module", params=[3, 4, 5])
def nodes(tmp_path_factory, request):
    nodes = NodeSet(
        tmp_path_factory.mktemp(f"of-{request.param}"), {"rows_per_day": 10**6}, n=request.param
    )
    nodes.start()
    yield nodes
    nodes.stop()


def group(nodes, computing, holding=()):
    if nodes.n == 3:
        return {}
    return {"computing": list(computing), "holding": list(holding)}


def members(nodes, job):
    return job.get("computing", [0, 1, 2]) + job.get("holding", [])


def make(nodes, computing, holding=(), *, put=None):
    """A committed model, and its commit's answers."""
    job = Round(nodes).put(put).job(**group(nodes, computing, holding))
    answers = nodes.ask(job)
    assert [a.status_code for a in answers] == [200] * len(answers), [a.text for a in answers]
    committed = nodes.commit(answers)
    assert all(c.json().get("committed") for c in committed), [c.text for c in committed]
    return committed[0].json()["model"]


def ask(nodes, model, computing, **changes):
    """The logit that these three compute."""
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    job = buyer.job(query, **group(nodes, computing), **changes)
    answers = nodes.ask(job, uploads=[query])
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]
    return buyer.open(query, answers, computing)[0]


def test_every_three_of_those_who_keep_a_model_answer_alike(nodes):
    everyone = range(nodes.n)
    computing = tuple(everyone)[-3:]
    model = make(nodes, computing, [i for i in everyone if i not in computing])
    for three in combinations(everyone, 3):
        assert abs(ask(nodes, model, three) - TRUTH) < 0.3, three


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
