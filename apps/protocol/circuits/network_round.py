"""NAME_round@1 of a class with hidden layers: the mean of what sites' own steps changed.

All sites begin at the public start (circuits/network.py), so that a hidden unit stands for the same
thing everywhere, and share D_k = w_k − start. Of 10^6 numbers a site, looking at each one is most
of the cost. So none is: no update is cut, clipped or multiplied by itself, but in

0. Its numbers are added up in BUCKETS, each with a sign, as the nodes draw them only now; TABLES
   times. Of whom a bucket is more than REACH, or all squared and added up more than REACH², or who
   is longer than LENGTH_MAX, sent nothing: D_k counts as 0.
1. ⟨D_j, D_k⟩: lengths, copies (circuits/copies.py), and c_k = min(1, median‖D‖ / ‖D_k‖).
2. p = start + ½·mean(c_k·D_k), one product of [K] with [K, ·]; −∇L_v(p) by layers forward and back;
   u_vk = c_k·⟨D_k, −∇L_v⟩ − ½·mean_j c_j·⟨D_j, −∇L_v⟩ = ⟨c_k·D_k − (p − start), −∇L_v(p)⟩.
3. φ and the evidence as in every round; w* = start + Σ (a_k / S)·c_k·D_k, another such product.

Why (0) holds (docs/adr/0037): of numbers that are not within ±2·REACH, whatever they are mod 2^64,
all buckets are small once in BUCKETS^TABLES = 2^40 times; of such as are within, and longer than
2·REACH together, all sums of squares in 2^32. So from there on every word is what it stands for.
Who keeps to LENGTH_MAX fails once in 10^11.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from apps.protocol.circuits.copies import GRAM_F, pairs_of, shared_out
from apps.protocol.circuits.declare import Outcome, Params
from apps.protocol.circuits.family import ModelClass, concluded, judged, read_holdouts
from apps.protocol.circuits.layout import INPUT_F, MODEL_F, SCORE_F
from apps.protocol.circuits.network import backward, columns_of, flat_of, forward, start_of
from apps.protocol.circuits.scoring import UTILITY_F, clipping

LENGTH_MAX = 60  # with the start's weights, under 2, a model's stay within layout.MODEL_BOUND
REACH, TABLES, BUCKETS = 8 * LENGTH_MAX, 4, 1 << 10
LENGTHS_F = 2 * INPUT_F
REACH_SQUARED = REACH**2 << LENGTHS_F
SQUARED_MAX = LENGTH_MAX**2 << LENGTHS_F
# Where sites are compared: at ¾, as one-shot means of linear classes are, honest sites of five
# differed by chance from 0.02 to 1, at ½ from 0.8.
SCORING_POINT = 0.5
FACTOR_F, SHARE_F, HALF_F = 22, 30, 38
WORD = 1 << 63
# Numbers of a site at once: those of ten sites stay in a core's cache.
BLOCK = 1 << 16
TOLD_BITS = 10  # of ⟨D, ∇L⟩, which is about 1


def run_round(
    model: ModelClass, ops: Any, secrets: Mapping[str, Sequence[Any]], params: Params
) -> Outcome:
    layers = model.layers(params)
    start, changes = start_of(layers), secrets["update"]
    held = read_holdouts(model, ops, secrets["holdout"], params)
    good, gram = measured(ops, changes)
    sites = len(changes)
    squared = ops.index(gram, (np.arange(sites), np.arange(sites)))
    squared = ops.within(squared, 0, SQUARED_MAX)  # of a sum of squares
    inverse = ops.rsqrt(squared, f=FACTOR_F, bits=SQUARED_MAX.bit_length())
    pairs = pairs_of(ops, _of_units(ops, gram, inverse))
    clip = ops.clamp(clipping(ops, 1, squared, inverse), 0, 1 << FACTOR_F)
    clip = ops.mul(clip, good)

    def mean(shares: Sequence[int]) -> Any:
        """start + Σ shares_k · c_k · D_k at f = 24, of shares [K] at f = 30, of 1 at most."""
        part = ops.trunc(ops.scale(clip, np.array(shares), f=SHARE_F), SHARE_F)
        part = ops.mul(part, good)  # cut, 0 may have become 2^−30, and they sent any words
        # none of c_k · D_k is longer than LENGTH_MAX, and part is off by 2^−30
        most = (LENGTH_MAX + 1) << MODEL_F
        moved = [
            ops.within(ops.matmul(ops.reshape(part, (1, -1)), block, f=MODEL_F), -most, most)
            for _, block in blocks_of(ops, changes)
        ]
        return ops.add_public(ops.reshape(ops.concat(moved, axis=1), (-1,)), start)

    half = SCORING_POINT / sites
    columns = columns_of(ops, mean([round(half * 2**SHARE_F)] * sites), layers)

    def utility(inputs: Any, targets: Any) -> Any:
        """[K] at f = 40 of one validator's rows, times rows over the next power of two."""
        taken, alive = forward(ops, inputs, columns)
        scores = model.settle(ops, ops.matmul(taken[-1], columns[-1], f=SCORE_F))
        errors = backward(ops, model.residuals(ops, scores, targets), columns, alive)
        below = (inputs.shape[0] - 1).bit_length()
        descent = []
        for x, each in zip(taken, errors, strict=True):
            total = ops.matmul(ops.transpose(x), each, f=x.f + each.f)
            descent.append(ops.trunc(ops.halve(total, below), UTILITY_F - INPUT_F))
        along = ops.reshape(flat_of(ops, descent), (-1, 1))
        products = (
            ops.matmul(block, ops.index(along, at), f=UTILITY_F)
            for at, block in blocks_of(ops, changes)
        )
        told = ops.reshape(_added(ops, products), (-1,))
        # of rows at their bounds it leaves the word: any is cut, and a validator may say anything
        told = ops.within(ops.mul(told, good), -WORD, WORD - 1)
        limit = 1 << TOLD_BITS + UTILITY_F
        told = ops.trunc(ops.clamp(told, -limit, limit), 26)
        own = ops.mul(told, clip, f=UTILITY_F)
        every = ops.trunc(ops.reshape(ops.sum(own, 0), (1,)), 26)
        middle = ops.trunc(ops.scale(every, round(half * 2**20), f=20), UTILITY_F)
        return ops.mul(ops.sub(own, ops.broadcast(middle, own.shape)), good)

    phi = judged(ops, held, params, 0, utility)

    def merged() -> Any:
        shares = shared_out(phi, pairs)
        return mean([(share << SHARE_F) // sum(shares) for share in shares])

    return concluded(model, ops, held, params, phi, pairs, merged)


def blocks_of(ops: Any, changes: Sequence[Any]) -> Iterator[tuple[slice, Any]]:
    """(places, their numbers of all sites [K, ·]), one after the other: of 10^6 numbers a site a
    copy, or a sum of two, of all at once would cost more than what is done with them."""
    for start in range(0, changes[0].shape[0], BLOCK):
        at = np.s_[start : start + BLOCK]
        yield at, ops.stack([ops.index(each, at) for each in changes])


def measured(ops: Any, changes: Sequence[Any]) -> tuple[Any, Any]:
    """(1 where an update is LENGTH_MAX long at most, 0 for the others, whatever words they are [K];
    products of all such updates [K, K] at f = 32, 0 for the others), of K updates at f = 16."""
    sites, reach = len(changes), REACH << INPUT_F
    both = [
        (
            ops.random_sums(block, TABLES, BUCKETS),
            ops.matmul(block, ops.transpose(block), f=LENGTHS_F),
        )
        for _, block in blocks_of(ops, changes)
    ]
    sums, gram = (_added(ops, each) for each in zip(*both, strict=True))
    # of whatever words: the sums are whatever they are
    sums = ops.within(sums, -WORD, WORD - 1)
    far = ops.ltz(ops.stack([ops.add_public(sums, reach), ops.add_public(ops.neg(sums), reach)]))
    small = _none(ops, ops.reshape(ops.sum(far, 0), (sites, -1)))
    squares = ops.mul(ops.dot(sums, sums, f=LENGTHS_F), ops.broadcast(small, (sites, TABLES)))
    squares = ops.within(squares, 0, BUCKETS * REACH_SQUARED)  # each within ±REACH, or nothing
    most = ops.broadcast(ops.public([REACH_SQUARED], LENGTHS_F), squares.shape)
    small = ops.reshape(small, (-1,))
    small = ops.mul(small, ops.reshape(_none(ops, ops.less_than(most, squares)), (-1,)))
    own = ops.mul(ops.index(gram, (np.arange(sites), np.arange(sites))), small)
    own = ops.within(own, 0, 4 * REACH_SQUARED)  # so long at most, or nothing
    long = ops.less_than(ops.broadcast(ops.public([SQUARED_MAX], LENGTHS_F), own.shape), own)
    good = ops.within(ops.sub(small, ops.mul(small, long)), 0, 1)
    row = ops.broadcast(ops.reshape(good, (1, -1)), gram.shape)
    both = ops.mul(row, ops.transpose(row))
    # of two that are no longer than that
    return good, ops.within(ops.mul(gram, both), -SQUARED_MAX, SQUARED_MAX)


def _added(ops: Any, parts: Iterable[Any]) -> Any:
    return reduce(ops.add, parts)


def _none(ops: Any, bits: Any) -> Any:
    """1 where none of bits [K, n], or counts, is more than 0, [K, 1]."""
    return ops.reshape(ops.ltz(ops.add_public(ops.sum(bits, 1), -1)), (-1, 1))


def _of_units(ops: Any, gram: Any, inverse: Any) -> Any:
    """⟨û_j, û_k⟩ [K, K] at f = 30, û = D / ‖D‖, of ⟨D_j, D_k⟩ and 1/‖D‖."""
    across = ops.broadcast(ops.reshape(inverse, (1, -1)), gram.shape)
    # 1/‖D‖ makes no more than √2 of a length (copies.copies)
    most, one = (LENGTH_MAX * 3 // 2) << HALF_F, 3 << GRAM_F
    half = ops.within(ops.mul(gram, across, f=HALF_F), -most, most)
    return ops.within(ops.mul(half, ops.transpose(across), f=GRAM_F), -one, one)
