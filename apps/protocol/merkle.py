"""Merkle tree of RFC 9162 §2.1 (the hashing of RFC 6962), pure.

    MTH({})      = SHA-256("")
    MTH({d})     = SHA-256(0x00 ‖ d)
    MTH(D[0:n])  = SHA-256(0x01 ‖ MTH(D[0:k]) ‖ MTH(D[k:n])),  k = the largest power of two < n

Hashes are 32 bytes. Proofs are built from stored hashes of full subtrees, looked up by
`get(level, index)`: the subtree over leaves [index·2^level, (index + 1)·2^level), so that a proof
costs O(log n) look-ups. A proof counts only against a signed head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
Place = tuple[int, int]
Get = Callable[[int, int], bytes]


class ProofInvalid(Exception):
    """The proof does not connect what it claims to connect."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(n: int) -> int:
    """The largest power of two below n, n ≥ 2."""
    return 1 << ((n - 1).bit_length() - 1)


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH by its definition, from leaf hashes; the oracle for everything else here."""
    n = len(leaf_hashes)
    if n == 0:
        return EMPTY_ROOT
    if n == 1:
        return leaf_hashes[0]
    k = split(n)
    return node_hash(root(leaf_hashes[:k]), root(leaf_hashes[k:]))


def with_paths(leaf_hashes: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root of a small tree, and the inclusion path of each of its leaves: what `root` and
    `proof` give, for all of them at once."""
    levels = [list(leaf_hashes)]
    while len(levels[-1]) > 1:
        row = levels[-1]
        pairs = [node_hash(left, right) for left, right in zip(row[::2], row[1::2])]
        levels.append(pairs + row[len(pairs) * 2 :])  # an odd one goes up as it is

    def path(index: int) -> list[bytes]:
        beside = ((row, index >> height ^ 1) for height, row in enumerate(levels[:-1]))
        return [row[at] for row, at in beside if at < len(row)]

    return levels[-1][0], [path(index) for index in range(len(leaf_hashes))]


def peaks(size: int) -> list[Place]:
    """(level, index) of the full subtrees that make up [0, size), widest first."""
    places, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            places.append((level, start >> level))
            start += 1 << level
    return places


def extend(
    size: int, frontier: Sequence[bytes], new: Iterable[bytes], *, lowest: int = 1
) -> tuple[int, list[bytes], list[tuple[int, int, bytes]]]:
    """Append leaf hashes to a tree given by its `frontier` (hashes at `peaks(size)`).

    Returns (new size, new frontier, completed full subtrees as (level ≥ lowest, index, hash), by
    level).
    """
    sha256, row = hashlib.sha256, list(new)
    end, at = size + len(row), size  # `at`: the place of the row's first on its level
    lefts = dict(zip((level for level, _ in peaks(size)), frontier, strict=True))
    nodes: list[tuple[int, int, bytes]] = []
    level = 0
    while row:
        if at & 1:  # its left half was there before
            row.insert(0, lefts.pop(level))
        if len(row) & 1:
            lefts[level] = row.pop()
        row = [sha256(b"\x01" + a + b).digest() for a, b in zip(row[::2], row[1::2], strict=True)]
        level, at = level + 1, at >> 1
        if level >= lowest:
            nodes += [(level, at + i, hash_) for i, hash_ in enumerate(row)]
    return end, [lefts[level] for level in sorted(lefts, reverse=True)], nodes


def frontier_root(frontier: Sequence[bytes]) -> bytes:
    """MTH from the hashes at `peaks(size)`."""
    if not frontier:
        return EMPTY_ROOT
    hash_ = frontier[-1]
    for left in reversed(frontier[:-1]):
        hash_ = node_hash(left, hash_)
    return hash_


def _range_places(start: int, end: int) -> list[Place]:
    """Full subtrees that make up [start, end), where `start` is aligned to the range's width."""
    return [(level, (start >> level) + index) for level, index in peaks(end - start)]


def _range_hash(start: int, end: int, get: Get) -> bytes:
    return frontier_root([get(level, index) for level, index in _range_places(start, end)])


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Leaf ranges whose hashes prove leaf `index` in a tree of `size`, leaf side first.

    Raises ValueError unless 0 ≤ index < size. Source: RFC 9162 §2.1.3.1, PATH(m, D[n]).
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of size {size}")
    ranges, start, end = [], 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """Leaf ranges whose hashes prove that the tree of size `first` begins that of `second`.

    Empty for equal sizes. Raises ValueError unless 0 < first ≤ second.
    Source: RFC 9162 §2.1.4.1, PROOF(m, D[n]) = SUBPROOF(m, D[n], true).
    """
    if not 0 < first <= second:
        raise ValueError(f"no consistency between sizes {first} and {second}")
    ranges, start, end, known = [], 0, second, True
    while first != end:
        middle = start + split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, known = middle, False
    if not known:
        ranges.append((start, end))
    return ranges[::-1]


def places(ranges: Iterable[tuple[int, int]]) -> list[Place]:
    """The full subtrees whose hashes a list of ranges needs: what to fetch in one query."""
    return [place for start, end in ranges for place in _range_places(start, end)]


def proof(ranges: Iterable[tuple[int, int]], get: Get) -> list[bytes]:
    """The hashes of the ranges, in order."""
    return [_range_hash(start, end, get) for start, end in ranges]


def getter(leaf_hashes: Sequence[bytes]) -> Get:
    """`get` over leaf hashes held in memory."""
    _, _, nodes = extend(0, [], leaf_hashes)
    table = {(level, index): hash_ for level, index, hash_ in nodes}
    return lambda level, index: leaf_hashes[index] if level == 0 else table[level, index]


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that leaf hash `leaf` at `index` and `path` lead to in a tree of `size`.

    Raises ProofInvalid for a path of the wrong length. Source: RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size:
        raise ProofInvalid(f"no leaf {index} in a tree of size {size}")
    fn, sn, hash_ = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise ProofInvalid("the path is too long")
        if fn & 1 or fn == sn:
            hash_ = node_hash(sibling, hash_)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            hash_ = node_hash(hash_, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise ProofInvalid("the path is too short")
    return hash_


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root_hash: bytes
) -> None:
    """`leaf` is the hash of leaf `index` in the tree (size, root_hash). Raises ProofInvalid."""
    if root_from_inclusion(leaf, index, size, path) != root_hash:
        raise ProofInvalid(f"leaf {index} is not in the tree of size {size} with this root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """The tree (second, second_root) begins with the tree (first, first_root).

    Raises ProofInvalid. Source: RFC 9162 §2.1.4.2.
    """
    if not 0 < first <= second:
        raise ProofInvalid(f"no consistency between sizes {first} and {second}")
    if first == second:
        if path or first_root != second_root:
            raise ProofInvalid(f"two different trees of size {first}")
        return
    hashes = list(path)
    if first & (first - 1) == 0:
        hashes.insert(0, first_root)
    if not hashes:
        raise ProofInvalid("the path is too short")
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = hashes[0]
    for hash_ in hashes[1:]:
        if sn == 0:
            raise ProofInvalid("the path is too long")
        if fn & 1 or fn == sn:
            old, new = node_hash(hash_, old), node_hash(hash_, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, hash_)
        fn, sn = fn >> 1, sn >> 1
    if sn or old != first_root or new != second_root:
        raise ProofInvalid(f"the tree of size {second} does not begin with that of size {first}")
