"""Shamir shares anew: the same secrets for any t + 1 of the new ones, nothing for old and new ones
together, a lost share from the others that is what it was, and another set's."""

import itertools

import numpy as np
import pytest

from tests.support.shamir import threads
from workers.mpc import shamir_refresh, shamir_shares
from workers.mpc.engines import field89, shamir_codec
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.shamir_net import Net
from workers.mpc.shamir_refresh import ZeroShares, agree_on_keys, dealt_anew, masked, vanishing

SECRET = np.array([0, 1, -1, 2**62, 65536], np.int64)
SETS = [(3, 1, (0, 1, 2)), (5, 2, (0, 1, 2, 3, 4)), (5, 1, (0, 2, 4)), (7, 3, tuple(range(7)))]


def refreshed(shares, t, members, bend=None):
    """The members' new shares, by node, or what each of them says against it."""

    def work(transport):
        if transport.me not in members:
            return None
        if bend is not None and transport.me == members[0]:
            transport = bend(transport)
        zeros = ZeroShares(agree_on_keys(transport, members, t, b"refresh"), transport.me)
        return [zeros.add_to(share[transport.me]) for share in shares]

    return threads(work, max(members) + 1)


@pytest.mark.parametrize(("n", "t", "members"), SETS, ids=str)
def test_any_of_the_new_shares_are_the_secret_and_old_with_new_ones_are_not(n, t, members):
    old = [shamir_shares.split(SECRET, n=n, t=t) for _ in range(2)]
    new = refreshed(old, t, members)
    for at, before in enumerate(old):
        after = {i: new[i][at] for i in members}
        shamir_shares.check_fit(list(members), [after[i] for i in members], t)
        for some in itertools.combinations(members, t + 1):
            one = shamir_shares.join({i: after[i] for i in some})
            assert np.array_equal(one.view(np.int64), SECRET), some
        mixed = {i: before[i] for i in members[:t]} | {members[t]: after[members[t]]}
        assert not np.any(shamir_shares.join(mixed).view(np.int64) == SECRET)
        # z has degree t and no less: t of its shares lie on no polynomial of degree t − 1 with 0
        z = [field89.sub(after[i], before[i]) for i in members]
        if t > 1:
            with pytest.raises(shamir_shares.WrongShare):
                shamir_shares.check_fit(list(members), z, t - 1)
    first, second = (field89.to_ints(field89.sub(new[0][k], old[k][0])) for k in range(2))
    assert not set(first) & set(second)  # one model's zeros are not another's


def test_a_member_that_tells_two_others_different_parts_ends_it():
    class Bent:
        def __init__(self, inner):
            self.inner, self.me, self.n = inner, inner.me, inner.n

        def send(self, to, seq, data):
            bent = seq < 0x200 and to == 4
            self.inner.send(to, seq, bytes(len(data)) if bent else data)

        def recv(self, frm, seq):
            return self.inner.recv(frm, seq)

    shares = [shamir_shares.split(SECRET, n=5, t=2)]
    said = refreshed(shares, 2, (0, 1, 2, 3, 4), Bent)
    assert any(isinstance(one, Disagreement) for one in said) and not any(
        isinstance(one, list) for one in said[1:]
    )


@pytest.mark.parametrize(
    ("n", "t", "lost", "helpers"),
    [(3, 1, 0, (1, 2)), (5, 2, 4, (0, 1, 3)), (5, 1, 2, (0, 1, 3, 4)), (7, 3, 3, (0, 1, 2, 4, 6))],
)
def test_helpers_find_a_lost_share_and_show_none_of_their_own(n, t, lost, helpers):
    shares = shamir_shares.split(SECRET, n=n, t=t)

    def told(**asked):
        def work(transport):
            if transport.me not in helpers:
                return None
            about = {"t": t, "lost": lost, "context": b"c"} | asked.get(str(transport.me), {})
            return masked(transport, helpers, shares[transport.me], **about)

        return threads(work, n)

    runs = []
    for _ in range(2):
        said = told()
        runs.append({i: shamir_codec.decoded(said[i], SECRET.size) for i in helpers})
        shamir_shares.check_fit(helpers, list(runs[-1].values()), t)
        found = shamir_shares.at_point(helpers, list(runs[-1].values()), lost + 1)
        assert shamir_shares.equal(found, shares[lost])
    for i in helpers:
        seen = [field89.to_ints(run[i]) for run in runs] + [field89.to_ints(shares[i])]
        assert all(len(set(values)) == 3 for values in zip(*seen, strict=True))
    # a helper that keeps another sharing, or is asked for another node's, helps nobody
    assert isinstance(told(**{str(helpers[0]): {"context": b"d"}})[helpers[1]], Exception)
    assert isinstance(told(**{str(helpers[0]): {"lost": helpers[1]}})[helpers[1]], Exception)


def test_a_mask_is_zero_at_one_point_only_and_of_full_degree():
    points = [1, 2, 3, 4, 5]
    dealt = vanishing(points, at=3, t=2, count=4)
    assert field89.to_ints(dealt[2]) == [0] * 4
    assert all(0 not in field89.to_ints(dealt[k]) for k in (0, 1, 3, 4))
    shamir_shares.check_fit([p - 1 for p in points], dealt, 2)
    with pytest.raises(shamir_shares.WrongShare):
        shamir_shares.check_fit([p - 1 for p in points], dealt, 1)


def moved(shares, t, t_new, n_new, dealers):
    def work(transport):
        old = dealers.get(transport.me)
        share = None if old is None else shares[old - 1]
        about = {"t": t, "t_new": t_new, "count": SECRET.size, "context": b"c"}
        return dealt_anew(transport, dealers, share, **about)

    return threads(work, n_new)


@pytest.mark.parametrize(
    ("n", "t", "n_new", "t_new", "dealers"),  # who deals in the new set, and its point in the old
    [
        (3, 1, 5, 2, {1: 1, 3: 3}),
        (5, 2, 3, 1, {0: 2, 1: 4, 2: 5}),
        (5, 1, 5, 1, {0: 1, 2: 4, 4: 3}),
    ],
)
def test_another_set_has_the_same_secret_by_its_own_threshold(n, t, n_new, t_new, dealers):
    old = shamir_shares.split(SECRET, n=n, t=t)
    new = moved(old, t, t_new, n_new, dealers)
    assert np.array_equal(shamir_shares.opened(dict(enumerate(new)), t_new).view(np.int64), SECRET)
    if t_new > 1:
        with pytest.raises(shamir_shares.WrongShare):
            shamir_shares.opened(dict(enumerate(new)), t_new - 1)
    again = moved(old, t, t_new, n_new, dealers)
    assert not shamir_shares.equal(new[0], again[0])
    if len(dealers) > t + 1:  # a wrong share is found out
        last = dealers[max(dealers)] - 1
        old[last] = field89.add(old[last], field89.of_int(1))
        said = moved(old, t, t_new, n_new, dealers)
        assert all(isinstance(one, Disagreement) for one in said)


@pytest.mark.parametrize("by", ["numbers", "masks"])
def test_a_dealer_who_knows_the_coins_tossed_so_far_cannot_deal_around_the_check(monkeypatch, by):
    """It deals its share + δ, with Σ ρ_k δ_k = 0, or with masks that sum up to −Σ ρ_k δ_k."""

    class Dealer(Net):
        def deal(self, mine, dealers, count):
            if self.me == 0:
                r0, r1 = field89.to_ints(field89.Stream(self._coin).numbers(SECRET.size))[:2]
                delta = [r1, -r0] if by == "numbers" else [1, 0]
                if count == SECRET.size:
                    mine = field89.add(mine, field89.of_ints([*delta, 0, 0, 0]))
                elif by == "masks":
                    rest = field89.to_ints(mine)[1:]
                    mine = field89.of_ints([-r0, *rest])
            return super().deal(mine, dealers, count)

    old = shamir_shares.split(SECRET, n=5, t=1)
    monkeypatch.setattr(shamir_refresh, "Net", Dealer)
    said = moved(old, 1, 1, 5, {0: 1, 1: 2, 2: 3})  # what 2 deals is to be −f(1) + 2 f(2)
    assert all(isinstance(one, Disagreement) for one in said), said
