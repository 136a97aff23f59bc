"""The verified ring: every circuit against plain, what a node sees, each cheat caught."""

from itertools import combinations

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES, INFERS
from tests.mpc import test_descent, test_logistic_round, test_model_classes, test_resolutions
from tests.mpc.test_ring_nodes import chi2
from tests.mpc.test_ring_privacy import Tap
from tests.support.ring import four, joined, share, shares_for, threads_of, verified_threads
from workers.mpc import bench
from workers.mpc.engines import ring_verified_net
from workers.mpc.engines.base import Shared
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring_net import Disagreement
from workers.mpc.engines.ring_verified import RingVerified, run_verified
from workers.mpc.engines.ring_verified_net import CROSS, TELL, WITHIN, Cheated, VerifiedNet
from workers.mpc.fixed import encode
from workers.mpc.transport import LocalMesh, PeerLost

NODES = range(4)
SHORT = {"site_rows": (11, 10, 10), "rows": (24,), "bad": False, "epochs": 1, "steps": 2}


def inputs_of(circuit_id):
    """Small inputs of any circuit: (values, params)."""
    name, _, rest = circuit_id.partition("@")[0].partition("_")
    if circuit_id in INFERS:
        return test_resolutions.question(name)[2:]
    if name == "moments":
        return {"sums": [encode(bench.wave(7) * 2.0**k, 20) for k in range(4)]}, {"features": 3}
    if rest == "round" and name == "logistic":
        updates, blocks, params = test_logistic_round.federation(
            7, sites=4, features=3, rows=(24,), strata=2, bad=False
        )
        return test_logistic_round.encoded(updates, blocks), params
    if rest == "round":
        return test_model_classes.federation(name, "taylor", rows=(24,))[-2:]
    values, params = test_descent.federation(name, **SHORT)[2:]
    if rest == "sgd_on":
        weights = CLASSES[name].weights(params)
        values["model"] = [encode(bench.wave(weights) / 4, 24).astype(np.int64)]
        params["normalisation"] = "ab" * 32
    return values, params


@pytest.mark.parametrize("circuit_id", sorted(CIRCUITS))
def test_every_circuit_agrees_with_plain(circuit_id):
    circuit, (values, params) = CIRCUITS[circuit_id], inputs_of(circuit_id)
    outcomes = verified_threads(circuit, values, params)
    plain = run_plain(circuit, values, params)
    assert all(outcome.openings == outcomes[0].openings for outcome in outcomes)
    test_model_classes.agree(outcomes[0].openings, plain.openings)
    # units at f = 16 and 24: a truncation in one layer is multiplied by the next one's weights
    for name, off in (("sealed", 16), ("result", 2**12)):
        wanted = getattr(plain, name)
        assert (getattr(outcomes[0], name) is None) == (wanted is None)
        if wanted is not None:
            found = joined(outcomes, name).astype(np.uint64)
            difference = (found.reshape(-1) - wanted.words[0].reshape(-1)).astype(np.int64)
            assert np.max(np.abs(difference)) <= (off if wanted.f else 0)


# ---- what a node sees ---------------------------------------------------------------------------


def test_ways_cover_every_pair_of_words_once_and_burden_all_alike():
    pairs = sorted(tuple(sorted((way.to, way.absent))) for way in (*CROSS, *WITHIN))
    assert pairs == list(combinations(NODES, 2))
    for way in (*CROSS, *WITHIN, *TELL):
        assert sorted((*way, way.absent)) == list(NODES)
    for part in range(3):
        assert sorted(way[part] for way in CROSS) == list(NODES)


@pytest.mark.parametrize("secret", [0, 65536, -(2**28)])
def test_every_message_that_a_node_receives_is_uniform(secret):
    words = share(np.full(3000, secret), 4)
    taps = [Tap(transport) for transport in LocalMesh(4).transports]

    def work(transport):
        ring = four(transport)
        x = Shared(shares_for(words, transport.me), 16)
        with np.errstate(over="ignore"):
            product = ring.mul(x, x)
            ring.trunc(product, 3)
            ring.clamp(product, -7, 7)
            ring._top_bits(ring.relu(x), 0, 62)
        return True

    assert threads_of(work, taps) == [True] * 4
    for tap in taps:
        for frm, seq, data in tap.seen:
            unit = np.frombuffer(data, np.uint8)
            if seq == 0:
                continue
            if len(data) >= 8 * 3000:
                assert chi2(data) < 400, (tap.me, frm, seq)  # beyond once in 10^8 messages
                continue
            # the last levels of the carry tree use one, two or four bits of each byte
            used = int(np.bitwise_or.reduce(unit))
            ones = [np.mean(unit >> bit & 1) for bit in range(8) if used >> bit & 1]
            assert all(abs(one - 0.5) < 0.06 for one in ones), (tap.me, frm, seq)


def test_what_one_node_holds_of_a_product_is_uniform_whatever_the_secret():
    """Its words of operand and product, each, and their sums."""
    for secret in (0, -(2**28)):
        words = share(np.full(3000, secret), 4)

        def work(transport, words=words):
            x = Shared(shares_for(words, transport.me), 0)
            with np.errstate(over="ignore"):
                product = four(transport).mul(x, x)
                return *product.words, sum(product.words), sum(product.words) + sum(x.words)

        for views in threads_of(work, n=4):
            assert max(chi2(view.tobytes()) for view in views) < 400


def test_sealed_words_are_fresh_and_tell_only_their_sum():
    words = share(np.full(3000, 5), 4)
    before = {j: word for j, word in enumerate(words)}

    def work(transport):
        with np.errstate(over="ignore"):
            return four(transport).refresh(Shared(shares_for(words, transport.me), 0)).words

    answers = threads_of(work, n=4)
    after = {}
    for node, kept in enumerate(answers):
        for j, word in zip([(node + k) % 4 for k in (1, 2, 3)], kept, strict=True):
            np.testing.assert_array_equal(after.setdefault(j, word), word)
    assert set((sum(after.values())).tolist()) == {5}
    for j in NODES:
        assert chi2((after[j] - before[j]).tobytes()) < 400
    for i, j in combinations(NODES, 2):
        assert chi2((after[i] - before[i] + after[j] - before[j]).tobytes()) < 400


# ---- a cheat ------------------------------------------------------------------------------------


class Liar:
    """A member's transport that changes a bit at the end of its message number `which`."""

    def __init__(self, inner, which=None):
        self.inner, self.me, self.n, self.which, self.sent = inner, inner.me, inner.n, which, []

    def send(self, to, seq, data):
        if len(self.sent) == self.which:
            data = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        self.sent.append((to, seq))
        self.inner.send(to, seq, data)

    def recv(self, frm, seq):
        return self.inner.recv(frm, seq)


WORDS = [3 << 16, -7 << 16, 5 << 14]
# rounds of `protocol`: keys 0, product 1, truncation 2 and 3, sign 4 … 13, then
CHECK, OPENING, SETTLE = 14, 15, 16


def protocol(transport, words, *, false=None):
    """A product, a truncation, bits and an opening; whoever is `false` has another word."""
    ring = four(transport)
    mine = shares_for(words, transport.me)
    if transport.me == false:
        mine = (mine[0] + np.uint64(1), *mine[1:])
    x = Shared(mine, 16)
    with np.errstate(over="ignore"):
        product = ring.mul(x, x, f=32)
        opened = ring.open(ring.stack([ring.trunc(product, 16), ring.halve(ring.ltz(x), 16)]))
        ring.settle()
    return opened


def honest(answers, liar):
    return [answer for node, answer in enumerate(answers) if node != liar]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(ring_verified_net, "GRACE_S", 0.0)


def test_the_protocol_that_the_cheats_spoil_has_these_rounds():
    words = share(np.array(WORDS), 4)
    members = [Liar(transport) for transport in LocalMesh(4).transports]
    answers = threads_of(lambda transport: protocol(transport, words), members)
    assert np.abs(answers[0][0] - np.array(WORDS) ** 2 / 2**16).max() <= 1
    assert answers[0][1].tolist() == [0, 1, 0]
    assert {seq for member in members for _, seq in member.sent} == set(range(SETTLE + 1))


@pytest.mark.parametrize("liar", NODES)
def test_whatever_a_node_sends_falsely_is_caught_and_the_pair_named(liar, at_once):
    """Each message of this node in turn: keys, product, truncation, bits, hashes, opening."""
    words = share(np.array(WORDS), 4)
    which, spoilt = 0, set()
    while True:
        mesh = LocalMesh(4)
        members = [Liar(t, which if t.me == liar else None) for t in mesh.transports]
        answers = threads_of(lambda transport: protocol(transport, words), members, mesh=mesh)
        # what is said last, that all is well, has no bytes to change
        if which >= len(members[liar].sent):
            break
        to, seq = members[liar].sent[which]
        which += 1
        spoilt.add(seq)
        found = honest(answers, liar)
        assert all(isinstance(answer, Exception) for answer in found), (to, seq)
        named = [answer for answer in found if isinstance(answer, Cheated)]
        assert all(liar in cheat.suspects for cheat in named), (to, seq)
        latest = max(s for m in members if m.me != liar for _, s in m.sent)
        if 0 < seq < CHECK:
            # all honest ones see it, at the same time, before anything is opened
            assert len(named) == 3 and latest == CHECK, (to, seq)
        elif seq == 0:  # a descriptor, or a key
            assert latest <= CHECK and len(named) in (0, 3), (to, seq)
        else:
            assert isinstance(answers[to], Cheated), (to, seq)
    # in some rounds of bits put in, a node sends nothing
    assert {0, 1, CHECK, OPENING} <= spoilt


@pytest.mark.parametrize("liar", NODES)
def test_a_node_that_computes_on_another_word_is_caught(liar, at_once):
    """Here sender and notes agree with one another, and with nobody else."""
    words = share(np.array(WORDS), 4)
    answers = threads_of(lambda transport: protocol(transport, words, false=liar), n=4)
    assert all(isinstance(answer, Cheated) for answer in honest(answers, liar))
    assert all(liar in answer.suspects for answer in honest(answers, liar))


def test_a_suspect_is_named_for_the_first_false_message_not_for_what_follows(at_once):
    """Node 1's false product makes node 0 send falsely later on: node 0 is not to blame alone."""
    words = share(np.array(WORDS), 4)
    mesh = LocalMesh(4)
    members = [Liar(t, 3 if t.me == 1 else None) for t in mesh.transports]
    answers = threads_of(lambda transport: protocol(transport, words), members, mesh=mesh)
    to, seq = members[1].sent[3]
    assert seq == 1
    assert {answers[node].suspects for node in (0, 2, 3)} == {tuple(sorted((1, to)))}


def test_different_descriptors_are_refused():
    def work(transport):
        VerifiedNet(transport, b"one" if transport.me else b"other")

    assert all(isinstance(answer, Disagreement) for answer in threads_of(work, n=4))


def test_a_message_of_the_wrong_size_names_its_sender():
    def work(transport):
        net = VerifiedNet(transport, b"")
        size = 4 if transport.me == 1 else 3
        part = np.zeros(size, np.uint64)
        known = [(way, (part,) if net.me in (way.frm, way.check) else None) for way in CROSS]
        net.put_in(known, [np.dtype(np.uint64)], size)

    answers = threads_of(work, n=4)
    assert isinstance(answers[0], Cheated) and answers[0].suspects == (0, 1)


def test_a_lost_member_ends_the_job_at_once():
    words = share(np.arange(4), 4)

    def work(transport):
        ring = four(transport)
        if transport.me == 3:
            raise RuntimeError("this member dies")
        return ring.ltz(Shared(shares_for(words, transport.me), 0))

    assert all(isinstance(a, PeerLost | Disagreement) for a in threads_of(work, n=4)[:3])


def test_three_nodes_have_no_verified_mode():
    with pytest.raises(ValueError, match="exactly four"):
        RingVerified(VerifiedNet(LocalMesh(3).transports[0], b""))
    circuit, pair = CIRCUITS["moments@1"], (np.zeros(7, np.uint64),) * 2
    with pytest.raises(ValueError, match="3 arrays"):
        run_verified(circuit, {"sums": [pair] * 3}, {"features": 3}, LocalMesh(4).transports[0])
