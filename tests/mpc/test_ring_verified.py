"""The verified ring: every circuit against plain, what a node sees, each cheat caught."""

from itertools import combinations

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES, INFERS
from tests.mpc import (
    test_descent,
    test_logistic_round,
    test_model_classes,
    test_network_round,
    test_resolutions,
)
from tests.mpc.test_ring_nodes import chi2
from tests.mpc.test_ring_privacy import Tap
from tests.support.ring import four, joined, share, shares_for, threads_of, verified_threads
from workers.mpc import bench
from workers.mpc.engines import ring_verified_net, ring_verified_signs
from workers.mpc.engines.base import Shared
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring_verified import RingVerified, run_verified
from workers.mpc.engines.ring_verified_net import (
    ACROSS,
    CROSS,
    DIGEST_BYTES,
    REVEAL,
    WITHIN,
    Cheated,
    VerifiedNet,
    Way,
)
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
    if rest == "round" and CLASSES[name].hidden:
        return test_network_round.federation(name, rows=(24,))[-2:]
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
    for way in (*CROSS, *WITHIN, *ACROSS, *REVEAL):
        assert sorted((*way, way.absent)) == list(NODES)
    for part in range(3):
        for ways in (CROSS, ACROSS):
            assert sorted(way[part] for way in ways) == list(NODES)
        assert sorted(way[part] for way in REVEAL) == sorted([*NODES] * 3)
    # of a message only what is told in one round on one way is told together
    for ways in ({*CROSS, *ACROSS}, {*CROSS, *WITHIN}, {*REVEAL}):
        assert len({(way.frm, way.to) for way in ways}) == len(ways)
    assert {(way.to, way.absent) for way in REVEAL} == {
        (i, j) for i in NODES for j in NODES if i != j
    }


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("secret", [0, -(2**28)])
def test_every_message_that_a_node_receives_is_uniform(secret, few, monkeypatch):
    """Signs by products of bits, and by tables."""
    monkeypatch.setattr(ring_verified_signs, "FEW", few)
    words = share(np.full(3000, secret), 4)
    taps = [Tap(transport) for transport in LocalMesh(4).transports]

    def work(transport):
        ring = four(transport)
        x = Shared(shares_for(words, transport.me), 16)
        with np.errstate(over="ignore"):
            product = ring.mul(x, x)
            ring.trunc(product, 3)
            ring.ltz(product)
            ring._top_bits(x, 0, 62)
        return True

    assert threads_of(work, taps) == [True] * 4
    for tap in taps:
        for frm, seq, data in tap.seen:
            data = data[len(data) % 3000 :]  # without the notes before it
            if seq == 0 or not data:
                continue
            unit = np.frombuffer(data, np.uint8)
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
    """A member's transport that changes a bit of its message number `which`: the last one, or the
    first, where its notes are."""

    def __init__(self, inner, which=None, place=-1):
        self.inner, self.me, self.n = inner, inner.me, inner.n
        self.which, self.place, self.sent = which, place, []

    def send(self, to, seq, data):
        if len(self.sent) == self.which:
            data = bytearray(data)
            data[self.place] ^= 1
        self.sent.append((to, seq, len(data)))
        self.inner.send(to, seq, data)

    def recv(self, frm, seq):
        return self.inner.recv(frm, seq)


WORDS = [3 << 16, -7 << 16, 5 << 14]
# Whether signs are taken by tables, and the rounds of `protocol`: keys 0, product 1, truncation 2,
# sign 3 …, then a check, the opening and the end.
MODES = pytest.mark.parametrize(("few", "check"), [(10, 7), (0, 9)])


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(ring_verified_net, "GRACE_S", 0.0)


def protocol(transport, words, *, false=None, net=VerifiedNet):
    """A product, a truncation, bits and an opening; whoever is `false` has another word."""
    ring = RingVerified(net(transport, b"test"))
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


@MODES
def test_the_protocol_that_the_cheats_spoil_has_these_rounds(few, check, monkeypatch):
    monkeypatch.setattr(ring_verified_signs, "FEW", few)
    words = share(np.array(WORDS), 4)
    members = [Liar(transport) for transport in LocalMesh(4).transports]
    answers = threads_of(lambda transport: protocol(transport, words), members)
    assert np.abs(answers[0][0] - np.array(WORDS) ** 2 / 2**16).max() <= 1
    assert answers[0][1].tolist() == [0, 1, 0]
    assert {seq for member in members for _, seq, _ in member.sent} == set(range(check + 3))


class Spoiler(VerifiedNet):
    """Changes a bit of part number `which` of its messages, and notes what it should be."""

    def __init__(self, transport, context, which):
        self.which, self.parts = which, []
        super().__init__(transport, context)

    def _round(self, messages, sizes):
        spoilt = {
            to: [self._spoilt(to, at, part) for at, part in enumerate(parts)]
            for to, parts in messages.items()
        }
        return super()._round(spoilt, sizes)

    def _spoilt(self, to, at, part):
        part = bytearray(part)
        if len(self.parts) == self.which:
            part[len(part) // 2] ^= 1
        self.parts.append((self.rounds, to, at))
        return part


@MODES
@pytest.mark.parametrize("liar", NODES)
def test_every_part_of_every_message_that_is_false_shows_in_the_next_round(
    few, check, liar, at_once, monkeypatch
):
    """Products, what goes across and the masks' product, halves, bits, what is revealed: whatever
    this node tells one other falsely, all honest ones name the two, and tell no notes of it."""
    monkeypatch.setattr(ring_verified_signs, "FEW", few)
    words, seen, which = share(np.array(WORDS), 4), [], 0
    while True:
        nets, mesh = {}, LocalMesh(4)
        members = [Liar(transport) for transport in mesh.transports]

        def net(transport, context, nets=nets, which=which):
            nets[transport.me] = Spoiler(
                transport, context, which if transport.me == liar else None
            )
            return nets[transport.me]

        def work(transport, net=net):
            return protocol(transport, words, net=net)

        answers = threads_of(work, members, mesh=mesh)
        if which >= len(nets[liar].parts):
            break
        seq, to, at = nets[liar].parts[which]
        which += 1
        if seq > check:  # an opening: `missing` compares it at once, at who is told
            assert isinstance(answers[to], Cheated) and liar in answers[to].suspects
            continue
        seen.append((seq, to, at))
        assert [a.suspects for a in honest(answers, liar)] == [tuple(sorted((liar, to)))] * 3
        assert max(s for m in members if m.me != liar for _, s, _ in m.sent) == seq + 1
    # in each round, to each of the two or three others that it tells anything
    told = {seq: {to for s, to, _ in seen if s == seq} for seq in range(1, check)}
    many = 2 if liar in (1, 3) else 1  # these tell the products inside A and B
    assert [len(told[seq]) for seq in (1, 2, 3)] == [many, 2, 2] and len(told[check - 1]) == 3
    # halves and top bits in one message, facts and the random bit in one
    assert len([1 for seq, _, _ in seen if seq == 3]) == 4
    assert len([1 for seq, _, _ in seen if seq == 2]) == 1 + many


@MODES
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("liar", NODES)
def test_whatever_a_node_sends_falsely_is_caught(few, check, liar, place, at_once, monkeypatch):
    """Each message of this node in turn, at its end, and at its beginning: keys, notes, hashes."""
    monkeypatch.setattr(ring_verified_signs, "FEW", few)
    words, which = share(np.array(WORDS), 4), 0
    while True:
        mesh = LocalMesh(4)
        members = [Liar(t, which if t.me == liar else None, place) for t in mesh.transports]
        answers = threads_of(lambda transport: protocol(transport, words), members, mesh=mesh)
        # what is said last, that all is well, has no bytes to change
        if which >= len(members[liar].sent):
            break
        to, seq, size = members[liar].sent[which]
        which += 1
        found = honest(answers, liar)
        assert all(isinstance(answer, Exception) for answer in found), (to, seq)
        named = [answer for answer in found if isinstance(answer, Cheated)]
        assert all(liar in cheat.suspects for cheat in named), (to, seq)
        latest = max(s for m in members if m.me != liar for _, s, _ in m.sent)
        assert latest <= seq + 1, (to, seq)
        if seq == 0:  # a descriptor, or a key after it
            assert len(named) == (3 if place == -1 and size > DIGEST_BYTES else 0), to
        else:
            assert isinstance(answers[to], Cheated), (to, seq)


@pytest.mark.parametrize("liar", NODES)
def test_a_node_that_computes_on_another_word_is_caught(liar, at_once):
    """Here sender and notes agree with one another, and with nobody else."""
    words = share(np.array(WORDS), 4)
    answers = threads_of(lambda transport: protocol(transport, words, false=liar), n=4)
    assert all(isinstance(answer, Cheated) for answer in honest(answers, liar))
    assert all(liar in answer.suspects for answer in honest(answers, liar))


def test_a_suspect_is_named_for_the_first_false_message_not_for_what_follows(at_once):
    """What node 1 tells falsely has its receiver send falsely too, with the notes: not to blame."""
    words, at = share(np.array(WORDS), 4), 5
    mesh = LocalMesh(4)
    members = [Liar(t, at if t.me == 1 else None) for t in mesh.transports]
    answers = threads_of(lambda transport: protocol(transport, words), members, mesh=mesh)
    to, seq, _ = members[1].sent[at]
    assert seq == 1
    assert {answers[node].suspects for node in (0, 2, 3)} == {tuple(sorted((1, to)))}


ROW = 3


class Attacker:
    """Role 1's transport: changes the lowest bit of all numbers of one message, and hears all."""

    to = 0

    def __init__(self, inner, *, goes):
        self.inner, self.me, self.n, self.goes = inner, inner.me, inner.n, goes
        self.armed, self.since = False, None

    def send(self, to, seq, data):
        if self.armed and to == self.to:
            size = 2 * ROW  # two comparisons a number, a byte each
            changed = np.frombuffer(data[-size:], np.uint8) ^ np.uint8(1)
            data, self.armed, self.since = data[:-size] + changed.tobytes(), False, seq
        if self.goes and self.since is not None and seq > self.since:
            return  # its notes, it keeps to itself
        self.inner.send(to, seq, data)

    def recv(self, frm, seq):
        return self.inner.recv(frm, seq)


class Hears:
    """An honest member's transport; what it tells the attacker is written down."""

    def __init__(self, inner, heard):
        self.inner, self.me, self.n, self.heard = inner, inner.me, inner.n, heard

    def send(self, to, seq, data):
        if to == 1:
            self.heard.append((self.me, seq, bytes(data)))
        self.inner.send(to, seq, data)

    def recv(self, frm, seq):
        return self.inner.recv(frm, seq)


@pytest.mark.parametrize("goes", [False, True])
def test_notes_tell_nothing_of_a_secret_to_who_cheats_on_purpose(goes, at_once):
    """Node 1 tells node 0 false bits in the last round before a sign is revealed. What node 0
    checks then differs from what node 3 sends node 1 by these times bits that node 1 lacks: one of
    64 guesses would have the digest that node 0 notes. Honest nodes do not tell it; nor do they
    take a node that goes with their notes for one that is merely dead."""
    words, heard, mesh = share(np.array([3 << 16, -7 << 16, 5 << 14]), 4), [], LocalMesh(4)
    attacker = Attacker(mesh.transports[1], goes=goes)
    members = [attacker if t.me == 1 else Hears(t, heard) for t in mesh.transports]
    salts = {}

    def work(transport):
        ring = four(transport)
        if transport is attacker:
            salts.update(ring.net._salts)
            bits_and, calls = ring.bits_and, []

            def false(x, y):
                calls.append(1)
                attacker.armed = len(calls) == 2  # the third level is the one revealed
                return bits_and(x, y)

            ring.bits_and = false
        x = Shared(shares_for(words, transport.me), 16)
        with np.errstate(over="ignore"):
            clamped = ring.clamp(x, -8 << 16, 8 << 16)
            ring.settle()
        return clamped

    answers = threads_of(work, members, mesh=mesh)
    assert attacker.since is not None and len(salts) == 3
    assert all(isinstance(answer, Cheated) for answer in honest(answers, 1)), answers
    assert all(1 in answer.suspects for answer in honest(answers, 1))
    told = b"".join(data for _, _, data in heard)
    revealed = [data[-2 * ROW :] for _, seq, data in heard if seq == attacker.since + 1]
    assert len(revealed) == 3 and Way(1, 3, 0) in REVEAL
    for message in revealed:
        for guess in range(1 << 2 * ROW):
            bits = [guess >> at & 1 for at in range(2 * ROW)]
            tried = bytes(byte ^ bit for byte, bit in zip(message, bits))
            for salt in salts.values():
                digest = salt.copy()
                digest.update(tried)
                assert digest.digest() not in told, guess


def test_different_descriptors_are_refused():
    def work(transport):
        VerifiedNet(transport, b"one" if transport.me else b"other")

    assert all(isinstance(answer, Disagreement) for answer in threads_of(work, n=4))


def test_a_message_of_the_wrong_size_names_its_sender():
    def work(transport):
        net = VerifiedNet(transport, b"")
        size = 4 if transport.me == 1 else 3
        part = np.zeros(size, np.uint64)
        known = [(way, part if net.me in (way.frm, way.check) else None) for way in CROSS]
        net.put_in(known, part.dtype, size)
        net.speak()

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
