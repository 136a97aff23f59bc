"""A node that lost its store: words and marks come from the others, its own word from nobody."""

import contextlib
import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import heads, merkle, wire
from tests.faults.test_more_nodes import ROW, TRUTH, ask, group
from tests.support.meshes import until
from tests.support.nodes import Buyer, NodeSet, Round, node_command
from workers.client.nodes import NotTrusted, trusted_nodes
from workers.node.copies import merged
from workers.node.errors import StartError
from workers.node.home import load
from workers.node.storekey import open_store


@pytest.fixture(params=[3, 5])
def nodes(tmp_path, request):
    nodes = NodeSet(tmp_path, n=request.param)
    nodes.start()
    yield nodes
    nodes.stop()


def recover(nodes, i, *options):
    command = node_command(nodes.homes[i], "recover", *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def named(nodes, computing, holding=()):
    return group(computing, holding) if nodes.n > 3 else {}


def words_of(nodes, i, model):
    stores = []

    def opens():
        """A node that refreshes changes the key between two looks at its home."""
        with contextlib.suppress(StartError, OSError):
            stores.append(open_store(load(nodes.homes[i]), alone=False))
        return stores

    until(opens, 15)
    try:
        return stores[0].model(model).words, stores[0].marks()
    finally:
        stores[0].close()


def test_a_wiped_node_is_filled_from_the_others_and_forgets_nothing(nodes, tmp_path):
    first, rest = (0, 1, 2), list(range(3, nodes.n))
    r = Round(nodes).put()
    made = nodes.ask(r.job(**named(nodes, first, rest)))
    model = nodes.commit(made)[0].json()["model"]
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    asked = buyer.job(query, **named(nodes, first))
    assert [a.status_code for a in nodes.ask(asked, uploads=[query])] == [200] * 3

    key = Ed25519PrivateKey.generate()
    for i in range(nodes.n):
        size = 5 if i < 2 else 4
        assert cosign(nodes, i, key, size).status_code == 200
    nodes.kill(2)
    before, marks = words_of(nodes, 2, model)
    assert recover(nodes, 2).returncode == 3  # it has a store
    for file in nodes.homes[2].glob("store.sqlite*"):
        file.unlink()
    too_few_others_recover_nothing(nodes)
    if rest:  # one that was asked nothing may be away too
        nodes.kill(4)
    done = recover(nodes, 2)
    said = {"recovered": True, "models": [model], "left_out": []}
    assert json.loads(done.stdout) == said, done.stderr
    after, again = words_of(nodes, 2, model)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    assert again == marks
    nodes.start(2, *rest[1:])

    # it signs no other log than that which the others have signed
    first = 5 if nodes.n == 3 else 4
    for size, root, code in ((5, "ab" * 32, "fork"), (4, None, "shorter_log")):
        assert cosign(nodes, 2, key, size, root, first).json()["code"] == code
    assert cosign(nodes, 2, key, 5, None, first).status_code == 200

    last = tuple(range(nodes.n))[-3:]
    refreshed_while_one_is_away(nodes, model)
    assert abs(ask_any(nodes, model, last) - TRUTH) < 0.3
    # what only the wiped node of these three had seen is still over
    other = asked | {"job_id": "cd" * 16, **named(nodes, last)}
    codes = {a.json()["code"] for a in nodes.ask(other, uploads=[query])}
    assert "already_completed" in codes or "scope_bound" in codes
    shorter = r.job(**named(nodes, last)) | {"job_id": "ce" * 16}
    said = nodes.post_all("/shares", r.uploads["update"][0])  # nor does it take its inputs again
    assert [a.status_code for a in said].count(201) == nodes.n - 1
    assert said[2].json()["code"] == "already_completed"
    codes = {a.json()["code"] for a in nodes.ask(shorter)}
    assert "already_completed" in codes
    if nodes.n == 3:
        a_lost_node_has_a_successor(nodes, model, tmp_path)


def cosign(nodes, i, key, size, root=None, first=0):
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    ranges = merkle.consistency_ranges(first, size) if 0 < first < size else []
    path = [h.hex() for h in merkle.proof(ranges, merkle.getter(leaves))]
    head = heads.head_content(size, root or merkle.root(leaves).hex(), 1)
    signed = head | {"signature": wire.sign(key, heads.HEAD_DOMAIN, head)}
    body = {"log": wire.public_hex(key), "head": signed, "path": path}
    return nodes.post(i, "/log/head", body)


def too_few_others_recover_nothing(nodes):
    away = [0] if nodes.n == 3 else [0, 1]
    for i in away:
        nodes.kill(i)
    done = recover(nodes, 2, "--wait", "2")  # those who live connect within one
    answer = f"{nodes.n - 1 - len(away)} other nodes answer"
    assert done.returncode == 3 and answer in done.stderr and not done.stdout
    nodes.start(*away)


def refreshed_while_one_is_away(nodes, model):
    """Of five, one: it copies the new shares when it is back. Of three, nothing happens then."""
    old = [words_of(nodes, i, model)[0] for i in range(nodes.n)]
    nodes.kill(3 % nodes.n)
    if nodes.n == 3:
        refused = {a.json()["code"] for a in nodes.refresh([0, 1, 2], [1, 2])}
        assert refused <= {"peer_lost", "peer_refused"}
        nodes.start(0)
        assert [a.status_code for a in nodes.refresh([0, 1, 2])] == [200] * 3
    else:
        assert [a.status_code for a in nodes.refresh([0, 1, 2, 4])] == [200] * 4
        nodes.start(3)
    until(lambda: {nodes.refreshed(i) for i in range(nodes.n)} == {1}, 15)
    for i, words in enumerate(old):
        new = words_of(nodes, i, model)[0]
        assert not any(np.any(a == b) for a, b in zip(words, new, strict=True))


def said(nodes, i, *command):
    done = subprocess.run(
        node_command(nodes.homes[i], *command), capture_output=True, text=True, timeout=60
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def a_lost_node_has_a_successor(nodes, model, tmp_path):
    """Its home is gone, keys and all. Two operators say who stands there now; then it recovers."""
    lost, others = 1, (0, 2)
    before = list(nodes.fingerprints)
    nodes.kill(lost)
    nodes.homes[lost].rename(tmp_path / "lost")
    control, mesh = (nodes.descriptors[lost][k] for k in ("control", "mesh"))
    make = ("init", "--index", str(lost), "--name", "new", "--control", control, "--mesh", mesh)
    new = said(nodes, lost, *make)["fingerprint"]
    descriptor = nodes.homes[lost] / "descriptor.json"
    assert "nobody who may" in said(nodes, 0, "admit", str(descriptor))
    words = []
    for i in others:
        words.append(tmp_path / f"said-{i}")
        command = ("succession", "--index", str(lost), "--new", new)
        words[-1].write_text(json.dumps(said(nodes, i, *command)))
    assert "do not say" in said(nodes, lost, *make, "--succeeds", str(words[0]))
    said(nodes, lost, *make, "--succeeds", *map(str, words))
    for i in others:
        admitted = said(nodes, i, "admit", str(descriptor))
        assert admitted == {"admitted": True, "in_place_of": before[lost]}
        nodes.kill(i)
    peers = (nodes.homes[0] / "peers.json").read_text()
    (nodes.homes[lost] / "peers.json").write_text(peers)
    nodes.start(*others)
    assert json.loads(recover(nodes, lost).stdout)["models"] == [model]
    nodes.start(lost)
    nodes.know_again(json.loads(peers)["nodes"])
    assert nodes.fingerprints[lost] == new != before[lost]
    assert abs(ask_any(nodes, model, ()) - TRUTH) < 0.3
    assert [a.status_code for a in nodes.refresh([0, 1, 2])] == [200] * 3
    assert abs(ask_any(nodes, model, ()) - TRUTH) < 0.3

    site = SimpleNamespace(path=tmp_path, journal=SimpleNamespace(write=lambda *_, **__: None))
    for pinned, ok in ((before, True), (before[:1] + [new] * 2, False)):
        kept = []
        site.pinned_nodes, site.pin_nodes = lambda p=pinned: p, kept.append
        if ok:
            trusted_nodes(site, nodes.descriptors)
            assert kept == [nodes.fingerprints]
            continue
        with pytest.raises(NotTrusted):
            trusted_nodes(site, nodes.descriptors)
    bare = [{k: v for k, v in d.items() if k != "succeeds"} for d in nodes.descriptors]
    with pytest.raises(NotTrusted):
        trusted_nodes(site, bare)


def ask_any(nodes, model, computing):
    if nodes.n > 3:
        return ask(nodes, model, computing)
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW)
    return buyer.open(query, nodes.ask(buyer.job(query), uploads=[query]))[0]


def test_marks_of_several_nodes_add_up():
    one = {"scopes": [["a", "d", None, 5, 1], ["b", "d", "j", 5, 2]], "answered": [["m", 1, 4]]}
    two = {"scopes": [["a", "d", "k", 5, 3], ["c", "d", None, 5, 1]], "answered": [["m", 1, 6]]}
    both = {
        "scopes": [["a", "d", "k", 5, 3], ["b", "d", "j", 5, 2], ["c", "d", None, 5, 1]],
        "answered": [["m", 1, 6]],
        "withdrawn": [],
        "withdrawals": [],
    }
    assert merged([one, two]) == both
    assert sorted(merged([two, one])["scopes"]) == both["scopes"]
