"""Three, four and five nodes: any three compute the same, and no node ever holds a whole secret."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apps.protocol.circuits import CIRCUITS
from tests.mpc.test_logistic_round import encoded, federation
from tests.mpc.test_ring_privacy import Tap
from tests.support.ring import group_threads, held, share, threads_of
from workers.mpc import bench, keeping, replicated
from workers.mpc.engines.base import Shared, as_words
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.ring import Ring
from workers.mpc.engines.ring_net import Net
from workers.mpc.fixed import encode
from workers.mpc.keeping import Group
from workers.mpc.transport import LocalMesh, Roles

EVERY_TRIPLE = [(n, triple) for n in (3, 4, 5) for triple in combinations(range(n), 3)]
EVERY_FOUR = [(n, four) for n in (4, 5) for four in combinations(range(n), 4)]
every_triple = pytest.mark.parametrize(("n", "computing"), EVERY_TRIPLE)
EDGES = [0, 1, -1, 2**62, -(2**62), 2**63 - 1, -(2**63)]


def groups(n, computing):
    """With nobody else there, and with all others."""
    others = replicated.surplus(computing, n)
    return (
        [Group(n, computing), Group(n, computing, tuple(others))]
        if others
        else [Group(n, computing)]
    )


def chi2(data):
    unit = np.frombuffer(data, np.uint8)
    counts = np.bincount(unit, minlength=256)
    return float(((counts - len(unit) / 256) ** 2 / (len(unit) / 256)).sum())


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(EVERY_TRIPLE + EVERY_FOUR),
    arrays(np.int64, 5, elements=st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1)),
)
def test_any_three_or_four_fold_to_the_same_secret_and_back(case, values):
    n, computing = case
    count = len(computing)
    words = share(values, n)
    roles = {}
    for node in computing:
        pair = replicated.fold(node, held(words, node), computing, n)
        held_here = replicated.held_by(computing.index(node), count)
        for role, word in zip(held_here, pair, strict=True):
            np.testing.assert_array_equal(roles.setdefault(role, word), word)
    np.testing.assert_array_equal(replicated.join(roles).astype(np.int64), values)

    seeds = {d: bytes([d] * 32) for d in replicated.surplus(computing, n)}
    spread = {}
    for node in computing:
        pair = [roles[role] for role in replicated.held_by(computing.index(node), count)]
        mine = replicated.spread(node, pair, computing, seeds)
        assert set(mine) == set(range(n)) - {node}
        for j, word in mine.items():
            np.testing.assert_array_equal(spread.setdefault(j, word), word)
    np.testing.assert_array_equal(replicated.join(spread).astype(np.int64), values)


def test_folding_leaves_a_nodes_own_words_as_they_are():
    words = share(np.arange(4), 5)
    mine = held(words, 3)
    before = {j: word.copy() for j, word in mine.items()}
    replicated.fold(3, mine, (1, 3, 4), 5)
    for j, word in mine.items():
        np.testing.assert_array_equal(word, before[j])


@every_triple
def test_moments_agree_with_plain(n, computing):
    values = {"sums": [encode(bench.wave(7) * 2.0**site, 20) for site in range(4)]}
    circuit, params = CIRCUITS["moments@1"], {"features": 3}
    plain = run_plain(circuit, values, params)
    for group in groups(n, computing):
        answers = group_threads(circuit, values, params, group, LocalMesh(n).transports)
        assert all(answers[c][0].openings == plain.openings for c in computing)
        assert all(kept is None for _, kept in answers.values())


@every_triple
def test_inference_agrees_with_plain_at_the_bounds(n, computing):
    work = bench.inference(3, features=5)
    row = work.values["row"][0].astype(np.int64).reshape(-1)
    row[:3] = [2**62, -(2**62), 2**61]
    values = {**work.values, "row": [row]}
    group = Group(n, computing)
    answers = group_threads(work.circuit, values, work.params, group, LocalMesh(n).transports)
    roles = {}
    for role, node in enumerate(computing):
        for j, word in zip(replicated.held_by(role), answers[node][0].sealed, strict=True):
            np.testing.assert_array_equal(roles.setdefault(j, word), word)
    plain = run_plain(work.circuit, values, work.params).sealed.words[0]
    assert np.max(np.abs((replicated.join(roles) - plain).astype(np.int64))) <= 1


@every_triple
def test_a_rounds_model_is_kept_by_all_who_are_there(n, computing):
    updates, blocks, params = federation(7, sites=5, features=2, rows=(30,), strata=1)
    values, circuit = encoded(updates, blocks), CIRCUITS["logistic_round@1"]
    plain = run_plain(circuit, values, params)
    for group in groups(n, computing):
        answers = group_threads(circuit, values, params, group, LocalMesh(n).transports)
        words, salts = {}, {}
        for node in group.members:
            kept = answers[node][1]
            assert set(kept.words) == set(kept.salts) == set(range(n)) - {node}
            for j, word in kept.words.items():
                np.testing.assert_array_equal(words.setdefault(j, word), word)
                assert salts.setdefault(j, kept.salts[j]) == kept.salts[j]
        assert len(set(salts.values())) == n
        difference = replicated.join(words) - plain.result.words[0].reshape(words[0].shape)
        assert np.max(np.abs(difference.astype(np.int64))) <= 2**10  # of 2^24: truncations differ


def test_a_round_without_a_model_leaves_nothing_with_those_who_hold():
    updates, blocks, params = federation(5, bad=False, features=3, rows=(30,), strata=1)
    opposed = np.stack([updates[0], updates[0], -updates[0], -updates[0]])
    group = Group(5, (0, 2, 3), (1, 4))
    values = encoded(opposed, blocks)
    answers = group_threads(
        CIRCUITS["logistic_round@1"], values, params, group, LocalMesh(5).transports
    )
    assert {node: kept for node, (_, kept) in answers.items()} == dict.fromkeys(range(5))


def everything(n, computing, secret):
    """All kinds of messages of a job that keeps its result, as each member receives them."""
    group = Group(n, computing, tuple(replicated.surplus(computing, n)))
    words = share(np.full(3000, secret), n)
    taps = [Tap(transport) for transport in LocalMesh(n).transports]

    def work(transport):
        if transport.me in group.holding:
            return keeping.receive(transport, group)[1]
        pair = replicated.fold(transport.me, held(words, transport.me), computing, n)
        with np.errstate(over="ignore"):
            ring = Ring(Net(Roles(transport, computing), b""))
            product = ring.mul(Shared(tuple(pair), 0), Shared(tuple(pair), 0))
        return keeping.keep(transport, group, product.words, {"shape": [3000]})

    return words, taps, threads_of(work, [taps[i] for i in group.members])


@pytest.mark.parametrize("secret", [0, -(2**28)])
@pytest.mark.parametrize(("n", "computing"), [c for c in EVERY_TRIPLE if c[0] > 3])
def test_what_one_node_sees_is_uniform_whatever_the_secret(n, computing, secret):
    """Its shares, each large message, and the sum of all that it knows of input and result."""
    words, taps, kept = everything(n, computing, secret)
    for node, held_there in enumerate(kept):
        mine = held(words, node)
        views = [word.tobytes() for word in (*mine.values(), replicated.join(mine))]
        views += [w.tobytes() for w in held_there.words.values()]
        views.append(replicated.join(held_there.words).tobytes())
        views += [data for _, seq, data in taps[node].seen if seq and len(data) >= 8 * 3000]
        # 255 degrees of freedom: beyond 400 once in 10^8 views
        assert max(map(chi2, views)) < 400, node


def test_shares_of_five_nodes_are_uniform_over_a_million_words():
    words = share(np.zeros(10**6, np.int64), 5)
    for node in range(5):
        assert chi2(replicated.join(held(words, node)).tobytes()) < 400


@pytest.mark.parametrize("liar", [0, 1, 3])
def test_a_holding_node_refuses_what_one_computing_node_tells_otherwise(liar):
    group = Group(4, (0, 1, 3), (2,))
    roles = [as_words(np.arange(3) + r) for r in range(3)]

    def work(transport):
        if transport.me == 2:
            return keeping.receive(transport, group)
        pair = [roles[r] for r in replicated.held_by(group.computing.index(transport.me))]
        if transport.me == liar:
            pair[0] = pair[0] + np.uint64(1)
        return keeping.keep(transport, group, pair, {"shape": [3]})

    answers = threads_of(work, LocalMesh(4).transports)
    assert isinstance(answers[2], Disagreement)


def test_a_dead_node_outside_the_job_is_not_missed():
    mesh = LocalMesh(5)
    mesh.kill(4)
    values = {"sums": [encode(bench.wave(7)) for _ in range(3)]}
    group = Group(5, (0, 1, 2), (3,))
    group_threads(CIRCUITS["moments@1"], values, {"features": 3}, group, mesh.transports)
