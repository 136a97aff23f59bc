"""What one node receives is uniform, and the same for different secrets; mismatches are refused."""

import hashlib

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, BadParams
from tests.support.ring import share, shares_for, threads_of
from workers.mpc.engines import ring_signs
from workers.mpc.engines.base import Shared
from workers.mpc.engines.ring import Disagreement, Ring, run_ring
from workers.mpc.engines.ring_net import Net
from workers.mpc.transport import LocalMesh, PeerLost


class Tap:
    """A member's transport that keeps all it receives."""

    def __init__(self, inner):
        self.inner, self.me, self.n, self.seen = inner, inner.me, inner.n, []

    def send(self, to, seq, data):
        self.inner.send(to, seq, data)

    def recv(self, frm, seq):
        data = self.inner.recv(frm, seq)
        self.seen.append((frm, seq, data))
        return data


def everything(ring, x):
    """One of each kind of message except openings."""
    product = ring.mul(x, x)
    ring.trunc(product, 3)
    ring.clamp(product, -7, 7)
    ring._top_bits(ring.relu(x), 0, 62)
    ring.refresh(x)


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("secret", [0, 65536, -(2**28)])
def test_every_message_that_a_node_receives_is_uniform(secret, few, monkeypatch):
    """Signs by products of bits, and by tables."""
    monkeypatch.setattr(ring_signs, "FEW", few)
    words = share(np.full(3000, secret))
    taps = [Tap(transport) for transport in LocalMesh().transports]

    def work(transport):
        net = Net(transport, b"")
        with np.errstate(over="ignore"):
            everything(Ring(net), Shared(shares_for(words, transport.me), 16))
        return True

    assert threads_of(work, taps) == [True] * 3
    for tap in taps:
        for frm, seq, data in tap.seen:
            if seq == 0:
                continue
            unit = np.frombuffer(data, np.uint8)
            if len(data) < 8 * 3000:
                # the last levels of the carry tree use one, two or four bits of each byte
                used = int(np.bitwise_or.reduce(unit))
                ones = [np.mean(unit >> bit & 1) for bit in range(8) if used >> bit & 1]
                assert all(abs(one - 0.5) < 0.06 for one in ones), (tap.me, frm, seq)
                continue
            counts = np.bincount(unit, minlength=256)
            chi2 = float(((counts - len(unit) / 256) ** 2 / (len(unit) / 256)).sum())
            # 255 degrees of freedom: beyond 400 once in 10^8 messages
            assert chi2 < 400, (tap.me, frm, seq, len(data), chi2)


def test_dealt_parts_are_uniform_word_by_word():
    """Small numbers are dealt in a truncation: their shares must still fill the word."""
    words = share(np.full(20000, 123))
    tap = [Tap(transport) for transport in LocalMesh().transports]

    def work(transport):
        with np.errstate(over="ignore"):
            Ring(Net(transport, b"")).trunc(Shared(shares_for(words, transport.me), 60), 0)

    threads_of(work, tap)
    for member in tap[:2]:
        for frm, seq, data in member.seen:
            if seq:
                top = np.frombuffer(data, np.uint64) >> np.uint64(56)
                assert len(np.unique(top)) == 256, (member.me, frm, seq)


def test_shares_of_one_node_are_uniform():
    words = share(np.zeros(10**6 // 8, np.int64))
    for word in words:
        counts = np.bincount(np.frombuffer(word.tobytes(), np.uint8), minlength=256)
        expected = word.size * 8 / 256
        assert float(((counts - expected) ** 2 / expected).sum()) < 400


def test_different_descriptors_are_refused():
    def work(transport):
        Net(transport, b"one" if transport.me else b"other")

    assert all(isinstance(answer, Disagreement) for answer in threads_of(work))


def test_a_false_word_in_an_opening_is_noticed():
    words = share(np.arange(4))

    def work(transport):
        first, second = shares_for(words, transport.me)
        if transport.me == 1:
            first = first + np.uint64(1)
        return Ring(Net(transport, b"")).open(Shared((first, second), 0))

    answers = threads_of(work)
    # word 2 is what node 2 lacks: nodes 0 and 1 told it different things
    assert isinstance(answers[2], Disagreement)


def test_what_is_opened_of_a_sign_is_uniform_whatever_the_sign():
    """The last message of a comparison: all three parts together are the sign, masked."""
    for value in (5, -5):
        words = share(np.full(3000, value))
        taps = [Tap(transport) for transport in LocalMesh().transports]

        def work(transport, words=words):
            with np.errstate(over="ignore"):
                Ring(Net(transport, b"")).ltz(Shared(shares_for(words, transport.me), 0))

        threads_of(work, taps)
        last = [
            {frm: np.frombuffer(data, np.uint8) for frm, seq, data in tap.seen if seq == 7}
            for tap in taps
        ]
        opened = last[0][1] ^ last[0][2] ^ last[1][0]
        assert set(opened.tolist()) == {0, 1}
        assert abs(opened.mean() - 0.5) < 0.06


def test_a_lost_member_ends_the_job_at_once():
    words = share(np.arange(4))

    def work(transport):
        ring = Ring(Net(transport, b""))
        if transport.me == 2:
            raise RuntimeError("this member dies")
        return ring.ltz(Shared(shares_for(words, transport.me), 0))

    answers = threads_of(work)
    assert isinstance(answers[0], PeerLost | Disagreement)
    assert isinstance(answers[1], PeerLost | Disagreement)


def test_a_message_of_the_wrong_size_is_refused():
    def work(transport):
        net = Net(transport, b"")
        net.pass_left(np.zeros(3 if transport.me == 0 else 4, np.uint64))

    answers = threads_of(work)
    assert isinstance(answers[2], Disagreement)


def test_wrong_parameters_and_shapes_never_reach_the_network():
    circuit = CIRCUITS["moments@1"]
    transport = LocalMesh().transports[0]
    with pytest.raises(BadParams):
        run_ring(circuit, {"sums": []}, {"features": -1}, transport)
    with pytest.raises(ValueError, match="too few"):
        run_ring(circuit, {"sums": []}, {"features": 1}, transport)
    short = (np.zeros(2, np.uint64), np.zeros(2, np.uint64))
    with pytest.raises(ValueError, match="size"):
        run_ring(circuit, {"sums": [short] * 3}, {"features": 1}, transport)


def test_fresh_words_leave_the_engine():
    """The sealed words of two runs on the same shares differ in every place."""
    circuit, params = CIRCUITS["logistic_infer@1"], {"features": 3, "rows": 2}
    model, row = share(np.zeros(4)), share(np.zeros((2, 3)))

    def work(transport):
        shares = {
            "model": [shares_for(model, transport.me)],
            "row": [shares_for(row, transport.me)],
        }
        return run_ring(circuit, shares, params, transport).sealed

    one, two = threads_of(work), threads_of(work)
    digests = {
        hashlib.sha256(word.tobytes()).digest() for run in (one, two) for p in run for word in p
    }
    assert len(digests) == 6
