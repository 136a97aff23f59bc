"""Cosigning: one history per node, whatever it is shown and however often it starts."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import heads, merkle, wire
from workers.node import home, storekey
from workers.node.__main__ import main
from workers.node.errors import NodeError
from workers.node.heads import META, Heads, floors
from workers.node.store import Store

LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LEAVES = [merkle.leaf_hash(bytes([i])) for i in range(12)]


@pytest.fixture
def node(tmp_path):
    return home.init(tmp_path / "n", index=0, name="n", control="127.0.0.1:1", mesh="127.0.0.1:2")


@pytest.fixture
def open_heads(node, tmp_path):
    """A node's memory, read from disk anew at each call."""
    opened = []

    def again():
        opened.append(Store(tmp_path / "s", bytes(32)))
        return Heads(node=node, store=opened[-1])

    yield again
    for store in opened:
        store.close()


def head(leaves, key=LOG, at=5, **changes):
    content = heads.head_content(len(leaves), merkle.root(leaves).hex(), at) | changes
    return content | {"signature": wire.sign(key, heads.HEAD_DOMAIN, content)}


def path(first, leaves):
    get = merkle.getter(leaves)
    return [h.hex() for h in merkle.proof(merkle.consistency_ranges(first, len(leaves)), get)]


def ask(memory, leaves, first=0, key=LOG):
    proof = path(first, leaves) if first else []
    return memory.cosign(wire.public_hex(key), head(leaves, key), proof)


def refused(code, work, *args, **kwargs):
    with pytest.raises(NodeError) as error:
        work(*args, **kwargs)
    assert error.value.code == code


def test_a_node_signs_what_goes_on_from_its_last_head(open_heads, node):
    memory = open_heads()
    assert memory.last() == {"log": None, "size": 0, "root": None}
    size = 0
    for more in (3, 3, 4, 8, 12):
        answer = ask(memory, LEAVES[:more], size)
        content = heads.cosign_content(
            heads.Head(more, merkle.root(LEAVES[:more]).hex(), 5),
            log=wire.public_hex(LOG),
            node=node.fingerprint,
        )
        wire.verify(
            wire.public_hex(node.sign_key), heads.COSIGN_DOMAIN, content, answer["signature"]
        )
        size = more
    assert memory.last()["size"] == 12


def test_history_rewritten_at_equal_size_shorter_or_longer_is_refused(open_heads):
    ask(open_heads(), LEAVES[:7])
    other = [*LEAVES[:3], LEAVES[11], *LEAVES[4:]]
    for memory in (open_heads(), open_heads()):  # a restart forgets nothing
        refused("fork", ask, memory, other[:7], 7)
        refused("shorter_log", ask, memory, LEAVES[:6])
        refused("shorter_log", ask, memory, other[:3])
        refused("fork", ask, memory, other[:9], 7)
        refused("fork", ask, memory, LEAVES[:9], 6)  # a proof from elsewhere
        refused("fork", ask, memory, LEAVES[:9])  # no proof at all
        assert memory.last()["size"] == 7
    ask(open_heads(), LEAVES[:9], 7)


def test_another_logs_heads_and_forged_ones_are_refused(open_heads):
    memory, theirs = open_heads(), Ed25519PrivateKey.generate()
    refused("bad_signature", memory.cosign, wire.public_hex(theirs), head(LEAVES[:2]), [])
    ask(memory, LEAVES[:2])
    refused("other_log", ask, memory, LEAVES[:3], 2, key=theirs)
    public = wire.public_hex(LOG)
    refused("malformed", memory.cosign, "zz", head(LEAVES[:3]), [])
    refused("malformed", memory.cosign, public, {"size": 3}, [])
    refused("malformed", memory.cosign, public, head(LEAVES[:3], size=0), [])
    refused("malformed", memory.cosign, public, head(LEAVES[:3]), ["00"])
    refused("malformed", memory.cosign, public, head(LEAVES[:3]), ["00" * 32] * 200)
    refused("bad_signature", memory.cosign, public, head(LEAVES[:3]) | {"at": 6}, [])


def test_operators_can_agree_on_another_beginning(node, monkeypatch, capsys):
    monkeypatch.setattr(storekey, "current", lambda *_: bytes(32))
    store = Store(node.home / "store.sqlite", bytes(32))
    memory, other = Heads(node=node, store=store), [*LEAVES[1:5]]
    ask(memory, LEAVES[:7])
    refused("shorter_log", ask, memory, other)
    assert main(["--home", str(node.home), "forget-log"]) == 0
    assert json.loads(capsys.readouterr().out)["forgotten"]["size"] == 7
    ask(memory, other)
    store.close()


def note(leaves, key=LOG, **changes):
    """What a node tells of the head that it signed last."""
    signed = {k: v for k, v in head(leaves, key).items() if k != "v"}
    return {"log": wire.public_hex(key), **signed, **changes}


def recovered(memory, *told):
    found = floors(memory._store.note(META), told)
    if found is not None:
        memory._store.put_note(META, found)
    return memory


def test_a_recovered_node_goes_on_from_each_head_that_others_signed(open_heads):
    memory = recovered(open_heads(), note(LEAVES[:4]), None, note(LEAVES[:7]), note(LEAVES[:4]))
    assert memory.last()["size"] == 4
    refused("shorter_log", ask, memory, LEAVES[:6], 4)
    refused("more_proofs", ask, memory, LEAVES[:9], 4)
    assert memory.last()["size"] == 7
    assert ask(memory, LEAVES[:9], 7)["size"] == 9
    ask(open_heads(), LEAVES[:12], 9)


def test_one_that_tells_a_fork_has_no_recovered_node_follow_it(open_heads):
    """Even with a head that the log itself signed: then the node signs nothing."""
    other = [LEAVES[11], *LEAVES[1:9]]
    memory = recovered(open_heads(), note(LEAVES[:4]), note(other))
    refused("fork", ask, memory, other, 4)
    refused("more_proofs", ask, memory, LEAVES[:9] + LEAVES[:1], 4)
    for proved in (9, 10):
        refused("fork", ask, memory, LEAVES[:9] + LEAVES[:1], proved)


def test_what_no_log_signed_is_no_head(open_heads):
    theirs = Ed25519PrivateKey.generate()
    mine, public = note(LEAVES[:3]), wire.public_hex(LOG)
    for lie in (
        note(LEAVES[:9], size=2**53 - 1),
        note(LEAVES[:9], theirs, log=public),
        note(LEAVES[:3], root="ab" * 32),
        {"log": [], "size": 1, "root": "a"},
        {"log": public},
        [],
    ):
        assert floors(None, [lie]) is None
        assert floors(None, [mine, lie]) == mine == floors(mine, [lie])
    told = note(LEAVES[:3], also=[{"size": 9}, 5, note(LEAVES[:5], also=5)])
    assert [h["size"] for h in floors(None, [told])["also"]] == [5]
    # of two logs that which two tell; of one each, none
    another = note(LEAVES[:2], theirs)
    assert floors(None, [mine, another, mine]) == mine
    memory = recovered(open_heads(), mine, another)
    refused("other_log", ask, memory, LEAVES[:5], 3)
    assert floors(None, [None]) is None
