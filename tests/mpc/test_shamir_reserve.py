"""Bits made before a job: all its members take the same, once, or it makes its own."""

import threading

import numpy as np
import pytest

from tests.support.shamir import SETTINGS, SURVIVORS, THREE, shared_values, threads
from workers.mpc import bench, shamir_shares
from workers.mpc.engines import shamir, shamir_reserve
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.plain import run_plain
from workers.mpc.engines.shamir_net import Net
from workers.mpc.engines.shamir_reserve import BLOCK, NAME_BYTES, Reserve, new_name, taken
from workers.mpc.transport import PeerLost

JOB = bench.inference(2, features=3)
PLAIN = run_plain(JOB.circuit, JOB.values, JOB.params).sealed.words[0].reshape(-1).astype(np.int64)
SHARES = {(n, t): shared_values(JOB.values, n, t) for n, t, _ in SETTINGS}
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


class Recorder(Reserve):
    """Remembers what left it, in order."""

    def __init__(self):
        super().__init__()
        self.gone = []

    def hand_out(self, of, count):
        blocks = super().hand_out(of, count)
        self.gone += blocks
        return blocks

    def take(self, of, names):
        blocks = super().take(of, names)
        self.gone += blocks
        return blocks


def filled(setting, blocks):
    """A reserve for each member of the setting, with so many blocks made together."""
    _, t, members = setting
    reserves, name = [Recorder() for _ in members], new_name()

    def work(transport):
        reserve = reserves[transport.me]
        shamir.make_blocks(transport, reserve, name, blocks, t=t, members=members)

    assert threads(work, len(members)) == [None] * len(members)
    assert [len(reserve) for reserve in reserves] == [blocks * BLOCK] * len(members)
    return reserves


def run_job(reserves, setting=THREE, bent=lambda transport: transport):
    """Every member's outcome, or the error that ended it."""
    n, t, members = setting

    def work(transport):
        node = members[transport.me]
        shares = {s: [item[node] for item in items] for s, items in SHARES[n, t].items()}
        return shamir.run_shamir(
            JOB.circuit,
            shares,
            JOB.params,
            bent(transport),
            t=t,
            members=members,
            reserve=reserves[transport.me],
        )

    return threads(work, len(members))


def is_right(outcomes, setting=THREE):
    shares = {node: o.sealed for node, o in zip(setting[2], outcomes, strict=True)}
    found = shamir_shares.join(shares).astype(np.int64)
    return bool(np.max(np.abs(found - PLAIN)) <= 2)


@every_setting
def test_a_block_is_random_bits_that_all_members_share(setting):
    _, t, members = setting
    reserves, count = filled(setting, 5), 4

    def work(transport):
        net = Net(transport, members, t, shamir.weights, b"job", True)
        return taken(net, reserves[transport.me], count)

    by_member = threads(work, len(members))
    blocks = []
    for k in range(count):
        shares = {node: blocks[k] for node, blocks in zip(members, by_member, strict=True)}
        blocks.append(shamir_shares.opened(shares, t).astype(np.int64))  # which checks that all fit
    bits = np.concatenate(blocks)
    assert set(bits.tolist()) == {0, 1}
    assert abs(bits.mean() - 0.5) < 3 / np.sqrt(bits.size)  # six standard deviations
    # pairs of blocks agree in half of their places
    for k in range(1, count):
        assert abs((blocks[0] == blocks[k]).mean() - 0.5) < 3 / np.sqrt(BLOCK)
    assert [len(reserve) for reserve in reserves] == [BLOCK] * len(members)


@every_setting
def test_a_job_takes_bits_made_before_and_answers_as_without(setting):
    reserves = filled(setting, 3)
    outcomes = run_job(reserves, setting)
    alone = run_job([None] * len(reserves), setting)
    assert is_right(outcomes, setting) and is_right(alone, setting)
    for mine, without in zip(outcomes, alone, strict=True):
        assert (mine.bits_from_reserve, mine.bits_made) == (BLOCK, 0)
        assert without.bits_from_reserve == 0 < without.bits_made
        assert mine.bits_used == without.bits_used
        assert mine.rounds < without.rounds
    assert sum(o.bytes_sent for o in outcomes) < sum(o.bytes_sent for o in alone)
    assert [len(reserve) for reserve in reserves] == [2 * BLOCK] * len(reserves)


def test_no_two_jobs_at_once_are_given_the_same_bits():
    """Sixteen jobs and ten blocks: those that come last make their own."""
    reserves, answers = filled(THREE, 10), []
    running = [
        threading.Thread(target=lambda: answers.append(run_job(reserves))) for _ in range(16)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(answers) == 16 and all(map(is_right, answers))
    names = [reserve.gone for reserve in reserves]
    assert len(names[0]) == len(set(names[0])) == 10
    assert all(len(gone) == 10 and set(gone) == set(names[0]) for gone in names)
    before = [[outcome.bits_from_reserve for outcome in outcomes] for outcomes in answers]
    assert sorted(map(max, before)) == [0] * 6 + [BLOCK] * 10
    assert all(len(set(each)) == 1 for each in before)


def test_where_one_lacks_what_is_handed_out_the_job_makes_its_own_and_the_next_takes_others():
    reserves = filled(THREE, 3)
    (first, *_) = reserves[0]._sets[1, (0, 1, 2)]
    reserves[2].take((1, (0, 1, 2)), [first])
    outcomes = run_job(reserves)
    assert is_right(outcomes)
    assert {o.bits_from_reserve for o in outcomes} == {0} and outcomes[0].bits_made
    outcomes = run_job(reserves)
    assert is_right(outcomes) and {o.bits_from_reserve for o in outcomes} == {BLOCK}
    assert [len(reserve) for reserve in reserves] == [BLOCK] * 3


def test_where_one_was_started_anew_nobody_asks_and_the_first_makes_others():
    reserves = filled(THREE, 3)
    reserves[1] = Reserve()
    outcomes = run_job(reserves)
    assert is_right(outcomes)
    assert outcomes[0].rounds == run_job([None] * 3)[0].rounds
    assert reserves[0].lacking(0) == ((1, (0, 1, 2)), shamir_reserve.BLOCKS_MAX)


def test_an_attempt_that_fails_has_used_its_bits_up():
    """It fails as its first opening is told, when its members have their bits."""

    class Dying:
        def __init__(self, inner):
            self.inner, self.me, self.n = inner, inner.me, inner.n

        def send(self, to, seq, data):
            if reserves[self.me].gone:
                raise PeerLost("killed")
            self.inner.send(to, seq, data)

        def recv(self, frm, seq):
            return self.inner.recv(frm, seq)

    reserves = filled(THREE, 2)
    failed = run_job(reserves, bent=lambda at: Dying(at) if at.me == 2 else at)
    assert all(isinstance(error, PeerLost) for error in failed), failed
    lost = reserves[0].gone[:]
    assert lost and all(reserve.gone == lost for reserve in reserves)
    outcomes = run_job(reserves)
    assert is_right(outcomes) and outcomes[0].bits_from_reserve == BLOCK
    assert all(len(set(reserve.gone)) == 2 and len(reserve) == 0 for reserve in reserves)


def test_a_first_member_that_names_each_another_block_is_found_out():
    class Naming:
        def __init__(self, inner):
            self.inner, self.me, self.n = inner, inner.me, inner.n

        def send(self, to, seq, data):
            if len(data) == NAME_BYTES and to == 2:
                data = list(reserves[2]._sets[1, (0, 1, 2)])[-1]
            self.inner.send(to, seq, data)

        def recv(self, frm, seq):
            return self.inner.recv(frm, seq)

    reserves = filled(THREE, 2)
    answers = run_job(reserves, bent=lambda at: Naming(at) if at.me == 0 else at)
    assert all(isinstance(answer, Disagreement | PeerLost) for answer in answers), answers


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(shamir_reserve, "BLOCKS_MAX", 2)
    _, t, members = SURVIVORS
    reserve, bits = Reserve(), shamir.field89.of_ints([1] * BLOCK)
    for name in (b"a", b"b", b"c"):
        reserve.add((t, members), name, bits)
    assert len(reserve) == 2 * BLOCK
    assert list(reserve.hand_out((t, members), 5)) == [b"b", b"c"]
    for first in range(shamir_reserve.SETS_MAX + 1):
        reserve.add((1, (first, 5, 6)), b"d", bits)
    assert len(reserve) == shamir_reserve.SETS_MAX * BLOCK
    assert not reserve.want((1, (0, 5, 6)))
    reserve.lose(2)
    assert not reserve.want((1, (2, 5, 6))) and reserve.want((1, (3, 5, 6)))
