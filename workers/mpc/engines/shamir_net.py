"""Messages of the Shamir engine: dealing, degree reduction, openings that all shares must fit.

A secret s is f(0) of a polynomial of degree t; the member with id i holds f(i + 1). Ids are those
of the SubDAO's nodes, not places in this job: any 2t + 1 live nodes compute with the points that
they were dealt. A job has a session of its own, its own message counter, and its own fresh key
stream.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np

from apps.protocol.tickets import ELEMENT_BYTES
from workers.mpc.engines import field89, shamir_codec
from workers.mpc.engines.counted import Counted, Disagreement
from workers.mpc.engines.field89 import Limbs
from workers.mpc.shamir_shares import WrongShare, check_fit, combined, equal
from workers.mpc.transport import Transport

__all__ = ["Disagreement", "Net"]

COIN_BYTES = 32

# λ with f(at) = Σ λ_i f(points[i]) for deg f < len(points)
Weights = Callable[[tuple[int, ...], int], list[int]]


class Net(Counted):
    """One job's messages, counted alike at every member."""

    def __init__(
        self,
        transport: Transport,
        members: Sequence[int],
        t: int,
        weights: Weights,
        context: bytes,
        ready: bool = False,
    ) -> None:
        """Agree on what is computed, among whom. Raises: Disagreement, TransportError, ValueError.

        members: node ids by place in `transport`; node i's point is i + 1. ready: this member holds
        bits made before; `self.ready` says whether all do.
        """
        if len(members) != transport.n or sorted(set(members)) != list(members) or members[0] < 0:
            raise ValueError("members are ascending node ids, one for each place")
        if t < 1 or len(members) < 2 * t + 1:
            raise ValueError("at least 2t + 1 live nodes are needed, t at least 1")
        super().__init__(transport)
        self.members = tuple(members)
        self.points = tuple(member + 1 for member in members)
        self.t = t
        self.random = field89.Stream()
        self._others = [place for place in range(transport.n) if place != transport.me]
        # a product has degree 2t: the first 2t + 1 members put it together
        self._dealers = 2 * t + 1
        self._lead = self._factors(weights, self.points[: 2 * t + 1], 0)
        # the first t + 1 shares say what all others must be
        base = self.points[: t + 1]
        self._open = self._factors(weights, base, 0)
        self._check = [self._factors(weights, base, point) for point in self.points[t + 1 :]]
        self._coin, said = self._agree(context, bytes([ready]))
        self.ready = all(one == b"\1" for one in said)

    @staticmethod
    def _factors(weights: Weights, points: tuple[int, ...], at: int) -> list[Limbs]:
        return [field89.of_int(weight) for weight in weights(points, at)]

    def _agree(self, context: bytes, say: bytes = b"") -> tuple[bytes, list[bytes]]:
        """What is drawn of every member's part of a coin, once all mean the same job; and what each
        says besides, all equally long. One round."""
        told = f"flai/shamir/v4\0{self.t}\0{self.members}\0".encode() + context
        digest, mine = hashlib.sha256(told).digest(), os.urandom(COIN_BYTES)
        said = self.told_by_each(digest + mine + say)
        if any(data[: len(digest)] != digest for data in said):
            raise Disagreement("the members hold different descriptors of this job")
        end = len(digest) + COIN_BYTES
        coin = hashlib.sha256(b"".join(data[len(digest) : end] for data in said)).digest()
        return coin, [data[end:] for data in said]

    def told_by_each(self, mine: bytes) -> list[bytes]:
        """What every member says, by place, all equally long. One round."""
        for place in self._others:
            self._send(place, mine)
        said = [mine] * len(self.points)
        for place in self._others:
            said[place] = bytes(self._recv(place, len(mine)))
        self.step()
        return said

    def told_by_first(self, mine: bytes, size: int) -> bytes:
        """What the member at place 0 says. One round."""
        if self.me == 0:
            for place in self._others:
                self._send(place, mine)
        else:
            mine = bytes(self._recv(0, size))
        self.step()
        return mine

    def _malformed(self, frm: int) -> Exception:
        return Disagreement(f"node {self.members[frm]} sent a message of the wrong size")

    def _elements(self, frm: int, count: int) -> Limbs:
        data = self._recv(frm, ELEMENT_BYTES * count)
        try:
            return shamir_codec.decoded(data, count)
        except shamir_codec.Malformed as error:
            raise Disagreement(f"node {self.members[frm]} sent {error}") from None

    def deal(self, mine: Limbs | None, dealers: Sequence[int], count: int) -> list[Limbs]:
        """Fresh sharings of each dealer's `count` numbers: my share of each. One round.

        mine: my numbers, flat, when my place is among `dealers`.
        """
        shares: dict[int, Limbs] = {}
        if self.me in dealers:
            if mine is None:
                raise ValueError("a dealer needs numbers")
            slopes = [self.random.numbers(count) for _ in range(self.t)]
            for place, point in enumerate(self.points):
                value = slopes[-1]
                for slope in reversed(slopes[:-1]):
                    value = field89.add(field89.times_small(value, point), slope)
                share = field89.add(field89.times_small(value, point), mine)
                if place == self.me:
                    shares[place] = share
                else:
                    self._send(place, shamir_codec.encoded(share))
        for place in dealers:
            if place != self.me:
                shares[place] = self._elements(place, count)
        self.step()
        return [shares[place] for place in dealers]

    def reshare(self, local: Limbs) -> Limbs:
        """Shares of degree up to 2t -> fresh ones of degree t, of the same values. One round."""
        shape, count = local[0].shape, local[0].size
        mine = None
        if self.me < self._dealers:
            mine = field89.mul(field89.shaped(local, (-1,)), self._lead[self.me])
        parts = self.deal(mine, range(self._dealers), count)
        l0, l1, l2 = (sum(limbs[1:], start=limbs[0]) for limbs in zip(*parts, strict=True))
        whole = field89.carried(l0, l1, l2)
        return field89.shaped(whole, shape)

    def misfits(self, inputs: Sequence[Limbs]) -> dict[int, tuple[int, ...]]:
        """Which of these inputs have shares of no polynomials of degree t, and whose shares it is.
        Before anything else; two rounds.

        An owner could deal such ones, and products of them would mix up shares of others' numbers.
        Of each input Σ ρ_k s_k + r is opened: ρ from everybody's coin, after the shares were dealt;
        r is random, so that it tells nothing. A misfit shows but for one time in 2^89.
        """
        masks = self._sum_dealt(self.random.numbers(len(inputs)))
        told = self._told_mixed(inputs, masks, self._coin)
        found: dict[int, tuple[int, ...]] = {}
        for at in range(len(inputs)):
            try:
                one = [field89.taken(share, np.s_[at : at + 1]) for share in told]
                check_fit(self.members, one, self.t)
            except WrongShare as error:
                found[at] = error.culprits
        return found

    def check_dealt(self, inputs: Sequence[Limbs], zeros: Sequence[Limbs]) -> None:
        """Of what members dealt here: have `inputs` degree t, and are `zeros` sharings of nothing
        but zeros? Three rounds, mixed up as by `misfits`; r is 0 for zeros.

        Who dealt a share may be the one who deals an r: both lie fixed before the coin is tossed,
        or either could be made to balance the other. Raises: Disagreement.
        """
        nothing = field89.of_ints([0] * len(zeros))
        mine = field89.joined([nothing, self.random.numbers(len(inputs))])
        masks = self._sum_dealt(mine)
        told = self._told_mixed([*zeros, *inputs], masks, self._agree(b"dealt")[0])
        check_fit(self.members, told, self.t)
        found = combined(self._open, told[: self.t + 1])
        if not equal(field89.taken(found, np.s_[: len(zeros)]), nothing):
            raise Disagreement("what should be zero is not")

    def _sum_dealt(self, mine: Limbs) -> Limbs:
        """My share of the sum of what all have as `mine`, flat. One round."""
        parts = self.deal(mine, range(len(self.points)), mine[0].size)
        l0, l1, l2 = (sum(limbs[1:], start=limbs[0]) for limbs in zip(*parts, strict=True))
        return field89.carried(l0, l1, l2)

    def _told_mixed(self, inputs: Sequence[Limbs], masks: Limbs, coin: bytes) -> list[Limbs]:
        """Every member's Σ ρ_k s_k + r of each input; ρ is drawn of the coin. One round."""
        rho = field89.Stream(coin)
        mixed = []
        for share in inputs:
            flat = field89.shaped(share, (-1,))
            terms = field89.mul(flat, rho.numbers(flat[0].size))
            mixed.append(field89.shaped(field89.total(terms, 0), (1,)))
        return self._told(field89.add(field89.joined(mixed), masks))

    def product(self, a: Limbs, b: Limbs) -> Limbs:
        return self.reshare(field89.mul(a, b))

    def open(self, share: Limbs) -> Limbs:
        """The values, reduced, once every member's share has been found to fit. One round.

        Raises: WrongShare.
        """
        shape = share[0].shape
        shares = self._told(field89.shaped(share, (-1,)))
        base = shares[: self.t + 1]
        for weights, found in zip(self._check, shares[self.t + 1 :], strict=True):
            if not equal(combined(weights, base), found):
                check_fit(self.members, shares, self.t)
        value = combined(self._open, base)
        return field89.shaped(field89.reduced(value), shape)

    def _told(self, mine: Limbs) -> list[Limbs]:
        """Every member's share, flat, in their order. One round."""
        data = shamir_codec.encoded(mine)
        for place in self._others:
            self._send(place, data)
        shares = [mine] * len(self.points)
        for place in self._others:
            shares[place] = self._elements(place, mine[0].size)
        self.step()
        return shares
