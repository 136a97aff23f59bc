"""Ring engine: replicated secret sharing over Z_2^64, three nodes, one of them may be curious.

x = x_0 + x_1 + x_2 mod 2^64; node i lacks x_i. Any single node's words are uniform and
independent of x. Secure against one *passive* node; an active one may break correctness and
privacy.

What a node receives, and why it tells nothing (k_j: stream of word j, unknown to node j):
- setup: digests, and k_(i+2), which it is entitled to. Its own missing key never reaches it.
- resharing (products, ANDs): node i gets z_(i+1) = part + k_(i+2) − k_i. It does not know k_i,
  so the message is uniform. Streams are never reused.
- truncation: the dealer, node 2, receives nothing. Node 0 gets z_1 masked by k_0, and, of a
  product, z_2 masked by the dealer's own r_2: jointly uniform; together with what node 0 knows
  they open only v + r, and r is uniform to it. Node 1 gets z_0 masked by k_1, the same z_2 + r_2,
  and the dealer's r_high and r_top masked by k_1. Last, each sends its part of the result masked
  by a stream that the other does not have (k_1 from node 0, k_0 from node 1).
- sharing of u = x_1 + x_2, of what `ring_signs` tells of it, and of b_1 ^ b_2: node 1 gets it
  masked by k_1.
- the end of a sign: each node gets the two other parts of s ^ r. Parts are masked like a
  resharing's, so that they tell only their sum, and that is uniform: r is.
- opening: the one missing word. Together with the node's own words it is determined by the
  opened value, so it shows nothing else. `open_rounded` opens the upper bits of a XOR sharing,
  whose lower bits stay where they are. Both holders send the word and must agree.
- noise: what a node has drawn enters as its part of a resharing, so nobody sees it.
- a sealed output gets a fresh sharing of 0 added before it leaves: its addressee sees all three
  words, and they must tell no more than their sum. A result stays where its words already are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from apps.protocol.circuits import Circuit
from apps.protocol.tickets import TRIO
from workers.mpc.engines.base import Bilinear, Shared, Word, as_words, blocks, share_of
from workers.mpc.engines.counted import Disagreement
from workers.mpc.engines.ring_base import (
    Replicated,
    RingOutcome,
    Words,
    entering,
    run_replicated,
)
from workers.mpc.engines.ring_bits import Array, Bits
from workers.mpc.engines.ring_net import Net
from workers.mpc.engines.ring_signs import signs
from workers.mpc.engines.running import entered
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.transport import Transport

__all__ = ["Disagreement", "Ring", "RingOutcome", "run_ring"]

Pair = tuple[Word, Word]

_ONE, _LOW_63, _TOP = (np.array(number, np.uint64) for number in (1, (1 << 63) - 1, 63))
_WORD = np.dtype(np.uint64)


class Ring(Replicated):
    """One node's side of a computation. Every member must make the same calls."""

    def __init__(self, net: Net) -> None:
        self.net = net

    def _constant(self, words: Word) -> Pair:
        """The public words as word 0, nothing elsewhere."""
        none = np.zeros(words.shape, np.uint64)
        return ((none, none), (none, words), (words, none))[self.net.me]

    def add_public(self, a: Shared, ints: npt.ArrayLike) -> Shared:
        words = as_words(ints)
        if words.shape not in ((1,), a.shape) and (
            np.broadcast_shapes(words.shape, a.shape) != a.shape
        ):
            raise ValueError("what is added does not have the secret's shape")
        if self.net.me == 0:
            return a
        first, second = a.words
        pair = (first, second + words) if self.net.me == 1 else (first + words, second)
        return Shared(pair, a.f)

    def _product(self, bilinear: Bilinear, a: Shared, b: Shared, drop: int) -> Pair:
        """x_1 y_1 + x_1 y_2 + x_2 y_1 at each node, over all nodes, is the whole product."""
        (x, x2), (y, y2) = a.words, b.words
        # of two sums, the one with fewer words to make
        if x.size < y.size:
            part = as_words(bilinear(x + x2, y) + bilinear(x, y2))
        else:
            part = as_words(bilinear(x, y + y2) + bilinear(x2, y))
        if not drop:
            return self.net.reshare(part)
        first, second = self._drop((part,), drop, of_three=True)
        return first.reshape(part.shape), second.reshape(part.shape)

    def _truncate(self, a: Shared, drop: int) -> Pair:
        """Nodes 0 and 1 hold all three words between them: x_1 + x_2 and x_0."""
        parts = a.words if self.net.me == 0 else a.words[1:]
        first, second = self._drop(parts, drop, of_three=False)
        return first.reshape(a.shape), second.reshape(a.shape)

    def _drop(self, parts: Sequence[Word], drop: int, *, of_three: bool) -> Pair:
        """Additive parts of v, |v| < 2^62 -> replicated ⌊v/2^drop⌋ + {0, 1}, flat. Two rounds.

        `parts` are those of this node, to be added up.

        The mask r is the sum of streams that node 0 or node 1 lacks (and, when node 2 has a part
        of v as well, of that node's own). Nodes 0 and 1 open c = v + 2^62 + r; node 2 deals the
        parts of r. As v + 2^62 < 2^63, the overflow of the low 63 bits is w = top(c) ^ top(r),
        linear in top(r), so that
        ⌊(v + 2^62)/2^drop⌋ = low(c) >> drop − low(r) >> drop + w·2^(63 − drop) + {0, 1}
        has no rare huge error, unlike local truncation of the words. top(r) counts only modulo
        2^(drop + 1): mostly half a word does.
        """
        assert 1 <= drop <= 62
        net = self.net
        parts = [part.reshape(-1) for part in parts]
        count, shift = parts[0].size, np.array(drop, np.uint64)
        bit = np.dtype(np.uint32 if drop < 32 else np.uint64)
        if net.me == 2:
            return self._deal(parts[0] if of_three else None, count, shift, bit)

        other, stream = (1, net.first) if net.me == 0 else (0, net.second)
        opened = np.empty(count, np.uint64)
        for at in blocks(count):
            np.add(parts[0][at], stream.words(len(opened[at])), out=opened[at])
            for part in parts[1:]:
                opened[at] += part[at]
        net.send(other, opened)
        more = [net.recv(other, count)]
        high = top = np.empty(0, np.uint64)
        if net.me == 1:
            *hidden, high, top = net.recv_parts(
                2, [(count, _WORD)] * (1 + of_three) + [(count, bit)]
            )
            more += hidden
        elif of_three:
            more.append(net.recv(2, count))
        net.step()
        half, wrap, lower = (np.array(1 << at, np.uint64) for at in (62, 63 - drop, 62 - drop))
        result, kept = np.empty(count, np.uint64), np.empty(count, np.uint64)
        for at in blocks(count):
            c = opened[at]
            for part in more:
                c += part[at]
            c += half
            flag = c >> _TOP
            if net.me == 0:
                high_at, top_at = stream.words(len(c)), stream.draw(len(c), bit)
            else:
                high_at, top_at = high[at], top[at]
            here = np.multiply(top_at, wrap, out=result[at])
            here -= (flag + flag) * here
            here -= high_at
            if net.me == 0:
                c &= _LOW_63
                c >>= shift
                flag *= wrap
                here += c
                here += flag
                here -= lower
            # words 0 and 1 of the result are streams; word 2 is what remains
            kept[at] = stream.words(len(c))
            here -= kept[at]
        net.send(other, result)
        result += net.recv(other, count)
        net.step()
        return (kept, result) if net.me == 0 else (result, kept)

    def _deal(self, part: Word | None, count: int, shift: Word, bit: np.dtype[Any]) -> Pair:
        """Node 2's side of `_drop`: parts of r, and its own part of v hidden by one of them."""
        net = self.net
        mask = np.empty(count, np.uint64)
        message, (*hidden, high, top) = net.message(
            [(count, _WORD)] * (1 + (part is not None)) + [(count, bit)]
        )
        for at in blocks(count):
            np.add(net.first.words(len(mask[at])), net.second.words(len(mask[at])), out=mask[at])
        if part is not None:
            (own,) = hidden
            for at in blocks(count):
                drawn = net.private.words(len(own[at]))
                mask[at] += drawn
                np.add(drawn, part[at], out=own[at])
            net.send(0, own)
        word_0, word_1 = np.empty(count, np.uint64), np.empty(count, np.uint64)
        for at in blocks(count):
            r = mask[at]
            # word 1's stream is also node 0's: its parts of high and top need no message
            np.subtract((r & _LOW_63) >> shift, net.second.words(len(r)), out=high[at])
            np.subtract((r >> _TOP).astype(bit), net.second.draw(len(r), bit), out=top[at])
            word_0[at], word_1[at] = net.first.words(len(r)), net.second.words(len(r))
        net.send(1, message)
        net.step()
        net.step()
        return word_0, word_1

    def bits_and(self, x: Bits, y: Bits) -> Bits:
        """z_i = the cross terms that node i can form, masked."""
        (words,) = self.net.pass_left(self.net.and_part(x, y))
        return Bits(words)

    def summands(self, a: Shared) -> tuple[Bits, Bits, Bits]:
        """u = x_1 + x_2 (known to node 0) and v = x_0.

        Node 0 masks u with the stream of word 1, which node 1 cannot compute, and sends the rest to
        node 1; v needs no message: it is word 0 of its own sharing.
        """
        net = self.net
        first, second = (word.reshape(-1) for word in a.words)
        none = np.zeros_like(first)
        if net.me == 0:
            mask = net.first.words(first.size)
            rest = (first + second) ^ mask
            net.send(1, rest)
            u, v = Bits((mask, rest)), Bits((none, none))
        elif net.me == 1:
            u, v = Bits((net.recv(0, first.size), none)), Bits((none, second))
        else:
            u, v = Bits((none, net.second.words(first.size))), Bits((first, none))
        net.step()
        return u, v, self.bits_and(u, v)

    def _to_integers(self, bit: Bits) -> Pair:
        """Node 0 shares p = b_1 ^ b_2 as in `summands`, with subtraction for the mask; q = b_0 is
        word 0 of its own sharing; p xor q = p + q − 2pq."""
        net, shape = self.net, bit.words[0].shape
        first, second = (word.reshape(-1) for word in bit.words)
        none = np.zeros(first.size, np.uint64)
        if net.me == 0:
            mask = net.first.words(first.size)
            rest = (first ^ second).astype(np.uint64) - mask
            net.send(1, rest)
            p, q = (mask, rest), (none, none)
        elif net.me == 1:
            rest = net.recv(0, first.size)
            p, q = (rest, none), (none, second.astype(np.uint64))
        else:
            mask = net.second.words(first.size)
            p, q = (none, mask), (first.astype(np.uint64), none)
        net.step()
        both = net.reshare(p[0] * (q[0] + q[1]) + p[1] * q[0])
        two = np.uint64(2)
        return (
            (p[0] + q[0] - two * both[0]).reshape(shape),
            (p[1] + q[1] - two * both[1]).reshape(shape),
        )

    def _signs(self, words: Words) -> Pair:
        return signs(self, self.net, *words)

    def _noise(self, count: int, variance: int) -> Pair:
        """Each node's own numbers are its additive part. Two of the three suffice."""
        mine = discrete_gaussian(self.net.private, share_of(variance, TRIO - 1), count)
        return self.net.reshare(as_words(mine))

    def _missing(self, words: Words) -> Array:
        return self.net.exchange_missing(*words)

    def refresh(self, a: Shared) -> Shared:
        """The same value on fresh words: nothing of the computation's history leaves with it."""
        ((mine, other),) = self.net.pass_left(self.net.zero(a.shape))
        return Shared((a.words[0] + mine, a.words[1] + other), a.f)


def run_ring(
    circuit: Circuit,
    shares: Mapping[str, Sequence[Words]],
    params: Mapping[str, Any],
    transport: Transport,
    *,
    context: bytes = b"",
) -> RingOutcome:
    """Run a circuit together with the two other members of `transport`; blocks.

    shares[slot]: per member, in roster order, (word (me+1)%3, word (me+2)%3) as uint64.
    context: bytes that must be equal at all members (the digest of the job's descriptor).
    Raises: BadParams, ValueError (shapes); Disagreement; PeerLost, DeadlineExceeded.
    """
    secrets = entered(circuit, shares, params, entering(TRIO))
    net = Net(transport, context)
    return run_replicated(circuit, Ring(net), net, secrets, params)
