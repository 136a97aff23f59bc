"""What a node gets from the others that it was away from, over three real meshes."""

import hashlib
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from apps.protocol import wire
from tests.support.meshes import Net, until
from workers.mpc.fixed import to_bytes
from workers.mpc.replicated import held_by
from workers.node.copies import Copies
from workers.node.errors import Unavailable
from workers.node.records import StoredModel
from workers.node.store import Store

MODEL, SHARING = "ab" * 32, "cd" * 32
WORDS = [np.arange(4, dtype=np.uint64) + np.uint64(10 * j) for j in range(3)]
SALTS = {str(j): f"{j}{j}" * 16 for j in range(3)}
SET = ["a1", "b2", "c3"]
HASHES = {
    j: hashlib.sha256(wire.unhex(salt) + to_bytes(WORDS[int(j)])).hexdigest()
    for j, salt in SALTS.items()
}


@pytest.fixture
def nodes(tmp_path):
    """Each node's copies; the last two keep a model, the first has none."""
    net = Net()
    made = []
    for i, mesh in enumerate(net.meshes):
        store = Store(tmp_path / f"{i}.sqlite", bytes([i]) * 32)
        if i:
            ticket = {"sharing": SHARING, "shape": [2, 2], "salts": SALTS, "nodes": SET}
            held = StoredModel(ticket=ticket, words=tuple(WORDS[j] for j in held_by(i)))
            marks = {"scopes": [], "answered": []}
            store.restore(marks, {MODEL: ("ef" * 16, held)})
        copies = Copies(node=SimpleNamespace(index=i), sets=[SET], store=store, mesh=mesh)
        mesh.answer = copies.answer
        made.append(copies)
    until(lambda: all(len(m.peers_up()) == 2 for m in net.meshes))
    yield net, made
    net.close()


def test_who_has_just_started_hears_those_who_find_it_later(nodes):
    net, (asker, *_others) = nodes
    mesh = net.meshes[0]
    late = mesh._links[2]
    dialled, late.outgoing = late.outgoing, None

    def connect():
        with mesh._changed:
            late.outgoing = dialled
            mesh._changed.notify_all()

    threading.Timer(0.3, connect).start()
    ticket, words = asker.fetch(MODEL, SHARING, HASHES)
    assert ticket["salts"] == {j: SALTS[j] for j in ("1", "2")}
    assert all(
        np.array_equal(w, WORDS[j].reshape(2, 2)) for w, j in zip(words, (1, 2), strict=True)
    )


def test_a_word_that_its_makers_did_not_sign_is_not_taken(nodes):
    _net, (asker, *_others) = nodes
    with pytest.raises(Unavailable) as refused:
        asker.fetch(MODEL, SHARING, HASHES | {"1": "00" * 32})
    assert refused.value.code == "no_copy"


@pytest.mark.parametrize("to", [["a1", "c3", "b2"], ["d4", "b2", "c3"]])
def test_nothing_is_told_of_what_another_set_of_nodes_keeps(nodes, to):
    """By another numbering a node would be given its own word too, by another roster a newcomer
    those of the node that left: with no maker's signature."""
    _net, (asker, *others) = nodes
    asker._sets = [SET]
    assert set(asker.copy(MODEL).ticket["nodes"]) == set(SET)
    for copies in others:
        copies._sets = [to]
        for asked in ({"model": MODEL, "sharing": None}, {"model": MODEL, "sharing": SHARING}):
            assert copies.answer(0, wire.canonical(asked)) == b""
        assert json.loads(copies.answer(0, b'{"refreshed":true}'))["sharings"] == {}
        assert json.loads(copies.answer(0, b'{"marks":true}'))["models"] == []
        copies._sets = [to, SET]  # that set follows ours: each node in another's place
        assert copies.answer(0, wire.canonical({"model": MODEL, "sharing": None}))
    # nor is it taken, whoever tells it
    asker._sets = [to]
    with pytest.raises(Unavailable):
        asker.copy(MODEL)
