"""What nodes make while they have no job, on three real meshes; a job never waits for it."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.node.test_fuzz import spoil
from tests.support.examples import examples
from tests.support.meshes import Net, until
from workers.mpc.engines import shamir, shamir_reserve
from workers.mpc.engines.shamir_reserve import BLOCK
from workers.node import idle as idling
from workers.node.idle import QUESTION, YES, Idle

OF = (1, (0, 1, 2))
MOST = 12


@pytest.fixture
def idles(monkeypatch):
    monkeypatch.setattr(shamir_reserve, "BLOCKS_MAX", MOST)
    monkeypatch.setattr(idling, "AGAIN_S", 0.05)
    net, stopping = Net(), threading.Event()
    idles = []
    for i in range(3):
        idles.append(idle := Idle(net.meshes[i]))
        net.meshes[i].answer, net.meshes[i].lost = idle.answer, idle.lose
    until(lambda: all(len(mesh.peers_up()) == 2 for mesh in net.meshes))
    watching = [threading.Thread(target=idle.watch, args=(stopping,)) for idle in idles]
    for thread in watching:
        thread.start()
    idles.append(net)
    yield idles
    stopping.set()
    for idle, thread in zip(idles, watching):
        idle.stop()
        thread.join()
    net.close()


def kept(idles):
    return [len(idle.reserve) // BLOCK for idle in idles[:3]]


def names(idle):
    return set(idle.reserve._sets[OF])


def job(idles, at=(0, 1, 2)):
    """One has come to these and gone, in which they wanted bits."""
    for i in at:
        idles[i].begin()
        idles[i].reserve.want(OF)
        idles[i].end()


def test_after_a_job_its_members_make_bits_until_they_have_as_many_as_they_keep(idles):
    assert kept(idles) == [0, 0, 0]
    job(idles)
    until(lambda: kept(idles) == [MOST] * 3)
    assert names(idles[0]) == names(idles[1]) == names(idles[2])
    idles[0].reserve.hand_out(OF, 5)
    job(idles)
    until(lambda: kept(idles)[0] == MOST)
    assert names(idles[0]) == names(idles[2])


@pytest.mark.parametrize("at", [0, 2])
def test_a_job_at_any_member_ends_it_and_nothing_is_made_until_it_is_over(idles, monkeypatch, at):
    honest, reached, go_on = shamir.random_bits, threading.Event(), threading.Event()

    def slow(net, count):
        if not go_on.is_set() and len(idles[net.me].reserve) == 2 * BLOCK:
            reached.set()
            go_on.wait(60)
        return honest(net, count)

    monkeypatch.setattr(shamir, "random_bits", slow)
    job(idles)
    assert reached.wait(60)
    idles[at].begin()
    go_on.set()
    until(lambda: not any(idle._making for idle in idles[:3]))
    assert all(count <= 3 for count in kept(idles)), kept(idles)
    before = kept(idles)
    asked = json.dumps({"name": "ab" * 16, "t": 1, "members": [0, 1, 2], "count": 1}).encode()
    assert idles[at]._turn() is None and idles[at].answer(0, QUESTION + asked) == b""
    assert kept(idles) == before
    idles[at].end()
    # The block under way then may be at some of them only.
    until(lambda: len(set.intersection(*map(names, idles[:3]))) >= MOST - 1)


def test_what_was_made_with_a_node_that_is_gone_is_thrown_away_and_made_anew(idles):
    net = idles[3]
    job(idles)
    until(lambda: kept(idles) == [MOST] * 3)
    old = names(idles[0])
    net.restart(1)
    fresh = Idle(net.meshes[1])
    net.meshes[1].answer = fresh.answer
    until(lambda: kept([idles[0], fresh, idles[2]]) == [MOST] * 3)
    assert names(idles[0]) == names(fresh) == names(idles[2])
    assert not old & names(idles[0])


def test_only_a_sets_first_node_may_ask_for_a_set_that_there_can_be(idles):
    good = {"name": "ab" * 16, "t": 1, "members": [0, 1, 2], "count": 1}
    for asker, changes in (
        (1, {}),
        (0, {"name": "ab" * 15}),
        (0, {"t": 9}),
        (0, {"t": 2}),
        (0, {"members": [0, 2, 1]}),
        (0, {"members": [0, 1, 1, 2]}),
        (0, {"members": [0, 1, 3]}),
        (0, {"members": [0, 1, True]}),
        (0, {"members": [0, 2, 4]}),
        (0, {"count": 0}),
        (0, {"count": idling.AT_ONCE + 1}),
        (0, {"count": True}),
    ):
        question = QUESTION + json.dumps(good | changes).encode()
        assert idles[2].answer(asker, question) == b"", (asker, changes)
    assert idles[2].answer(0, QUESTION + json.dumps(good).encode()) == YES
    idles[2].begin()  # which ends it: nobody else has begun
    until(lambda: not idles[2]._making)


def test_spoilt_questions_get_no_answer_and_nothing_stops(idles):
    good = {"name": "ab" * 16, "t": 1, "members": [0, 1, 2], "count": 1}
    rng = random.Random(1)
    for _ in range(examples(300)):
        bad = spoil(good, rng)
        question = rng.choice((json.dumps(bad).encode(), rng.randbytes(rng.randrange(60))))
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # no answer
            said = idles[2].answer(0, QUESTION + question)
            assert said == b"" or {*good} <= {*bad}, bad
        idles[2].begin()  # if it said yes, nobody comes
        idles[2].end()
        until(lambda: not idles[2]._making)
    job(idles)
    until(lambda: kept(idles) == [MOST] * 3)


def test_whoever_asks_for_bits_under_a_jobs_name_does_not_meet_that_job(idles):
    """Node 0 knows what the others' next attempt without it is called."""
    name, meshes = bytes(range(16)), idles[3].meshes
    asked = {"name": name.hex(), "t": 1, "members": [0, 1, 2], "count": 1}
    assert idles[1].answer(0, QUESTION + json.dumps(asked).encode()) == YES
    until(lambda: idles[1]._session is not None)
    with ThreadPoolExecutor() as threads:
        jobs = [
            threads.submit(meshes[i].open, name, deadline=time.monotonic() + 60, members=(1, 2))
            for i in (1, 2)
        ]
        for job in jobs:
            job.result().close()
    idles[1].begin()
    until(lambda: not idles[1]._making)
