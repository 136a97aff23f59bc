"""The share store: encrypted rows, bound to their place; steps that happen whole or not at all."""

import json
import secrets
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest

from workers.mpc.replicated import expand
from workers.node import copies
from workers.node.errors import StartError
from workers.node.records import Binding, Rows, StoredJob, StoredModel
from workers.node.sealed import CorruptStore
from workers.node.store import STAGED_FOR_S, WITHDRAWN, Store

KEY = bytes(range(32))
ROW = Rows("m", 1, 1)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "s", KEY)
    yield store
    store.close()


def words(seed=0, size=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 2**64, size, dtype=np.uint64) for _ in range(2))


def put(store, *, expires_at=100, size=3):
    share_id = secrets.token_hex(16)
    ticket = {"share_id": share_id, "expires_at": expires_at, "shape": [size]}
    ticket |= {"scope": "round:1", "sender": "me", "commitment": [share_id]}
    store.put_share(ticket=ticket, ticket_id="t" + share_id, ack={"at": 1}, words=words(size=size))
    return share_id


def withdrawn(store, share_id, *, scope="round:1", at=1, stays=False):
    """What becomes of a share when its owner takes it back at that time."""
    ticket = {"share_id": share_id, "expires_at": 100, "scope": scope, "sender": "me"}
    ticket |= {"commitment": [share_id]}
    about = {"id": "t" + share_id, "root": "r" + share_id, "stays": stays}
    checked = SimpleNamespace(**ticket, **about)
    return store.withdraw_share(ticket=ticket, checked=checked, at=at)


def is_withdrawn(store, *, issued_at, share_id="00"):
    named = {"scope": "round:1", "sender": "me", "root": "r" + share_id}
    return store.is_withdrawn(SimpleNamespace(**named, issued_at=issued_at))


def job(job_id="j1", scope="round:1", state="staged", *share_ids):
    record = {"answer": {"n": 1}, "share_ids": share_ids, "model": None}
    return StoredJob(job_id=job_id, scope=scope, attempt=1, digest="d", state=state, record=record)


def test_a_share_comes_back_as_it_was_put(store):
    share = store.share(put(store))
    assert all(np.array_equal(a, b) for a, b in zip(share.words, words()))
    assert share.used_by is None and share.ack == {"at": 1}
    assert store.share("00") is None


def test_what_is_said_waits_for_the_disk_and_takes_along_what_was_not(store):
    """SQLite waits for the disk at FULL (2), not at NORMAL (1); one file holds both, in order."""
    for lasting, level in ((True, 2), (False, 1), (True, 2)):
        with store.together(lasting=lasting):
            assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)


def test_rows_are_unreadable_and_cannot_be_moved(store, tmp_path):
    one, two = put(store), put(store)
    raw = b"".join(p.read_bytes() for p in tmp_path.glob("s*"))
    assert words()[0].tobytes() not in raw and b'"shape"' not in raw
    db = sqlite3.connect(tmp_path / "s")
    with db:
        blob = db.execute("SELECT words FROM shares WHERE share_id = ?", (one,)).fetchone()[0]
        db.execute("UPDATE shares SET words = ? WHERE share_id = ?", (blob, two))
    db.close()
    store.share(one)
    with pytest.raises(CorruptStore):
        store.share(two)


def test_a_flipped_bit_is_detected(store, tmp_path):
    share_id = put(store)
    db = sqlite3.connect(tmp_path / "s")
    with db:
        blob = bytearray(db.execute("SELECT body FROM shares").fetchone()[0])
        blob[20] ^= 1
        db.execute("UPDATE shares SET body = ?", (bytes(blob),))
    db.close()
    with pytest.raises(CorruptStore):
        store.share(share_id)


def test_another_key_does_not_open_the_store(tmp_path):
    Store(tmp_path / "s", KEY).close()
    with pytest.raises(StartError, match="another store key"):
        Store(tmp_path / "s", bytes(32))


def test_a_scope_keeps_its_first_binding(store):
    for digest in ("first", "second"):
        store.bind(scope="round:1", digest=digest, share_ids=[], job_id=None, expires_at=9)
    assert store.binding("round:1") == Binding("first", None, attempts=2)
    store.forgive("round:1")
    assert store.binding("round:1") == Binding("first", None, attempts=1)
    assert store.binding("round:2") is None


def test_a_store_made_before_attempts_were_counted_still_opens(tmp_path):
    store = Store(tmp_path / "s", KEY)
    store.bind(scope="round:1", digest="d", share_ids=[], job_id=None, expires_at=9)
    store.close()
    db = sqlite3.connect(tmp_path / "s")
    db.execute("ALTER TABLE scopes DROP COLUMN attempts")
    db.close()
    store = Store(tmp_path / "s", KEY)
    assert store.binding("round:1") == Binding("d", None, attempts=1)
    store.close()


def test_what_is_admitted_together_is_as_if_it_came_one_by_one(store):
    """Each sees what was written of those before it, and a refusal of all leaves nothing."""
    mark, other = came_with_its_job("ab" * 16), came_with_its_job("cd" * 16)
    bound = {"digest": "d", "share_ids": [], "job_id": "j", "expires_at": 9}
    store.bind(scope="a", **bound, rows=Rows("m", 1, 3))

    def admit():
        asked = [mark.share_id, other.share_id]
        with store.admitting(shares=asked, scopes=["a", "b"]):
            before = store.changes
            assert store.share_mark(mark.share_id) is None and store.binding("b") is None
            for scope in ("a", "b", "b"):
                store.bind(scope=scope, **bound, rows=Rows("m", 1, 5))
            store.use_share(ticket=mark, job_id="j")
            assert store.share_mark(mark.share_id) == (mark.id, "j")
            assert store.rows_answered("m", since=1) == 8 and store.rows_answered("m", since=2) == 0
            assert store.changes == before + 4
            with pytest.raises(KeyError):
                store.binding("c")  # nothing was read of it
            yield
        yield

    undone = admit()
    next(undone)
    with pytest.raises(ZeroDivisionError):
        undone.throw(ZeroDivisionError)
    assert store.binding("b") is None and store.share_mark(mark.share_id) is None
    assert store.rows_answered("m", since=1) == 3
    for _ in admit():
        pass
    assert store.binding("a") == Binding("d", None, 2) == store.binding("b")
    assert store.share_mark(mark.share_id) == (mark.id, "j")
    assert store.share_mark(other.share_id) is None
    assert store.answered() == [Rows("m", 1, 8)]


def test_rows_are_counted_once_a_scope_by_model_and_day(store, tmp_path):
    for scope, model, day in (("a", "m", 1), ("a", "m", 1), ("b", "m", 1), ("c", "m", 2)):
        rows = Rows(model, day, 3)
        store.bind(scope=scope, digest="d", share_ids=[], job_id="j", expires_at=9, rows=rows)
    store.bind(scope="round:1", digest="d", share_ids=[], job_id=None, expires_at=9)
    store.purge(now=10**9)
    assert store.rows_answered("m", since=1) == 9 and store.rows_answered("m", since=2) == 3
    assert store.rows_answered("m", since=3) == 0 and store.rows_answered("n", since=1) == 0
    assert store.answered() == [Rows("m", 1, 6), Rows("m", 2, 3)]


def test_commit_makes_the_model_and_uses_the_inputs_up_together(store):
    share_id = put(store)
    store.bind(scope="round:1", digest="d", share_ids=[share_id], job_id=None, expires_at=9)
    store.stage(job(), model="m", result={"shape": [3]}, words=words(7))
    assert store.model("m") is None and store.share(share_id).words is not None
    store.commit("j1", share_ids=[share_id])
    assert np.array_equal(store.model("m").words[1], words(7)[1])
    share = store.share(share_id)
    assert share.words is None and share.used_by == "j1"
    assert store.job("j1").state == "done"
    assert store.binding("round:1") == Binding("d", "j1")


def test_commit_forgets_what_other_jobs_of_the_scope_had_staged(store):
    store.bind(scope="round:1", digest="d", share_ids=[], job_id=None, expires_at=9)
    store.stage(job("j1"), model="m1", result={"shape": [3]}, words=words())
    store.stage(job("j2"), model="m2", result={"shape": [3]}, words=words())
    store.commit("j2", share_ids=[])
    assert store.job("j1") is None and store.model("m2") is not None
    with store._transaction() as db:
        assert db.execute("SELECT count(*) FROM models").fetchone() == (1,)


def test_a_later_attempt_replaces_what_an_earlier_one_staged(store):
    for seed in (1, 2):
        store.stage(job(), model="m", result={"shape": [3]}, words=words(seed))
    store.commit("j1", share_ids=[])
    assert np.array_equal(store.model("m").words[0], words(2)[0])


def test_an_abandoned_result_goes_some_time_after_its_scope_but_the_scope_stays_bound(store):
    store.bind(scope="round:1", digest="d", share_ids=[], job_id=None, expires_at=9)
    store.bind(scope="round:2", digest="d", share_ids=[], job_id=None, expires_at=9)
    store.stage(job("j1"), model="m1", result={"shape": [3]}, words=words())
    store.stage(job("j2", "round:2"), model="m2", result={"shape": [3]}, words=words())
    store.commit("j2", share_ids=[])
    store.purge(now=9 + STAGED_FOR_S - 1)
    assert store.job("j1") is not None
    store.purge(now=9 + STAGED_FOR_S)
    assert store.job("j1") is None and store.binding("round:1") == Binding("d", None)
    assert store.job("j2").state == "done" and store.model("m2") is not None
    with store._transaction() as db:
        assert db.execute("SELECT model FROM models").fetchall() == [("m2",)]


def sealed_words(path, table):
    """Pieces of every stored ciphertext of words, as it lies on disk."""
    db = sqlite3.connect(path)
    blobs = [row[0] for row in db.execute(f"SELECT words FROM {table}")]
    db.close()
    return [blob[at : at + 24] for blob in blobs for at in range(12, len(blob) - 24, 4096)]


def found(tmp_path, pieces):
    files = [p.read_bytes() for p in tmp_path.iterdir()]
    return [sum(piece in file for file in files) > 0 for piece in pieces]


@pytest.mark.parametrize("end", ["commit", "finish", "expiry"])
def test_what_is_deleted_is_in_no_file_of_the_store(store, tmp_path, end):
    size = 5000  # more than a page
    share_id = put(store, size=size)
    pieces = sealed_words(tmp_path / "s", "shares")
    assert len(pieces) > 15 and all(found(tmp_path, pieces))
    if end == "commit":
        store.bind(scope="round:1", digest="d", share_ids=[share_id], job_id=None, expires_at=9)
        for seed in (1, 2):  # the first attempt's result is replaced by the second's
            store.stage(job(), model="m", result={"shape": [size]}, words=words(seed, size))
            pieces += sealed_words(tmp_path / "s", "models") if seed == 1 else []
        store.commit("j1", share_ids=[share_id])
        assert np.array_equal(store.model("m").words[0], words(2, size)[0])
    elif end == "finish":
        store.bind(scope="query:1", digest="d", share_ids=[share_id], job_id="j1", expires_at=900)
        store.finish([job("j1", "query:1", "done", share_id)])
        store.purge(now=50)
        assert store.share(share_id).words is None
    else:
        store.purge(now=100)
        assert store.share(share_id) is None
    assert not any(found(tmp_path, pieces))


def test_a_failing_step_leaves_nothing_behind(store):
    store.stage(job(), model="m", result={"shape": [3]}, words=words())
    store.commit("j1", share_ids=[])
    with pytest.raises(sqlite3.IntegrityError):
        store.stage(job("j9", "round:9"), model="m", result={"shape": [3]}, words=words())
    assert store.job("j9") is None


def test_what_is_written_together_is_there_whole_or_not_at_all(store, tmp_path):
    with pytest.raises(ZeroDivisionError), store.together():
        share_id = put(store)
        with store.together():
            store.bind(scope="a", digest="d", share_ids=[share_id], job_id="j", expires_at=9)
        raise ZeroDivisionError
    assert store.binding("a") is None and store.share(share_id) is None
    with sqlite3.connect(tmp_path / "s") as other, store.together():
        put(store)
        store.bind(scope="b", digest="d", share_ids=[], job_id="j", expires_at=9, rows=ROW)
        assert other.execute("SELECT count(*) FROM shares").fetchone() == (0,)
    other.close()


def came_with_its_job(share_id="ab" * 16):
    return SimpleNamespace(share_id=share_id, id="t" + share_id, expires_at=100)


def test_of_a_share_that_came_with_its_job_only_a_mark_is_kept(store):
    ticket = came_with_its_job()
    for _attempt in range(2):
        store.use_share(ticket=ticket, job_id="j1")
    assert store.share_mark(ticket.share_id) == (ticket.id, "j1")
    assert store.share(ticket.share_id) is None and store.share_mark("cd" * 16) is None
    for _again in range(2):
        assert withdrawn(store, ticket.share_id, scope="query:1", at=1 << 70) == "taken"
    assert store.share_mark(ticket.share_id) == (ticket.id, WITHDRAWN)
    store.purge(now=100)
    assert store.share_mark(ticket.share_id) is None


def test_a_share_that_came_before_its_job_keeps_its_words_until_it_is_done(store):
    share_id = put(store)
    store.use_share(ticket=came_with_its_job(share_id), job_id="j1")
    share = store.share(share_id)
    assert share.used_by == "j1" and share.words is not None and share.ack == {"at": 1}


def test_what_a_completed_job_has_used_stays_its_own(store):
    share_id = put(store)
    store.bind(scope="query:1", digest="d", share_ids=[share_id], job_id="j1", expires_at=9)
    store.finish([job("j1", "query:1", "done", share_id)])
    assert withdrawn(store, share_id, scope="query:1") == "over"
    assert store.share_mark(share_id) == ("t" + share_id, "j1")
    assert store.binding("query:1") == Binding("d", "j1")


def test_who_lost_its_store_hears_of_what_was_withdrawn(store, tmp_path):
    share_id, other = put(store), put(store)
    withdrawn(store, share_id, at=50, stays=True)
    told = json.loads(json.dumps(store.marks()))
    earlier = {"scopes": [], "answered": [], "models": []}  # all that an older release tells
    later = told | {"withdrawals": [[owner, 70] for owner, _ in told["withdrawals"]]}
    new = Store(tmp_path / "new", KEY)
    new.restore(copies.merged([told, earlier, later]), {})
    assert new.share_mark(share_id) == ("t" + share_id, WITHDRAWN)
    assert new.share_mark(other) == ("t" + other, WITHDRAWN)
    assert is_withdrawn(new, issued_at=69) and not is_withdrawn(new, issued_at=70)
    assert is_withdrawn(new, issued_at=70, share_id=share_id)
    # nor does it sign that nothing was computed of what it no longer knows
    done = {"scopes": [["round:2", "d", "j", 100, 1]], "answered": []}
    held = StoredModel(ticket={"shape": [3]}, words=words())
    new.restore(done, {"m": ("j", held)})
    assert withdrawn(new, "ee" * 16, scope="round:2") == "computed"
    new.close()


def test_what_has_expired_is_forgotten_but_completed_rounds_are_not(store):
    old, new = put(store, expires_at=10), put(store, expires_at=1000)
    for scope in ("query:a", "round:a"):
        store.bind(scope=scope, digest="d", share_ids=[], job_id=None, expires_at=10)
        store.finish([job(scope, scope, "done")])
    store.purge(now=11)
    assert store.share(old) is None and store.share(new) is not None
    assert store.binding("query:a") is None and store.job("query:a") is None
    assert store.binding("round:a").job_id == "round:a"


def test_a_word_that_is_kept_as_its_seed_comes_back_whole(store):
    """Beside words as they are, as an earlier release has packed them all."""
    seed, (own, _) = secrets.token_bytes(32), words(size=5)
    shape = {"scope": "round:1", "sender": "me", "expires_at": 100, "shape": [5]}
    for kept in ((seed, own), (own, seed), (seed, seed), (own, own)):
        share_id = secrets.token_hex(16)
        ticket = shape | {"share_id": share_id}
        store.put_share(ticket=ticket, ticket_id="t", ack={}, words=kept)
        (sealed,) = store._one("SELECT words FROM shares WHERE share_id = ?", share_id)
        size = sum(32 if word is seed else 8 * 5 for word in kept)
        assert len(sealed) == size + 3 * any(word is seed for word in kept) + 28
        wanted = [expand(seed, 5) if word is seed else word for word in kept]
        assert np.array_equal(store.share(share_id).words, wanted)
