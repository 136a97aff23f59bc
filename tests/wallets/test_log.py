"""The log: numbering, heads, proofs, through the API as anyone would check it."""

from __future__ import annotations

import base64
import time

import pytest
from rest_framework.test import APIClient

from apps.core import transactions
from apps.core.clock import unix_ms
from apps.protocol import merkle, wire
from apps.wallets import log, proofs
from apps.wallets.models import LogLeaf, LogNode, TreeHead
from tests.wallets.ledger_helpers import at

pytestmark = pytest.mark.django_db


def write(count, start=0):
    log.append_all(
        [("test.leaf", {"id": str(i)}, None) for i in range(start, start + count)], now=at(0)
    )


def get(path):
    return APIClient().get(f"/api/v1/log/{path}")


def test_an_empty_log_says_so():
    assert log.sequence(now=at(0)) is None
    assert get("head/").status_code == 404


def test_leaves_are_numbered_in_the_order_they_were_written_and_heads_signed():
    write(3)
    first = log.sequence(now=at(1))
    write(4, start=3)
    second = log.sequence(now=at(2))
    assert log.sequence(now=at(3)) is None
    assert (first.size, second.size, second.at_ms) == (3, 7, unix_ms(at(2)))
    leaves = [bytes(d) for d in LogLeaf.objects.order_by("seq").values_list("data", flat=True)]
    hashes = [merkle.leaf_hash(d) for d in leaves]
    assert [log.leaf_bytes("test.leaf", {"id": str(i)}, now=at(0)) for i in range(7)] == leaves
    assert second.root == merkle.root(hashes).hex() and first.root == merkle.root(hashes[:3]).hex()
    key = get("key/").data["public_key"]
    head = dict(get("head/").data)
    signature = head.pop("signature")
    wire.verify(key, "flai/head/v1", head, signature)
    assert head == {"v": 1, "size": 7, "root": second.root, "at": unix_ms(at(2))}
    assert [h["size"] for h in get("heads/").data["results"]] == [7, 3]


def test_a_long_backlog_is_numbered_in_batches():
    write(10)
    sizes = [log.sequence(now=at(1), limit=4).size for _ in range(3)]
    assert sizes == [4, 8, 10]
    hashes = [bytes(h) for h in LogLeaf.objects.order_by("seq").values_list("hash", flat=True)]
    assert TreeHead.objects.get(size=10).root == merkle.root(hashes).hex()


def test_time_in_heads_never_runs_backwards():
    write(1)
    log.sequence(now=at(5))
    write(1, start=1)
    assert log.sequence(now=at(1)).at_ms == unix_ms(at(5))


def test_every_leaf_and_every_prefix_proves_itself_through_the_api():
    for i in range(21):
        write(1, start=i)
        if i % 3 == 0:
            log.sequence(now=at(i))
    log.sequence(now=at(99))
    heads = {h.size: bytes.fromhex(h.root) for h in TreeHead.objects.all()}
    for size, root in heads.items():
        for index in range(size):
            proof = get(f"inclusion/?index={index}&size={size}").data
            path = [bytes.fromhex(h) for h in proof["path"]]
            leaf = merkle.leaf_hash(base64.b64decode(proof["leaf_b64"]))
            assert (leaf.hex(), proof["root"]) == (proof["hash"], root.hex())
            merkle.verify_inclusion(leaf, index, size, path, root)
        proof = get(f"consistency/?first={size}&second=21").data
        path = [bytes.fromhex(h) for h in proof["path"]]
        merkle.verify_consistency(size, 21, root, heads[21], path)


def test_a_leaf_is_found_by_hash_and_by_what_it_is_about():
    write(5)
    log.sequence(now=at(1))
    leaf = log.leaf_for("test.leaf", "3")
    by_hash = get(f"inclusion/?hash={bytes(leaf.hash).hex()}").data
    by_ref = get("inclusion/?ref=test.leaf:3").data
    assert by_hash == by_ref and by_hash["index"] == leaf.seq == 3 and by_hash["size"] == 5
    assert [e["index"] for e in get("entries/?start=1&end=4").data["results"]] == [1, 2, 3]
    assert len(get("entries/?start=3&end=99").data["results"]) == 2


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("inclusion/", 400, "bad_lookup"),
        ("inclusion/?index=1&hash=aa", 400, "bad_lookup"),
        ("inclusion/?index=-1", 400, "bad_number"),
        ("inclusion/?index=1e3", 400, "bad_number"),
        ("inclusion/?index=9", 404, "leaf_not_found"),
        ("inclusion/?index=2&size=2", 400, "bad_size"),
        ("inclusion/?index=2&size=6", 400, "bad_size"),
        ("inclusion/?hash=zz", 400, "bad_hash"),
        ("inclusion/?hash=" + "0" * 64, 404, "leaf_not_found"),
        ("inclusion/?ref=test.leaf", 404, "leaf_not_found"),
        ("consistency/?first=0&second=5", 400, "bad_sizes"),
        ("consistency/?first=5&second=4", 400, "bad_sizes"),
        ("consistency/?first=1&second=6", 400, "bad_sizes"),
        ("consistency/?first=1", 400, "bad_sizes"),
        ("entries/?start=5&end=5", 400, "bad_range"),
    ],
)
def test_questions_about_the_log_that_make_no_sense_are_named(query, status, code):
    write(5)
    log.sequence(now=at(1))
    answer = get(query)
    assert (answer.status_code, answer.data["code"]) == (status, code)


def test_a_leaf_that_waits_for_its_number_says_so():
    write(1)
    log.sequence(now=at(1))
    write(1, start=1)
    answer = get("inclusion/?ref=test.leaf:1")
    assert (answer.status_code, answer.data["code"]) == (409, "not_sequenced")


def test_few_leaves_that_wait_are_looked_through_for_a_hash(monkeypatch):
    write(2)
    oldest, newest = (
        bytes(row.hash).hex() for row in LogLeaf.objects.filter(seq=None).order_by("id")
    )
    monkeypatch.setattr(proofs, "WAITING_MAX", 1)
    for hash_, code in ((newest, "not_sequenced"), (oldest, "leaf_not_found")):
        assert get(f"inclusion/?hash={hash_}").data["code"] == code
    log.sequence(now=at(1))
    assert get(f"inclusion/?hash={oldest}").status_code == 200


def test_an_idle_log_renews_its_head_and_one_that_stands_still_does_not():
    assert not log.pulse(now=at(0))  # an empty one has none
    write(1)
    log.sequence(now=at(1))
    assert not log.pulse(now=at(log.PULSE_S))
    write(1, start=1)
    assert not log.pulse(now=at(2 * log.PULSE_S))
    log.sequence(now=at(2 * log.PULSE_S))
    assert log.pulse(now=at(3 * log.PULSE_S))
    assert log.sequence(now=at(3 * log.PULSE_S)).at_ms == unix_ms(at(3 * log.PULSE_S))
    assert not log.pulse(now=at(3 * log.PULSE_S))


def test_who_has_another_time_than_the_database_writes_nothing(monkeypatch):
    monkeypatch.setattr(transactions, "_seen_until", 0.0)
    with monkeypatch.context() as wrong:
        real = time.time
        wrong.setattr(transactions.time, "time", lambda: real() + 60)
        with pytest.raises(transactions.ClockWrong) as refused, transactions.durable():
            write(1)
    assert refused.value.status == 503 and not LogLeaf.objects.exists()
    with transactions.durable():
        write(1)


def test_stored_subtrees_are_those_of_the_tree():
    write(13)
    log.sequence(now=at(1), limit=5)
    log.sequence(now=at(1))
    hashes = [bytes(h) for h in LogLeaf.objects.order_by("seq").values_list("hash", flat=True)]
    stored = {(n.level, n.index): bytes(n.hash) for n in LogNode.objects.all()}
    assert set(stored) == {(v, i) for v in (1, 2, 3) for i in range(13 >> v)}
    for (level, index), hash_ in stored.items():
        assert hash_ == merkle.root(hashes[index << level : (index + 1) << level])


@pytest.mark.parametrize("type_", ["", "leaf", "Test.leaf", "test.Leaf", "test.leaf x"])
def test_a_leaf_type_is_app_and_word(type_):
    with pytest.raises(ValueError, match="leaf type"):
        log.append(type_, {}, now=at(0))


def test_a_body_without_canonical_form_is_refused():
    with pytest.raises(ValueError, match=r"canonical|string"):
        log.append("test.leaf", {"x": 0.5}, now=at(0))
