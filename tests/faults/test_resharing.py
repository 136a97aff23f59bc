"""A model goes over to five nodes and back to three, over real node processes, if all who made it
let it."""

from itertools import combinations

import numpy as np
import pytest

from tests.faults.test_more_nodes import ROW, TRUTH, ask
from tests.support.nodes import Buyer, NodeSet, Round, consents_of
from workers.mpc.replicated import held_by, join
from workers.node.home import load
from workers.node.store import Store


@pytest.fixture
def nodes(tmp_path):
    nodes = NodeSet(tmp_path, n=5)
    yield nodes
    nodes.stop()


def reshare(nodes, model, makers, *, engine=None, signed="that", days=1, **changed):
    signed = engine if signed == "that" else signed
    consents = consents_of(makers, model=model, nodes=nodes.fingerprints, engine=signed, days=days)
    asked = {"type": "reshare", "model": model, "consents": consents}
    asked |= {} if engine is None else {"engine": engine}
    return nodes.refresh(range(nodes.n), **asked | changed)


def codes(answers):
    return {a.json().get("code") for a in answers}


def words(nodes, model):
    """All words, which all who hold one hold alike."""
    found = {}
    for i in range(nodes.n):
        store = Store(nodes.homes[i] / "store.sqlite", load(nodes.homes[i]).store_key)
        for j, word in zip(held_by(i, nodes.n), store.model(model).words, strict=True):
            assert np.array_equal(found.setdefault(j, word), word)
        store.close()
    return found


def one_of_three(nodes, model):
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    answers = nodes.ask(buyer.job(query), uploads=[query])
    assert [a.status_code for a in answers] == [200] * 3, [a.text for a in answers]
    return buyer.open(query, answers)[0]


def test_from_three_to_five_and_back(nodes):
    everyone = nodes.descriptors
    nodes.become(everyone[:3])
    r = Round(nodes).put()
    model = nodes.commit(nodes.ask(r.job()))[0].json()["model"]
    first = words(nodes, model)
    assert codes(reshare(nodes, model, r.custodians)) <= {"same_nodes", "peer_refused"}

    nodes.become(everyone)
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    job = buyer.job(query, computing=[0, 1, 2], holding=[])
    assert codes(nodes.ask(job, uploads=[query])) <= {"wrong_nodes", "peer_refused"}
    assert [a.status_code for a in nodes.refresh(range(5))] == [200] * 5  # that has nothing to do
    for makers in ((), r.custodians[:2], r.validators * 3):
        assert "no_consent" in codes(reshare(nodes, model, makers))
    for named, changes, code in (
        ("ab" * 32, {}, "not_held"),
        (model, {"consents": [{"key": 1}]}, "malformed"),
        (model, {"days": 0}, "no_consent"),  # it has lapsed
        (model, {"days": None}, "no_consent"),  # an earlier release's, without an end
    ):
        assert code in codes(reshare(nodes, named, r.custodians, **changes))
    assert [a.status_code for a in reshare(nodes, model, r.custodians)] == [200] * 5
    for three in list(combinations(range(5), 3))[::3]:
        assert abs(ask(nodes, model, three) - TRUTH) < 0.3, three
    more = words(nodes, model)
    assert np.array_equal(join(more), join(first))
    assert not any(np.any(one == other) for one in first.values() for other in more.values())
    assert [a.status_code for a in nodes.refresh(range(5))] == [200] * 5

    nodes.become(everyone[:3])
    assert [a.status_code for a in reshare(nodes, model, r.custodians)] == [200] * 3
    assert abs(one_of_three(nodes, model) - TRUTH) < 0.3
    last = words(nodes, model)
    assert np.array_equal(join(last), join(first))
    assert not any(np.any(first[j] == last[j]) for j in range(3))
