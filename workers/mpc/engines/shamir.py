"""Shamir engine: n ≥ 3 nodes, up to t < n/2 of them curious, over the field of 2^89 − 1.

A secret is an integer in (−p/2, p/2), a value times 2^f, as f(0) of a polynomial of degree t; any
t shares are uniform whatever the secret. Secure against *passive* nodes up to t; an active one may
break correctness and privacy, except that every opened value is checked by all shares (WrongShare).
Any 2t + 1 live nodes compute, with the points that their shares were made for.

It is slower than the ring: a sign costs 90 products and as many random bits. In exchange n and t
are free, and n − (2t + 1) nodes may be dead.

What a node receives, and why it tells nothing:
- dealt shares of degree t of others' numbers, fresh randomness each time: t of them are uniform;
- in openings, shares of a mask's sum, uniform since the mask is (`shamir_bits`); of a declared
  opening, fresh shares (`open` re-deals first), so that they tell the value and not its history.

Of MPyC (mpyc 0.11) it takes the field and the recombination vectors. Its runtime is not used: it
counts one program for all jobs, unpickles what peers send, and waits for the dead for ever. Its
arrays of Python integers are an order slower than the limbs of `field89`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits import Circuit
from workers.mpc.engines import field89
from workers.mpc.engines.base import (
    Bilinear,
    Engine,
    Ints,
    Shared,
    Word,
    as_words,
    runs,
    share_of,
    times,
)
from workers.mpc.engines.field89 import Limbs
from workers.mpc.engines.running import Secrets, entered, run_declared
from workers.mpc.engines.shamir_bits import BitPool, Bits, composed, low_bits, random_bits
from workers.mpc.engines.shamir_net import Net
from workers.mpc.engines.shamir_reserve import BLOCK, Reserve, name_of, set_of
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.keystream import KEY_BYTES, Keystream
from workers.mpc.shamir_shares import WrongShare
from workers.mpc.transport import Transport

__all__ = [
    "BitPool",
    "Shamir",
    "ShamirOutcome",
    "WrongShare",
    "make_blocks",
    "meet",
    "run_on",
    "run_shamir",
]

# Values compared or truncated at once: 90 bits of each are some 10 MB.
BATCH_MAX = 1 << 12

# mpyc makes its field classes piece by piece: a second thread could meet half a field.
_MPYC = threading.Lock()


@cache
def _mpyc() -> Any:
    """(finfields, thresha), imported late: mpyc reads sys.argv, sets up logging and event loops.

    The caller holds _MPYC.
    """
    root, argv = logging.getLogger(), sys.argv
    handlers, level = root.handlers[:], root.level
    policy = asyncio.get_event_loop_policy()
    # with a handler in place mpyc's basicConfig does nothing, and at this level it is silent
    root.addHandler(logging.NullHandler())
    root.setLevel(logging.WARNING)
    sys.argv = argv[:1]
    try:
        from mpyc import finfields, thresha  # type: ignore[import-untyped]
    finally:
        sys.argv = argv
        root.handlers[:] = handlers
        root.setLevel(level)
        asyncio.set_event_loop_policy(policy)
    return finfields, thresha


def weights(points: tuple[int, ...], at: int) -> list[int]:
    """λ with f(at) = Σ λ_i f(points[i]), for every f of degree under len(points)."""
    units = [[int(i == j) for j in range(len(points))] for i in range(len(points))]
    with _MPYC:
        finfields, thresha = _mpyc()
        field = finfields.GF(field89.P)
        return [int(value) for value in thresha.recombine(field, list(zip(points, units)), at)]


class Shamir(Engine):
    """One node's side of a computation. Every member must make the same calls.

    Shared.words are the three limbs of this node's shares.
    """

    def __init__(
        self, net: Net, pool: BitPool | None = None, reserve: Reserve | None = None
    ) -> None:
        self.net = net
        self.bits = Bits(net, BitPool() if pool is None else pool, reserve if net.ready else None)

    # -- linear -------------------------------------------------------------------------------

    def _constant(self, words: Word) -> Limbs:
        return field89.of_words(words)

    def add(self, a: Shared, b: Shared) -> Shared:
        a, b = self._aligned(a, b)
        return Shared(field89.add(_limbs(a), _limbs(b)), a.f)

    def sub(self, a: Shared, b: Shared) -> Shared:
        a, b = self._aligned(a, b)
        return Shared(field89.sub(_limbs(a), _limbs(b)), a.f)

    def neg(self, a: Shared) -> Shared:
        return Shared(field89.neg(_limbs(a)), a.f)

    def scale(self, a: Shared, ints: npt.ArrayLike, f: int = 0) -> Shared:
        factor = field89.of_words(as_words(ints))
        return Shared(field89.mul(_limbs(a), factor), a.f + f)

    def combine(self, a: Shared, table: npt.ArrayLike, f: int) -> Shared:
        columns = field89.of_words(as_words(table).T.copy())
        rows = field89.shaped(_limbs(a), (a.shape[0], -1))
        total = field89.contract(np.matmul, columns, rows, a.shape[0])
        return Shared(field89.shaped(total, (columns[0].shape[0], *a.shape[1:])), a.f + f)

    def weighted_sum(self, items: Sequence[Shared], ints: Iterable[int]) -> Shared:
        factors = list(ints)
        if len(factors) != len(items) or any(
            item.shape != items[0].shape or item.f != items[0].f for item in items
        ):
            raise ValueError("a weighted sum takes equal secrets, each with its factor")
        total = field89.mul(_limbs(items[0]), field89.of_int(factors[0]))
        for item, factor in zip(items[1:], factors[1:], strict=True):
            total = field89.add(total, field89.mul(_limbs(item), field89.of_int(factor)))
        return Shared(total, items[0].f)

    def lift(self, a: Shared, f: int) -> Shared:
        if f < a.f:
            raise ValueError("lift cannot drop fractional bits; use trunc")
        if f == a.f:
            return a
        return Shared(field89.mul(_limbs(a), field89.of_int(1 << (f - a.f))), f)

    def sum(self, a: Shared, axis: int) -> Shared:
        l0, l1, l2 = field89.total(_limbs(a), axis)
        return Shared((np.atleast_1d(l0), np.atleast_1d(l1), np.atleast_1d(l2)), a.f)

    def _runs(self, a: Shared, order: Ints, starts: Ints, into: tuple[Ints, int]) -> Shared:
        l0, l1, l2 = (runs(limb, order, starts, into) for limb in _limbs(a))
        return Shared(field89.carried(l0, l1, l2), a.f)

    # -- products -----------------------------------------------------------------------------

    def _product(self, bilinear: Bilinear, a: Shared, b: Shared, drop: int) -> Limbs:
        x, y = _limbs(a), _limbs(b)
        if bilinear is times:
            local = field89.mul(x, y)
        else:
            local = field89.contract(bilinear, x, y, a.shape[-1])
        product = self.net.reshare(local)
        return self._drop(product, drop) if drop else product

    def _truncate(self, a: Shared, drop: int) -> Limbs:
        return self._drop(_limbs(a), drop)

    def _drop(self, a: Limbs, drop: int) -> Limbs:
        """⌊a/2^drop⌋ + {0, 1} for |a| < 2^62. One round.

        c = a + 2^64 + r is opened; as integers (c mod 2^drop) − (r mod 2^drop) is a mod 2^drop, or
        2^drop under it: what is left of a is a multiple of 2^drop, divided exactly.
        """
        inverse = field89.of_int(pow(1 << drop, -1, field89.P))

        def part(values: Limbs) -> Limbs:
            opened, mask = self.bits.masked_small(values)
            low = field89.sub(low_bits(opened, drop), composed(field89.taken(mask, np.s_[:drop])))
            return field89.mul(field89.sub(values, low), inverse)

        return _in_batches(a, part)

    # -- comparisons and openings -------------------------------------------------------------

    def _negative(self, a: Shared) -> Limbs:
        return _in_batches(_limbs(a), self.bits.negative)

    def _bits(self, a: Shared, low: int, high: int) -> Limbs:
        def part(values: Limbs) -> Limbs:
            return field89.taken(self.bits.bits(values, high), np.s_[low:])

        return _in_batches(_limbs(a), part, (high - low,))

    def _top_bits(self, a: Shared, low: int, high: int) -> Limbs:
        def part(values: Limbs) -> Limbs:
            return self.bits.top_bit(field89.taken(self.bits.bits(values, high), np.s_[low:]))

        return _in_batches(_limbs(a), part, (high - low,))

    def _noise(self, count: int, variance: int) -> Limbs:
        """Each member deals its own numbers. All but t of them suffice."""
        members = len(self.net.points)
        own = Keystream(os.urandom(KEY_BYTES))
        drawn = discrete_gaussian(own, share_of(variance, members - self.net.t), count)
        parts = self.net.deal(field89.of_words(as_words(drawn)), range(members), count)
        l0, l1, l2 = (sum(limbs[1:], start=limbs[0]) for limbs in zip(*parts, strict=True))
        return field89.carried(l0, l1, l2)

    def open(self, a: Shared) -> Ints:
        """The integers mod 2^64, as two's complement."""
        fresh = self.refresh(a)
        return field89.to_words(self.net.open(_limbs(fresh))).astype(np.int64)

    def open_rounded(self, a: Shared) -> Ints:
        if a.f == 0:
            return self.open(a)
        inverse = field89.of_int(pow(1 << a.f, -1, field89.P))
        raised = field89.add(_limbs(a), field89.of_int(1 << (a.f - 1)))

        def part(values: Limbs) -> Limbs:
            low = self.bits.low_part(values, a.f)
            return field89.mul(field89.sub(values, low), inverse)

        return self.open(Shared(_in_batches(raised, part), 0))

    def refresh(self, a: Shared) -> Shared:
        """The same value on fresh shares: nothing of the computation's history leaves with it."""
        return Shared(self.net.reshare(_limbs(a)), a.f)


def _limbs(a: Shared) -> Limbs:
    l0, l1, l2 = a.words
    return l0, l1, l2


def _in_batches(a: Limbs, fn: Any, lead: tuple[int, ...] = ()) -> Limbs:
    """fn of flat numbers, [n] -> [*lead, n], in batches; shaped [*lead, *shape]. Of none none."""
    shape, flat = a[0].shape, field89.shaped(a, (-1,))
    size = flat[0].size
    if not size:
        return field89.shaped(a, (*lead, *shape))
    parts = [
        fn(field89.taken(flat, np.s_[at : at + BATCH_MAX])) for at in range(0, size, BATCH_MAX)
    ]
    whole = field89.joined(parts, axis=-1)
    return field89.shaped(whole, (*whole[0].shape[:-1], *shape))


@dataclass(frozen=True)
class ShamirOutcome:
    """One node's side of a finished run; shares as limbs."""

    openings: dict[str, Any]
    result: Limbs | None
    sealed: Limbs | None
    result_shape: tuple[int, ...] | None
    sealed_shape: tuple[int, ...] | None
    result_f: int | None
    sealed_f: int | None
    rounds: int
    bytes_sent: int
    bits_used: int
    bits_from_reserve: int
    bits_made: int


def make_blocks(
    transport: Transport,
    reserve: Reserve,
    made: bytes,
    count: int,
    *,
    t: int,
    members: Sequence[int],
) -> None:
    """Put `count` blocks of random bits into the members' reserves, in a session of its own.

    made: their common name, new. Whatever ends this early, a block is kept when all have said that
    they have it. Raises: Disagreement, TransportError.
    """
    net = meet(transport, t=t, members=members, context=b"bits\0" + made)
    for number in range(count):
        bits = random_bits(net, BLOCK)
        net.told_by_each(b"")
        reserve.add(set_of(net), name_of(made, number), bits)


def run_shamir(
    circuit: Circuit,
    shares: Mapping[str, Sequence[Limbs]],
    params: Mapping[str, Any],
    transport: Transport,
    *,
    t: int,
    members: Sequence[int],
    context: bytes = b"",
    reserve: Reserve | None = None,
) -> ShamirOutcome:
    """Run a circuit together with the other members of `transport`; blocks.

    shares[slot]: per owner, in roster order, this node's shares (`shamir_shares.split`).
    members: ids of the nodes at the places of `transport`, ascending; at least 2t + 1.
    context: bytes that must be equal at all members (the digest of the job's descriptor).
    reserve: random bits made before; what is lacking is made on the way.
    Raises: BadParams, ValueError (shapes); Disagreement, WrongShare; PeerLost, DeadlineExceeded.
    """
    secrets = entered(circuit, shares, params, _entered)
    net = meet(transport, t=t, members=members, context=context, reserve=reserve)
    return _run(Shamir(net, reserve=reserve), circuit, secrets, params)


def meet(
    transport: Transport,
    *,
    t: int,
    members: Sequence[int],
    context: bytes,
    reserve: Reserve | None = None,
) -> Net:
    """The members find that they mean the same job. Raises: as `run_shamir`."""
    of = (t, tuple(members))
    ready = reserve is not None and reserve.want(of)
    net = Net(transport, members, t, weights, context, ready)
    if reserve is not None and ready and net.me == 0 and not net.ready:
        reserve.forget(of)  # somebody has lost what the others keep
    return net


def run_on(
    net: Net,
    circuit: Circuit,
    shares: Mapping[str, Sequence[Limbs]],
    params: Mapping[str, Any],
    reserve: Reserve | None = None,
) -> ShamirOutcome:
    """`run_shamir` among members that have met, and perhaps found that what they hold fits."""
    secrets = entered(circuit, shares, params, _entered)
    return _run(Shamir(net, reserve=reserve), circuit, secrets, params)


def _run(
    engine: Shamir, circuit: Circuit, secrets: Secrets, params: Mapping[str, Any]
) -> ShamirOutcome:
    net = engine.net
    outcome = run_declared(circuit, engine, secrets, params)
    # both leave on fresh shares, so that they may be stored, or sealed to their addressee
    result: Any = None if outcome.result is None else engine.refresh(outcome.result)  # type: ignore[arg-type]
    sealed: Any = None if outcome.sealed is None else engine.refresh(outcome.sealed)  # type: ignore[arg-type]
    return ShamirOutcome(
        openings=outcome.openings,
        result=None if result is None else field89.reduced(_limbs(result)),
        sealed=None if sealed is None else field89.reduced(_limbs(sealed)),
        result_shape=None if result is None else result.shape,
        sealed_shape=None if sealed is None else sealed.shape,
        result_f=None if result is None else result.f,
        sealed_f=None if sealed is None else sealed.f,
        rounds=net.rounds,
        bytes_sent=net.bytes_sent,
        bits_used=engine.bits.used,
        bits_from_reserve=engine.bits.from_reserve,
        bits_made=engine.bits.made,
    )


def _entered(limbs: Limbs, shape: tuple[int, ...], f: int) -> Shared:
    words = tuple(np.asarray(limb) for limb in limbs)
    if len(words) != 3 or any(word.dtype != np.uint64 for word in words):
        raise ValueError("a share is three arrays of limbs in 64-bit words")
    if any(word.size != int(np.prod(shape)) for word in words):
        raise ValueError("a share does not have the size that the parameters say")
    masks = field89.MASKS
    if any(np.any(word > np.uint64(mask)) for word, mask in zip(words, masks, strict=True)):
        raise ValueError("a share is not reduced")
    return Shared(tuple(word.reshape(shape) for word in words), f)
