"""Random shared bits, masks made of them, and what they decide: signs, bits, borrows.

A mask r of 89 bits is uniform mod p (all ones is p itself, once in 2^89), so an opened a + r is
uniform whatever a is: hiding is perfect, not statistical. The bits of r being shared, the bits of a
follow from those of the public c = a + r and of the secret r.

Where a is a small number, 0 ≤ a < 2^65, and c ≥ 2^65, the sum has not wrapped. A smaller c (once in
2^24) is thrown away and drawn again with a fresh mask: c is uniform whatever a is, so that the
choice tells nothing.
"""

from __future__ import annotations

import numpy as np

from workers.mpc.engines import field89
from workers.mpc.engines.field89 import Limbs, Word
from workers.mpc.engines.shamir_net import Net
from workers.mpc.engines.shamir_reserve import BLOCK, Reserve, taken

# Bits made at once: bounds the memory of a batch to some 60 MB.
MAKE_MAX = 1 << 18
# A job that runs out of bits makes at least so many.
MAKE_MIN = 1 << 10

# 2^64 keeps a small number of either sign positive; it is 2^4 in the third limb.
OFFSET = 1 << 64
_UNWRAPPED = np.uint64(1 << 5)
_ONE = field89.of_int(1)


class BitPool:
    """One job's shares of random bits, each used once, in the same order at every member."""

    def __init__(self) -> None:
        self._stock: list[Limbs] = []

    def __len__(self) -> int:
        return sum(part[0].size for part in self._stock)

    def add(self, bits: Limbs) -> None:
        self._stock.append(bits)

    def take(self, count: int) -> Limbs:
        """The next `count` bits. Raises: ValueError when there are fewer."""
        if len(self) < count:
            raise ValueError("the pool holds fewer bits")
        parts, wanted = [], count
        while wanted:
            part = self._stock.pop(0)
            if part[0].size > wanted:
                self._stock.insert(0, field89.taken(part, np.s_[wanted:]))
                part = field89.taken(part, np.s_[:wanted])
            parts.append(part)
            wanted -= part[0].size
        return field89.joined(parts) if parts else field89.of_ints([])


def random_bits(net: Net, count: int) -> Limbs:
    """Shared bits that no t members know: the XOR of one bit from each of t + 1."""
    made = []
    for at in range(0, count, MAKE_MAX):
        size = min(MAKE_MAX, count - at)
        none = np.zeros(size, np.uint64)
        mine = (net.random.bits(size), none, none) if net.me <= net.t else None
        parts = net.deal(mine, range(net.t + 1), size)
        while len(parts) > 1:
            half = len(parts) // 2
            left, right = field89.joined(parts[:half]), field89.joined(parts[half : 2 * half])
            both = _xor(left, right, net.product(left, right))
            cut = [field89.taken(both, np.s_[k * size : (k + 1) * size]) for k in range(half)]
            parts = cut + parts[2 * half :]
        made.append(parts[0])
    return field89.joined(made)


def _xor(a: Limbs, b: Limbs, product: Limbs) -> Limbs:
    return field89.sub(field89.add(a, b), field89.times_small(product, 2))


class Bits:
    """What a job knows about bits: its network and its stock of random ones."""

    def __init__(self, net: Net, pool: BitPool, reserve: Reserve | None = None) -> None:
        """reserve: of which every member holds some."""
        self.net = net
        self.pool = pool
        self.used = self.made = self.from_reserve = 0
        self._reserve = reserve

    def draw(self, count: int) -> Limbs:
        if count > len(self.pool) and self._reserve is not None:
            self._fetch(self._reserve, count - len(self.pool))
        lacking = count - len(self.pool)
        if lacking > 0:
            more = max(lacking, MAKE_MIN)
            self.pool.add(random_bits(self.net, more))
            self.made += more
        self.used += count
        return self.pool.take(count)

    def _fetch(self, reserve: Reserve, lacking: int) -> None:
        """From what was made before; when that is used up, it is not asked again."""
        wanted = -(-lacking // BLOCK)
        blocks = taken(self.net, reserve, wanted)
        for block in blocks:
            self.pool.add(block)
        self.from_reserve += BLOCK * len(blocks)
        if len(blocks) < wanted:
            self._reserve = None

    # -- masks --------------------------------------------------------------------------------

    def masked(self, a: Limbs) -> tuple[Limbs, Limbs]:
        """(c, bits of r [89, n]) with c = a + r mod p opened, r uniform; a [n] any number."""
        count = a[0].size
        mask = field89.shaped(self.draw(field89.BITS * count), (field89.BITS, count))
        return self.net.open(field89.add(a, composed(mask))), mask

    def masked_small(self, a: Limbs) -> tuple[Limbs, Limbs]:
        """The same for |a| < 2^63, with c = a + 2^64 + r in integers, not only mod p."""
        lifted = field89.add(a, field89.of_int(OFFSET))
        opened, mask = self.masked(lifted)
        again = np.flatnonzero(opened[2] < _UNWRAPPED)
        while again.size:
            fresh, bits = self.masked(field89.taken(lifted, again))
            for k in range(3):
                opened[k][again] = fresh[k]
                mask[k][:, again] = bits[k]
            again = again[fresh[2] < _UNWRAPPED]
        return opened, mask

    # -- comparisons --------------------------------------------------------------------------

    def below(self, public: Word, bits: Limbs, with_bit: Limbs | None = None) -> Limbs:
        """[c < r], or its XOR with `with_bit`; public bits of c and shared ones of r, [k, n].

        With a random sign s = ±1 and d = c − r bit by bit, e_i = s + d_i + 3·#{j > i: d_j ≠ 0} is 0
        only at the highest place where c and r differ, and only where d_i = −s; one more factor,
        s + 1 + 3·#{j: d_j ≠ 0}, counts equality as c > r. So the product of all e is 0 with
        probability ½ whatever r is; blinded by a random factor it may be opened.
        """
        count = public.shape[1]
        flip = self.draw(count)
        sign = field89.sub(field89.times_small(flip, 2), _ONE)
        unequal = _chosen(public, field89.sub(_ONE, bits), bits)
        # Σ_(j ≥ i), from the top down
        sums = field89.carried(
            *(np.cumsum(limb[::-1], axis=0, dtype=np.uint64)[::-1] for limb in unequal)
        )
        none = np.zeros((1, count), np.uint64)
        above: list[Word] = [np.concatenate([limb[1:], none]) for limb in sums]
        apart = field89.sub((public, np.uint64(0), np.uint64(0)), bits)  # type: ignore[arg-type]
        three = np.uint64(3)
        factors = field89.carried(
            *(s + d + three * x for s, d, x in zip(sign, apart, above, strict=True))
        )
        first = field89.taken(sums, np.s_[:1])
        equal = field89.add(field89.add(sign, _ONE), field89.times_small(first, 3))
        blind = self.net.deal(
            self.net.random.numbers(count) if self.net.me <= self.net.t else None,
            range(self.net.t + 1),
            count,
        )
        l0, l1, l2 = (sum(limbs[1:], start=limbs[0]) for limbs in zip(*blind, strict=True))
        row = field89.shaped(field89.carried(l0, l1, l2), (1, count))
        factors = field89.joined([factors, equal, row])

        kept = flip
        while factors[0].shape[0] > 1:
            half = factors[0].shape[0] // 2
            left = field89.taken(factors, np.s_[:half])
            right = field89.taken(factors, np.s_[half : 2 * half])
            odd = field89.taken(factors, np.s_[2 * half :])
            if with_bit is not None:
                # one more product beside the first level's
                left = field89.joined([left, field89.shaped(flip, (1, count))])
                right = field89.joined([right, field89.shaped(with_bit, (1, count))])
            product = self.net.product(left, right)
            if with_bit is not None:
                kept = _xor(flip, with_bit, field89.taken(product, -1))
                product, with_bit = field89.taken(product, np.s_[:-1]), None
            factors = field89.joined([product, odd])
        opened = field89.reduced(self.net.open(field89.taken(factors, 0)))
        is_zero = ((opened[0] | opened[1] | opened[2]) == 0).astype(np.uint64)
        return _chosen(is_zero, kept, field89.sub(_ONE, kept))

    def negative(self, a: Limbs) -> Limbs:
        """1 where a ∈ (−p/2, 0), for every a [n]: the lowest bit of 2a mod p."""
        opened, mask = self.masked(field89.times_small(a, 2))
        public = bits_of(opened, field89.BITS)
        odd = self.below(public, mask, with_bit=field89.taken(mask, 0))
        # 2a = c − r, plus p where c < r: its lowest bit is c_0 ^ r_0 ^ [c < r]
        return _chosen(public[0], field89.sub(_ONE, odd), odd)

    def low_part(self, a: Limbs, places: int) -> Limbs:
        """a mod 2^places, exactly; |a| < 2^63, places ≤ 64."""
        opened, mask = self.masked_small(a)
        low = field89.taken(mask, np.s_[:places])
        public = bits_of(opened, places)
        borrow = field89.mul(self.below(public, low), field89.of_int(1 << places))
        c_low = low_bits(opened, places)
        return field89.add(field89.sub(c_low, composed(low)), borrow)

    def bits(self, a: Limbs, places: int) -> Limbs:
        """The lowest `places` bits of a's two's complement word, [places, n]; |a| < 2^63."""
        opened, mask = self.masked_small(a)
        low = field89.taken(mask, np.s_[:places])
        public = bits_of(opened, places)
        count = public.shape[1]
        unequal = _chosen(public, field89.sub(_ONE, low), low)
        zero = np.zeros_like(public)
        # borrow out of each place: generated where c_i < r_i, passed on where they are equal
        generate = _chosen(public, (zero, zero, zero), low)
        spread = field89.sub(_ONE, unequal)
        reach = 1
        while reach < places - 1:
            high_g, low_g = _reach(generate, reach)
            high_p, low_p = _reach(spread, reach)
            both = self.net.product(
                field89.joined([high_p, high_p]), field89.joined([low_g, low_p])
            )
            rows = places - reach
            merged = field89.add(high_g, field89.taken(both, np.s_[:rows]))
            generate = field89.joined([field89.taken(generate, np.s_[:reach]), merged])
            spread = field89.joined(
                [field89.taken(spread, np.s_[:reach]), field89.taken(both, np.s_[rows:])]
            )
            reach *= 2
        none = np.zeros((1, count), np.uint64)
        borrow = field89.joined([(none, none, none), field89.taken(generate, np.s_[:-1])])
        return _xor(unequal, borrow, self.net.product(unequal, borrow))

    def top_bit(self, bits: Limbs) -> Limbs:
        """The highest set bit alone, [k, n] (row 0 is the lowest)."""
        clear = field89.sub(_ONE, bits)
        rows, count = clear[0].shape
        reach = 1
        while reach < rows:
            upper, lower = _reach(clear, reach)
            merged = self.net.product(upper, lower)
            clear = field89.joined([merged, field89.taken(clear, np.s_[rows - reach :])])
            reach *= 2
        one, none = np.ones((1, count), np.uint64), np.zeros((1, count), np.uint64)
        above = field89.joined([field89.taken(clear, np.s_[1:]), (one, none, none)])
        return field89.sub(above, clear)


def _reach(x: Limbs, reach: int) -> tuple[Limbs, Limbs]:
    return field89.taken(x, np.s_[reach:]), field89.taken(x, np.s_[:-reach])


def _chosen(public: Word, one: Limbs, zero: Limbs) -> Limbs:
    """`one` where the public bit is 1, `zero` elsewhere."""
    yes = public.astype(bool)
    l0, l1, l2 = (np.where(yes, x, y) for x, y in zip(one, zero, strict=True))
    return l0, l1, l2


def composed(bits: Limbs) -> Limbs:
    """Σ 2^i · bits[i] of [k, n], k ≤ 89: thirty places at a time fit into the limbs' words."""
    parts: list[Limbs] = []
    for at in range(0, bits[0].shape[0], 30):
        rows = field89.taken(bits, np.s_[at : at + 30])
        weights = np.uint64(1) << np.arange(rows[0].shape[0], dtype=np.uint64)
        l0, l1, l2 = (weights @ limb for limb in rows)
        parts.append(field89.carried(l0, l1, l2))
    value = parts[-1]
    for part in reversed(parts[:-1]):
        # 2^30 · x: every limb one up, the top one comes back with weight 2^90 ≡ 2
        raised = (value[2] << np.uint64(1), value[0], value[1])
        value = field89.carried(*(x + y for x, y in zip(raised, part, strict=True)))
    return value


def bits_of(x: Limbs, places: int) -> Word:
    """The lowest bits of public reduced numbers [n], as [places, n]."""
    limbs = field89.reduced(x)
    shifts = np.arange(30, dtype=np.uint64).reshape(-1, 1)
    rows = np.concatenate([(limb >> shifts) & np.uint64(1) for limb in limbs])
    return rows[:places]


def low_bits(x: Limbs, places: int) -> Limbs:
    """x mod 2^places of public numbers, places ≤ 89."""
    masks = [np.uint64(((1 << places) - 1) >> at & (1 << 30) - 1) for at in (0, 30, 60)]
    l0, l1, l2 = (limb & mask for limb, mask in zip(field89.reduced(x), masks, strict=True))
    return l0, l1, l2
