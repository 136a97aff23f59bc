"""Cosigning: one history per node, whatever it is shown and however often it starts."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import heads, merkle, wire
from workers.node import home, storekey
from workers.node.__main__ import main
from workers.node.errors import Conflict, NodeError
from workers.node.heads import Heads, highest
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


def test_of_what_others_signed_the_longest_counts_if_it_is_one_log():
    def signed(size, root="aa", log="l"):
        return {"log": log, "size": size, "root": root, "at": 1}

    assert highest([None, signed(3), signed(5, "bb"), signed(3)]) == signed(5, "bb")
    assert highest([None, None]) is None
    for other in (signed(3, "cc"), signed(4, "bb", "m")):
        with pytest.raises(Conflict):
            highest([signed(3), other])
