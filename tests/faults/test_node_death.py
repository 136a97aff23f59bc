"""A node dies at every moment of a job: the others say so at once, and nothing is half-kept."""

import os
import sqlite3
from pathlib import Path

import httpx
import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS
from tests.support.nodes import Buyer, NodeSet, Round, RowsRound, fixed, trained_model
from workers.mpc.engines.plain import run_plain
from workers.node.errors import Unavailable
from workers.node.store import Store


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = NodeSet(tmp_path_factory.mktemp("mortal"))
    nodes.start()
    yield nodes
    nodes.stop()


def waiting_job(nodes, job, members, **extra):
    """The members' answers to come; each is known to be inside the job."""
    pending = [nodes.begin(job, i, **extra) for i in members]
    for i in members:
        nodes.wait_for_state(i, job["job_id"], "running")
    return pending


def forget_job(home, job):
    """Put a stopped node's store back to where the job had not been finished."""
    db = sqlite3.connect(home / "store.sqlite")
    with db:
        db.execute("DELETE FROM jobs WHERE job_id = ?", (job["job_id"],))
        db.execute("UPDATE scopes SET job_id = NULL WHERE scope = ?", (job["scope"],))
    db.close()


@pytest.mark.parametrize("victim", range(3))
def test_a_node_killed_in_a_job_ends_it_at_once_and_the_next_attempt_succeeds(nodes, victim):
    others = tuple(i for i in range(3) if i != victim)
    r = Round(nodes).put()
    job = r.job()
    # the victim has not been asked: the others are inside the job and wait for its part
    pending = waiting_job(nodes, job, others)
    nodes.kill(victim)
    answers = [p.result() for p in pending]  # not at the deadline, which has another code
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(503, "peer_lost")] * 2
    assert all(a.json()["retryable"] for a in answers)
    assert {nodes.state(i, job["job_id"])["state"] for i in others} == {"failed"}

    nodes.start(victim)
    stale = nodes.ask(job, nodes=others)
    assert [a.json()["code"] for a in stale] == ["stale_attempt"] * 2
    again = nodes.ask(job | {"attempt": 2})
    assert [a.status_code for a in again] == [200] * 3, [a.text for a in again]
    assert [c.json()["committed"] for c in nodes.commit(again)] == [True] * 3


def test_a_node_killed_while_computing_leaves_no_result_anywhere(nodes):
    r = Round(nodes, rows=1500).put()
    job = r.job()
    pending = waiting_job(nodes, job, (0, 1, 2))
    nodes.kill(2)
    answers = [p.result() for p in pending[:2]]
    assert all(a.json()["code"] in ("peer_lost", "peer_refused") for a in answers)
    with pytest.raises(httpx.TransportError):
        pending[2].result()
    nodes.start(2)
    assert nodes.state(2, job["job_id"])["state"] == "unknown"
    again = nodes.ask(job | {"attempt": 2})
    assert [a.status_code for a in again] == [200] * 3
    assert len({str(a.json()["openings"]) for a in again}) == 1
    assert [c.json()["committed"] for c in nodes.commit(again)] == [True] * 3


def test_a_node_killed_while_it_trains_on_rows_changes_nothing_of_what_comes_of_them(nodes):
    r = RowsRound(nodes)
    r.params["epochs"], r.params["steps"] = 8, 10
    r.uploads = {"rows": [], "holdout": []}
    for slot, keys, blocks in (
        ("rows", r.custodians, r.rows),
        ("holdout", r.validators, [r.holdout]),
    ):
        for key, block in zip(keys, blocks):
            r.uploads[slot].append(nodes.upload(key, fixed(block), **r.fields(slot)))
    r.put()
    job = r.job()
    pending = waiting_job(nodes, job, (0, 1, 2))
    nodes.kill(2)
    assert all(p.result().json()["code"] in ("peer_lost", "peer_refused") for p in pending[:2])
    with pytest.raises(httpx.TransportError):
        pending[2].result()
    nodes.start(2)
    again = nodes.ask(job | {"attempt": 2})
    assert [a.status_code for a in again] == [200] * 3, [a.text for a in again]
    found = again[0].json()["openings"]
    assert len({str(a.json()["openings"]) for a in again}) == 1
    wanted = run_plain(
        CIRCUITS[r.circuit],
        {"rows": [fixed(x) for x in r.rows], "holdout": [fixed(r.holdout)]},
        r.params,
    ).openings
    assert found["improved"] == wanted["improved"]
    assert np.max(np.abs(np.subtract(found["phi_milli"], wanted["phi_milli"]))) <= 2
    assert [c.json()["committed"] for c in nodes.commit(again)] == [True] * 3


def test_a_node_that_is_down_fails_a_query_soon_and_it_runs_later(nodes):
    buyer = Buyer(nodes, trained_model(nodes))
    query = buyer.query([[0.5, -1.0]])
    job = buyer.job(query)
    nodes.kill(1)
    answers = nodes.ask(job, nodes=(0, 2), uploads=[query])
    assert [a.json()["code"] for a in answers] == ["peer_lost"] * 2  # "deadline" would be later
    nodes.start(1)
    again = nodes.ask(job | {"attempt": 2}, uploads=[query])
    assert [a.status_code for a in again] == [200] * 3
    assert abs(buyer.open(query, again)[0] - 2.0) < 0.3


def test_a_query_that_only_some_nodes_finished_runs_again(nodes):
    """Node 2 dies after the others have their answer: the buyer still gets one whole answer."""
    buyer = Buyer(nodes, trained_model(nodes))
    query = buyer.query([[0.5, -1.0]])
    job = buyer.job(query)
    first = nodes.ask(job, uploads=[query])
    assert [a.status_code for a in first] == [200] * 3
    nodes.kill(2)
    forget_job(nodes.homes[2], job)
    nodes.start(2)
    again = nodes.ask(job | {"attempt": 2}, uploads=[query])
    assert [a.status_code for a in again] == [200] * 3, [a.text for a in again]
    one, two = buyer.open(query, first), buyer.open(query, again)
    assert abs(one[0] - two[0]) < 0.001
    assert [a.json()["receipt"]["attempt"] for a in again] == [2] * 3


@pytest.mark.parametrize("victim", range(3))
def test_a_node_killed_between_staging_and_commit_commits_after_its_restart(nodes, victim):
    answers = nodes.ask(Round(nodes).put().job())
    assert [a.status_code for a in answers] == [200] * 3
    others = tuple(i for i in range(3) if i != victim)
    nodes.kill(victim)
    assert [c.status_code for c in nodes.commit(answers, nodes=others)] == [200] * 2
    nodes.start(victim)
    job_id = answers[0].json()["receipt"]["job_id"]
    assert nodes.state(victim, job_id)["state"] == "staged"
    committed = nodes.commit(answers)
    assert [c.json()["committed"] for c in committed] == [True] * 3
    model = committed[0].json()["model"]
    buyer = Buyer(nodes, model)
    query = buyer.query([[0.5, -1.0]])
    out = nodes.ask(buyer.job(query), uploads=[query])
    assert abs(buyer.open(query, out)[0] - 2.0) < 0.3


def test_a_result_staged_by_some_only_is_made_again_by_all(nodes):
    """Attempt 1 reached the stores, but one answer was lost: attempt 2 replaces it everywhere."""
    job = Round(nodes).put().job()
    first = nodes.ask(job)
    nodes.kill(0)
    nodes.start(0)
    again = nodes.ask(job | {"attempt": 2})
    assert [a.status_code for a in again] == [200] * 3
    old = nodes.commit(first)
    assert [c.json()["code"] for c in old] == ["receipts_disagree"] * 3
    assert [c.json()["committed"] for c in nodes.commit(again)] == [True] * 3


def test_a_restarted_node_serves_after_a_second_or_so_of_work(nodes):
    """Of the processor's time, which says the same on a machine that has much else to do."""
    nodes.kill(0)
    nodes.start(0)
    assert nodes.http.get(nodes.control[0] + "/health").json()["status"] == "ok"
    stat = Path(f"/proc/{nodes.processes[0].pid}/stat").read_text()
    ticks = sum(map(int, stat.rpartition(")")[2].split()[11:13]))  # user's and system's
    assert ticks < 2.5 * os.sysconf("SC_CLK_TCK")


def test_a_node_without_a_share_spares_the_others_the_wait(nodes):
    r = Round(nodes)
    late = r.uploads["update"][0]
    nodes.put(*r.uploads["update"][1:], *r.uploads["holdout"])
    for i in (0, 1):
        assert nodes.post(i, "/shares", late).status_code == 201
    job = r.job()
    answers = nodes.ask(job)  # "deadline" is what they would say after the wait
    assert [a.json()["code"] for a in answers] == ["peer_refused", "peer_refused", "unknown_share"]
    assert all(a.json()["retryable"] for a in answers)
    nodes.put(late)
    assert [a.status_code for a in nodes.ask(job | {"attempt": 2})] == [200] * 3


def test_a_full_disk_refuses_and_leaves_nothing_half_stored(nodes):
    """The store's own page limit plays the full disk, in a process of the node's code."""
    store = Store(nodes.directory / "full.sqlite", bytes(32))
    store._db.execute("PRAGMA max_page_count = 12")
    words = (np.zeros(10_000, np.uint64), np.zeros(10_000, np.uint64))
    ticket = {"share_id": "00" * 16, "expires_at": 1, "shape": [10_000]}
    with pytest.raises(Unavailable, match="full"):
        store.put_share(ticket=ticket, ticket_id="t", ack={}, words=words)
    assert store.share("00" * 16) is None
    store.put_share(ticket=ticket | {"shape": [1]}, ticket_id="t", ack={}, words=([0], [0]))
    store.close()


def test_a_node_stops_at_once_although_an_idle_client_stays_connected(nodes):
    """The site's processes keep connections open; none of them may hold a stopping node up."""
    with httpx.Client(verify=nodes.tls()) as idle:
        assert idle.get(nodes.control[2] + "/health").status_code == 200
        job = Round(nodes).put().job()
        pending = waiting_job(nodes, job, (0, 1))
        stopping = nodes.processes.pop(2)
        stopping.terminate()
        answers = [p.result() for p in pending]
        assert stopping.wait(60) == 0
        stopping.stdout.close()
    assert [a.json()["code"] for a in answers] == ["peer_lost"] * 2
    nodes.start(2)
