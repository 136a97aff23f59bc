"""Shamir shares anew: all of them, of the same secrets, on the same nodes or others; or a single
one for a node that lost it.

*All.* Node i adds z(i + 1) to its share f(i + 1), where z is a fresh polynomial of degree t with
z(0) = 0: a sum of

    r_B · x · Π_{b ∈ B} (x − (b + 1))        over all sets B of t − 1 members,

sums which can be any such z. r_B is a key stream; its key is the hash of 32 random bytes of each
member outside B, which those members tell each other and nobody in B. So any one member's bytes
make z fresh, and no number travels. Who has what t − 1 members see lacks the key of B = these, and
z is uniform to it at every other point. t members together know all of z, whatever one does, as t
shares and z(0) = 0 give it: so who *watches* a node counts for both sides. Who has only what nodes
kept, t of them before and t others after, has uniform numbers whatever the secrets are.

*One.* To node k the others, the *helpers*, tell f + g: each deals a fresh polynomial g_i of degree
t that is 0 at k + 1, and g is their sum. f + g is f(k + 1) there; at all other points g is uniform,
to k and t − 1 helpers together. A helper learns shares of the others' g_i. More than t + 1 helpers'
shares must all fit (`shamir_shares.check_fit`).

*Others.* Each node that has a share and is in the new set, t + 1 at least, deals it to the new set
by a fresh polynomial φ_i of the new degree. Σ λ_i φ_i over t + 1 of them is a new sharing of f(0),
as φ_i(0) is their f(x_i) and Σ λ_i f(x_i) = f(0); fresh if one of them deals so. What any further
ones deal must be what these say: the difference is a sharing of zeros, which is opened mixed up and
masked, by a coin that is tossed once all of it is dealt.

Secure against passive nodes, up to t. That members hold the same keys is compared; a helper whose
g_i is not 0 where it should be makes the share wrong, which shows when it is used (`Net.misfits`).
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from apps.protocol.tickets import ELEMENT_BYTES
from workers.mpc.engines import field89, shamir_codec
from workers.mpc.engines.base import Word
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.field89 import Limbs
from workers.mpc.engines.shamir_net import Net
from workers.mpc.shamir_shares import combined, factors
from workers.mpc.transport import Transport

PART_BYTES = 32
# message numbers, t added to the first two: above those of a refresh, below an engine's keeping
PARTS_SEQ, COMPARE_SEQ, CASE_SEQ, MASKS_SEQ = 0x100, 0x200, 0x300, 0x301

Keys = dict[tuple[int, ...], bytes]


def agree_on_keys(transport: Transport, members: Sequence[int], t: int, context: bytes) -> Keys:
    """This node's keys r_B of a refresh by these members (node ids, at least 2t + 1), by B.

    Two messages. `context` is what the refresh is called. Raises: Disagreement, TransportError.
    """
    me = transport.me
    mine = {b: secrets.token_bytes(PART_BYTES) for b in _sets(members, t) if me not in b}
    parts = {b: {me: part} for b, part in mine.items()}
    others = [peer for peer in members if peer != me]
    both = {peer: [b for b in mine if peer not in b] for peer in others}
    for peer in others:
        transport.send(peer, PARTS_SEQ + t, b"".join(mine[b] for b in both[peer]))
    for peer in others:
        data = bytes(transport.recv(peer, PARTS_SEQ + t))
        if len(data) != PART_BYTES * len(both[peer]):
            raise Disagreement(f"member {peer} sent a message of the wrong size")
        for at, b in enumerate(both[peer]):
            parts[b][peer] = data[PART_BYTES * at : PART_BYTES * (at + 1)]
    keys = {b: _key(context, t, b, parts[b]) for b in mine}
    told = {peer: _told(keys[b] for b in both[peer]) for peer in others}
    for peer in others:
        transport.send(peer, COMPARE_SEQ + t, told[peer])
    if any(bytes(transport.recv(peer, COMPARE_SEQ + t)) != told[peer] for peer in others):
        raise Disagreement("the members were told different parts of a refresh")
    return keys


def _sets(members: Sequence[int], t: int) -> list[tuple[int, ...]]:
    return list(combinations(sorted(members), t - 1))


def _key(context: bytes, t: int, b: tuple[int, ...], parts: Mapping[int, bytes]) -> bytes:
    told = f"flai/shamir-refresh-key/v1\0{t}\0{b}\0".encode() + context
    return hashlib.sha256(told + b"".join(part for _, part in sorted(parts.items()))).digest()


def _told(keys: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"flai/shamir-refresh-compared/v1\0" + b"".join(keys)).digest()


class ZeroShares:
    """One node's shares of fresh sharings of zero, one after the other; at all members in step."""

    def __init__(self, keys: Keys, me: int) -> None:
        point = me + 1
        self._streams = [
            (field89.Stream(key), field89.of_int(point * math.prod(point - b - 1 for b in apart)))
            for apart, key in sorted(keys.items())
        ]

    def add_to(self, share: Sequence[Word]) -> Limbs:
        """This node's share of the same secret from now on, reduced."""
        l0, l1, l2 = share
        value = field89.shaped((l0, l1, l2), (-1,))
        for stream, factor in self._streams:
            drawn = field89.mul(stream.numbers(value[0].size), factor)
            value = field89.add(value, drawn)
        return field89.shaped(field89.reduced(value), l0.shape)


def masked(
    transport: Transport,
    helpers: Sequence[int],
    share: Sequence[Word],
    *,
    t: int,
    lost: int,
    context: bytes,
) -> bytes:
    """A helper's f(i + 1) + g(i + 1) for the node `lost`, as it is told it. Two messages.

    helpers: node ids, t + 1 at least; context: what all of them must hold alike.
    Raises: Disagreement, TransportError.
    """
    me = transport.me
    others = [peer for peer in helpers if peer != me]
    told = f"flai/shamir-share/v1\0{t}\0{lost}\0{tuple(helpers)}\0".encode()
    case = hashlib.sha256(told + context).digest()
    for peer in others:
        transport.send(peer, CASE_SEQ, case)
    if any(bytes(transport.recv(peer, CASE_SEQ)) != case for peer in others):
        raise Disagreement("the helpers do not hold the same model")
    l0, l1, l2 = share
    value, count = field89.shaped((l0, l1, l2), (-1,)), l0.size
    dealt = vanishing([peer + 1 for peer in helpers], at=lost + 1, t=t, count=count)
    for peer, part in zip(helpers, dealt, strict=True):
        if peer == me:
            value = field89.add(value, part)
        else:
            transport.send(peer, MASKS_SEQ, shamir_codec.encoded(part))
    for peer in others:
        data = transport.recv(peer, MASKS_SEQ)
        if len(data) != ELEMENT_BYTES * count:
            raise Disagreement(f"member {peer} sent a message of the wrong size")
        try:
            value = field89.add(value, shamir_codec.decoded(data, count))
        except shamir_codec.Malformed as error:
            raise Disagreement(f"member {peer} sent {error}") from None
    return shamir_codec.encoded(value)


def vanishing(points: Sequence[int], *, at: int, t: int, count: int) -> list[Limbs]:
    """`count` fresh random polynomials of degree t that are 0 at `at`, at each of these points."""
    stream = field89.Stream()
    slopes = [stream.numbers(count) for _ in range(t)]
    dealt = []
    for point in points:
        value = slopes[-1]
        for slope in reversed(slopes[:-1]):
            value = field89.add(field89.times_small(value, point), slope)
        dealt.append(field89.mul(value, field89.of_int(point - at)))
    return dealt


def dealt_anew(
    transport: Transport,
    dealers: Mapping[int, int],
    share: Sequence[Word] | None,
    *,
    t: int,
    t_new: int,
    count: int,
    context: bytes,
) -> Limbs:
    """This node's share, flat and reduced, in the new set: all of `transport`, threshold t_new.

    dealers: {node: its point in the old set}, t + 1 at least; share: this node's there, if it is
    one; context: what all must hold alike. Raises: Disagreement, TransportError, ValueError.
    """
    net = Net(transport, range(transport.n), t_new, factors, context)
    mine = None
    if share is not None:
        l0, l1, l2 = share
        mine = field89.shaped((l0, l1, l2), (-1,))
    parts = net.deal(mine, list(dealers), count)
    points = list(dealers.values())
    base, first = points[: t + 1], parts[: t + 1]

    def told(at: int) -> Limbs:
        return combined([field89.of_int(weight) for weight in factors(base, at)], first)

    spare = zip(points[t + 1 :], parts[t + 1 :], strict=True)
    differences = [field89.sub(part, told(point)) for point, part in spare]
    new = told(0)
    net.check_dealt([new], differences)
    return field89.reduced(new)
