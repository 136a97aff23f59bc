"""What a node admits, in this process: its store's faults leave nothing running or half written."""

import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest

from workers.node import home
from workers.node.computation import session_id
from workers.node.errors import Conflict, Refused, Unavailable
from workers.node.idle import Idle
from workers.node.jobs import Entry, Jobs
from workers.node.records import Rows, StoredJob
from workers.node.shares import Opened, Shares
from workers.node.store import Store

MARKED = SimpleNamespace(share_id="ab" * 16, id="t", expires_at=100, is_query=False)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "s", bytes(32))
    yield store
    store.close()


@pytest.fixture
def jobs(store, tmp_path):
    node = home.init(tmp_path / "n", index=0, name="n", control="127.0.0.1:1", mesh="127.0.0.1:2")
    peers = SimpleNamespace(fingerprints=(node.fingerprint,), former=())
    mesh = SimpleNamespace(refuse=lambda *_, **__: None)
    intake = Shares(node=node, peers=peers, store=store, limits=home.Limits())
    parts = {"limits": None, "store": store, "shares": intake, "mesh": mesh, "copies": None}
    parts |= {"refreshing": None, "idle": Idle(mesh)}
    return Jobs(node=node, peers=peers, **parts)


def entry(name):
    job = {"job_id": name, "attempt": 1, "scope": f"query:{name}", "circuit": "logistic_infer@1"}
    job |= {"engine": "ring", "nodes": ["a", "b", "c"], "deadline_s": 1}
    return Entry(job, name, None)


def test_a_share_of_which_only_a_mark_is_here_is_not_signed_for(store, jobs, monkeypatch):
    store.use_share(ticket=MARKED, job_id="j")
    monkeypatch.setattr(Shares, "check", lambda *_, **__: MARKED)
    with pytest.raises(Conflict):
        jobs._shares.accept({})


def test_no_job_waits_while_a_share_is_opened(store, jobs, monkeypatch):
    """What came in between is looked at again: the same share has one acknowledgement."""
    shares, held, answers = jobs._shares, [], []
    named = {"share_id": "cd" * 16, "scope": "round:1", "sender": "me", "issued_at": 1}
    kind = {"is_query": False, "is_kept": False, "stays": False, "expires_at": 100}
    ticket = SimpleNamespace(id="t", root="r", **kind, **named)
    upload = {"ticket": named | {"expires_at": 100, "shape": [1]}}

    def opened(*_):
        held.append(shares.lock._is_owned())
        if len(held) == 1:
            answers.append(shares.accept(upload))
        return bytes(32), np.zeros(1, np.uint64)

    monkeypatch.setattr(Shares, "check", lambda *_, **__: ticket)
    monkeypatch.setattr(shares, "_open", opened)
    ats = iter((1, 2))
    monkeypatch.setattr(shares, "_ack", lambda *_: {"at": next(ats)})
    assert shares.accept(upload) == answers[0] == {"at": 1} and held == [False, False]


def test_a_store_that_cannot_be_read_is_for_later(store):
    store.close()
    with pytest.raises(Unavailable) as failed:
        store.job("j")
    assert failed.value.code == "store_failed"


def test_queries_of_a_bundle_that_could_not_begin_do_not_run_for_ever(jobs, monkeypatch):
    entries, read = [entry("one"), entry("two")], []

    def job(self, job_id):
        read.append(job_id)
        if len(read) == 2:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Jobs, "_entries", lambda *_: entries)
    monkeypatch.setattr(Store, "known", lambda self, job_ids: set(job_ids))
    monkeypatch.setattr(Store, "job", job)
    with pytest.raises(sqlite3.OperationalError):
        jobs.run_bundle([], "")
    assert jobs.running == 0


def test_a_refusal_after_something_was_written_takes_all_of_it_back(store, jobs, monkeypatch):
    """Otherwise a query that is not computed would be counted, and its share used."""

    def admit(self, job, digest, opened):
        self._store.bind(
            **{"scope": job["scope"], "digest": digest, "share_ids": [], "job_id": job["job_id"]},
            **{"expires_at": 9, "rows": Rows("m", 1, 1)},
        )
        raise Refused("too_late", "Refused when it was bound.")

    monkeypatch.setattr(Jobs, "_admit", admit)
    one = entry("one")
    one.opened = Opened(ticket=MARKED, words=(), secret=b"")
    with pytest.raises(RuntimeError), store.together():
        jobs._admit_entry(one)
    assert store.binding("query:one") is None and store.answered() == []


def test_a_fault_at_a_jobs_admission_is_told_to_those_who_would_wait(jobs, monkeypatch):
    told = []
    jobs._mesh.refuse = lambda session, code, *, members: told.append((code, members))

    def fails(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Jobs, "_take_in", fails)
    with pytest.raises(RuntimeError):
        jobs._run(entry("one").job, "one", [])
    assert told == [("failed", (0, 1, 2))]


def test_who_has_the_answer_of_an_attempt_tells_those_who_begin_it_anew(store, jobs, monkeypatch):
    """A member and the server's worker died together; the next worker asks for the same attempt."""
    told, job, answer = [], entry("one").job, {"receipt": {"job_id": "one"}}
    jobs._mesh.refuse = lambda session, code, *, members: told.append((session, code, members))
    monkeypatch.setattr(Jobs, "_check", lambda *_: "d")
    monkeypatch.setattr("apps.protocol.jobs.scope_digest", lambda _: "d")
    store.bind(scope=job["scope"], digest="d", share_ids=[], job_id=None, expires_at=1 << 40)
    record = {"answer": answer, "share_ids": [], "model": None}
    staged = {"job_id": "one", "scope": job["scope"], "attempt": 1, "digest": "d"}
    store.stage(
        StoredJob(**staged, state="staged", record=record), model=None, result=None, words=None
    )
    assert jobs.run(job, "") == answer
    assert told == [(session_id(job), "already_completed", (0, 1, 2))]
