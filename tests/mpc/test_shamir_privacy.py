"""What a Shamir node receives tells nothing; what it is sent is checked; jobs do not mix."""

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, BadParams
from tests.support.shamir import SETTINGS, SURVIVORS, THREE, shared_values, threads
from workers.mpc import bench, shamir_shares
from workers.mpc.engines import field89, shamir, shamir_codec
from workers.mpc.engines.base import Shared
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.shamir_net import Net
from workers.mpc.shamir_shares import WrongShare
from workers.mpc.transport import LocalMesh, PeerLost, SocketTransport, socket_pairs

P = field89.P
ROOT = Path(__file__).resolve().parents[2]


class Tap:
    """A member's transport that keeps what it receives and may bend what it sends."""

    def __init__(self, inner, bend=None):
        self.inner, self.me, self.n, self.seen, self.bend = inner, inner.me, inner.n, [], bend

    def send(self, to, seq, data):
        self.inner.send(to, seq, self.bend(seq, data) if self.bend else data)

    def recv(self, frm, seq):
        data = self.inner.recv(frm, seq)
        self.seen.append((frm, seq, data))
        return data


def engine(transport, setting=THREE, context=b""):
    _, t, members = setting
    return shamir.Shamir(Net(transport, members, t, shamir.weights, context))


# -- codec --------------------------------------------------------------------------------------


def test_codec_returns_what_was_sent():
    values = [0, 1, P - 1, 2**88, 2**60 - 1, 12345]
    data = shamir_codec.encoded(field89.of_ints(values))
    assert len(data) == 12 * len(values)
    assert field89.to_ints(shamir_codec.decoded(data, len(values))) == values
    # slack numbers are sent reduced: p is 0
    slack = tuple(np.array([mask], np.uint64) for mask in field89.MASKS)
    assert shamir_codec.encoded(slack) == bytes(12)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(11), "11 bytes instead of 12"),
        (bytes(24), "24 bytes instead of 12"),
        (b"", "0 bytes instead of 12"),
        ((2**30).to_bytes(4, "little") + bytes(8), "beyond the field"),
        (bytes(4) + (2**30).to_bytes(4, "little") + bytes(4), "beyond the field"),
        (bytes(8) + (2**29).to_bytes(4, "little"), "beyond the field"),
        (b"\xff" * 12, "beyond the field"),
        (b"".join(mask.to_bytes(4, "little") for mask in field89.MASKS), "not reduced"),
        (b"\x80\x04K\x01.".ljust(13, b"."), "13 bytes instead of 12"),
    ],
)
def test_codec_refuses_what_no_honest_member_sends(data, why):
    with pytest.raises(shamir_codec.Malformed, match=why):
        shamir_codec.decoded(data, 1)


@pytest.mark.parametrize(
    "bend",
    [lambda data: data[:-1], lambda data: data + bytes(12), lambda data: b"\xff" * len(data)],
    ids=["short", "long", "beyond the field"],
)
def test_a_malformed_message_ends_the_job_and_names_its_sender(bend):
    mesh = LocalMesh(3)
    taps = [Tap(transport) for transport in mesh.transports]
    taps[2].bend = lambda seq, data: bend(data) if seq else data
    words = shamir_shares.split(np.arange(4), n=3, t=1)

    def work(transport):
        mine = Shared(words[transport.me], 0)
        return engine(taps[transport.me]).mul(mine, mine)

    answers = threads(work, 3)
    for answer in answers[:2]:
        assert isinstance(answer, Disagreement) and "node 2 sent" in str(answer)


# -- openings -----------------------------------------------------------------------------------


def open_with_a_liar(setting, liar):
    """Each member's answer when `liar` (a place) adds 1 to the second of its three shares."""
    n, t, members = setting
    words = shamir_shares.split(np.array([7, -8, 9]), n=n, t=t)

    def work(transport):
        net = Net(transport, members, t, shamir.weights, b"")
        share = words[members[transport.me]]
        if transport.me == liar:
            share = field89.add(share, field89.of_ints([0, 1, 0]))
        return field89.to_words(net.open(share)).astype(np.int64).tolist()

    return threads(work, len(members))


@pytest.mark.parametrize("liar", [0, 1, 2])
def test_a_wrong_share_is_detected_by_three(liar):
    for answer in open_with_a_liar(THREE, liar):
        assert isinstance(answer, WrongShare)
        assert answer.culprits == ()


@pytest.mark.parametrize("setting", [SETTINGS[2], SETTINGS[1], (5, 1, (0, 1, 3, 4))], ids=str)
def test_a_wrong_share_is_named_where_there_are_enough(setting):
    """Five nodes name it at t = 1 and t = 2; four at t = 1 too: (m − t − 1)/2 ≥ 1."""
    members = setting[2]
    for liar in (0, 2, len(members) - 1):
        for answer in open_with_a_liar(setting, liar):
            assert isinstance(answer, WrongShare)
            assert answer.culprits == (members[liar],)
            assert f"node {members[liar]}" in str(answer)


@pytest.mark.parametrize(
    "setting", [THREE, SETTINGS[1], SURVIVORS, (7, 2, (0, 2, 3, 5, 6))], ids=str
)
def test_inputs_that_are_no_sharing_are_found_before_anything_is_computed(setting):
    """Of many at once, each by itself; and one that a single member holds wrong is laid to it."""
    n, t, members = setting
    honest = [shamir_shares.split(np.arange(k + 1), n=n, t=t) for k in range(4)]
    honest[1] = shamir_shares.split(np.arange(2), n=n, t=t + 1)  # of a higher degree
    last = members[-1]
    honest[3][last] = field89.add(honest[3][last], field89.of_ints([0, 0, 1, 0]))

    def work(transport):
        net = Net(transport, members, t, shamir.weights, b"")
        return net.misfits([shares[members[transport.me]] for shares in honest])

    enough = (len(members) - t - 1) // 2 >= 1
    for found in threads(work, len(members)):
        assert set(found) == {1, 3}
        assert found[3] == ((last,) if enough else ())


def test_honest_shares_open():
    for setting in SETTINGS:
        answers = open_with_a_liar(setting, None)
        assert answers == [[7, -8, 9]] * len(setting[2])


# -- transcripts --------------------------------------------------------------------------------


def limb_counts(limbs):
    """How often each value of the low byte and of the top byte comes up."""
    l0, _, l2 = field89.reduced(limbs)
    low = np.bincount((l0 & np.uint64(255)).astype(np.int64), minlength=256)
    return low, np.bincount((l2 >> np.uint64(21)).astype(np.int64), minlength=256)


def chi2_uniform(counts):
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def chi2_alike(a, b):
    """Two samples of one size from one distribution? 255 degrees of freedom."""
    return float(((a - b) ** 2 / (a + b)).sum())


@pytest.mark.parametrize("t", [1, 2])
def test_shares_of_two_secrets_are_distributed_alike(t):
    size = 200_000
    for node in range(5):
        samples = [
            limb_counts(shamir_shares.split(np.full(size, secret), n=5, t=t)[node])
            for secret in (0, -(2**61))
        ]
        for one, other in zip(*samples, strict=True):
            # 255 degrees of freedom: beyond 400 once in 10^8
            assert chi2_uniform(one) < 400 and chi2_uniform(other) < 400
            assert chi2_alike(one, other) < 400


def test_two_shares_together_do_tell_at_t_1():
    """The measure above can fail: f(2) − 2·f(1) is −f(0)."""
    shares = shamir_shares.split(np.full(2000, 77), n=3, t=1)
    told = field89.sub(field89.times_small(shares[0], 2), shares[1])
    assert set(field89.to_ints(told)) == {77}
    assert chi2_uniform(limb_counts(told)[0]) > 400


def everything(shamir_engine, x):
    """One of each kind of message except declared openings."""
    product = shamir_engine.mul(x, x)
    shamir_engine.trunc(product, 3)
    shamir_engine.ltz(x)
    shamir_engine._top_bits(shamir_engine.mul(x, x, f=32), 0, 62)
    shamir_engine.refresh(x)


@pytest.mark.parametrize("secret", [0, 65536, -(2**28)])
@pytest.mark.parametrize("setting", [THREE, SURVIVORS], ids=str)
def test_every_message_that_a_node_receives_is_uniform(setting, secret):
    n, t, members = setting
    size = 1000
    words = shamir_shares.split(np.full(size, secret), n=n, t=t)
    taps = [Tap(transport) for transport in LocalMesh(len(members)).transports]

    def work(transport):
        mine = Shared(words[members[transport.me]], 16)
        everything(engine(taps[transport.me], setting), mine)
        return True

    assert threads(work, len(members)) == [True] * len(members)
    looked = 0
    for tap in taps:
        for frm, seq, data in tap.seen:
            if seq == 0:
                continue
            for counts in limb_counts(shamir_codec.decoded(data, len(data) // 12)):
                # blinded zero products are opened: shares of 0 are as uniform as any
                assert chi2_uniform(counts) < 420, (tap.me, frm, seq, len(data))
                looked += 1
    assert looked > 100


# -- jobs ---------------------------------------------------------------------------------------


# dealt here, once: members that ask at the same time must get parts of one sharing
SMALL_SHARES = {
    (n, t): shared_values(bench.inference(2, features=3).values, n, t) for n, t, _ in SETTINGS
}


def run_small(transport, *, setting=THREE, context=b"", params=None, shares=None):
    n, t, members = setting
    work = bench.inference(2, features=3)
    if shares is None:
        shared, node = SMALL_SHARES[n, t], members[transport.me]
        shares = {slot: [item[node] for item in items] for slot, items in shared.items()}
    return shamir.run_shamir(
        work.circuit,
        shares,
        work.params if params is None else params,
        transport,
        t=t,
        members=members,
        context=context,
    )


def test_members_that_disagree_on_the_job_end_it():
    for differ in ("context", "members"):

        def work(transport, differ=differ):
            odd = transport.me == 1
            return run_small(
                transport,
                context=b"other" if odd and differ == "context" else b"",
                setting=(5, 1, (0, 1, 4)) if odd and differ == "members" else (5, 1, (0, 1, 2)),
            )

        for answer in threads(work, 3):
            # whoever leaves first is gone for the slowest
            assert isinstance(answer, Disagreement | PeerLost), differ
        assert any(isinstance(answer, Disagreement) for answer in threads(work, 3))


def test_jobs_at_once_do_not_mix():
    """Twelve jobs over the same members, each on a session of its own, started in any order."""
    wanted = None
    answers = {}

    def job(number):
        answers[number] = threads(
            lambda transport: run_small(transport, context=bytes([number])), 3
        )

    running = [threading.Thread(target=job, args=(number,)) for number in range(12)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for outcomes in answers.values():
        opened = shamir_shares.join({node: outcome.sealed for node, outcome in enumerate(outcomes)})
        wanted = opened.astype(np.int64) if wanted is None else wanted
        assert np.max(np.abs(opened.astype(np.int64) - wanted)) <= 1
    # fresh randomness in every job
    assert len({outcomes[0].sealed[0].tobytes() for outcomes in answers.values()}) == 12


@pytest.mark.parametrize("after", [0, 3, 11, 30])
def test_a_lost_member_ends_the_job_at_the_others_within_a_second(after):
    """It dies with `after` messages sent; the others hear it from the closed sockets."""
    transports = [SocketTransport(me, peers) for me, peers in enumerate(socket_pairs(3))]
    sent, died, ended = itertools.count(), [], {}

    def dies(seq, data):
        if next(sent) == after:
            died.append(time.monotonic())
            transports[2].close()
            raise RuntimeError("killed")
        return data

    def work(transport):
        mine = transports[transport.me]
        try:
            return run_small(Tap(mine, dies) if transport.me == 2 else mine)
        finally:
            ended[transport.me] = time.monotonic()
            # who leaves tells so, as a node's session does: others may be waiting for it
            mine.close()

    answers = threads(work, 3)
    assert all(isinstance(answer, PeerLost) for answer in answers[:2]), answers
    assert max(ended[0], ended[1]) - died[0] < 1


def test_wrong_inputs_are_refused():
    transport = LocalMesh(3).transports[0]
    shared = SMALL_SHARES[3, 1]
    good = {slot: [item[0] for item in items] for slot, items in shared.items()}
    with pytest.raises(BadParams):
        run_small(transport, params={"features": 0, "rows": 1}, shares=good)
    with pytest.raises(ValueError, match="size"):
        run_small(transport, params={"features": 3, "rows": 3}, shares=good)
    with pytest.raises(ValueError, match="too few"):
        run_small(transport, shares={"model": good["model"]})
    big = tuple(limb + np.uint64(1 << 40) for limb in good["row"][0])
    with pytest.raises(ValueError, match="reduced"):
        run_small(transport, shares={**good, "row": [big]})
    with pytest.raises(ValueError, match="three arrays"):
        run_small(transport, shares={**good, "row": [good["row"][0][:2]]})
    for members, t in (((0, 1, 1), 1), ((0, 2, 1), 1), ((0, 1), 1), ((0, 1, 2), 2), ((0, 1, 2), 0)):
        with pytest.raises(ValueError, match=r"members|live nodes"):
            run_small(transport, setting=(3, t, members), shares=good)


def test_any_t_plus_1_shares_give_the_secret_back():
    values = np.array([0, 1, -1, 2**62, -(2**63), 2**63 - 1])
    for n, t, members in SETTINGS:
        shares = shamir_shares.split(values, n=n, t=t)
        few = {node: shares[node] for node in members[-t - 1 :]}
        np.testing.assert_array_equal(shamir_shares.join(few).astype(np.int64), values)


def test_recombination_is_mpycs_and_lagranges():
    for points in ((1, 2, 3), (2, 4, 5), (1, 2, 3, 4, 5)):
        for at in (0, 7):
            vector = shamir.weights(points, at)
            for degree in range(len(points)):
                value = sum(w * point**degree for w, point in zip(vector, points, strict=True))
                assert value % P == at**degree % P


def test_mpyc_leaves_arguments_logging_and_event_loops_alone():
    """Importing it plainly parses sys.argv, adds a log handler and sets uvloop's policy."""
    script = """
import asyncio, logging, sys
before = (type(asyncio.get_event_loop_policy()), logging.getLogger().handlers[:],
          logging.getLogger().level)
from workers.mpc.engines import shamir
assert not any(name.split(".")[0] == "mpyc" for name in sys.modules)
assert shamir.weights((1, 2), 0) == [2, 2**89 - 2]
assert sys.modules["mpyc.thresha"]
assert sys.argv[1:] == ["-P", "solo", "-h"], sys.argv
assert before == (type(asyncio.get_event_loop_policy()), logging.getLogger().handlers,
                  logging.getLogger().level)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, "-P", "solo", "-h"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_of_it_reaches_the_log(caplog):
    with caplog.at_level(logging.DEBUG):
        threads(run_small, 3)
    assert caplog.records == []
    assert {"moments@1", "logistic_round@1", "logistic_infer@1"} <= set(CIRCUITS)
