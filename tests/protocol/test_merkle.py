"""RFC 9162 §2.1: golden vectors, and every leaf and prefix of all sizes 1–33."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol import merkle

VECTORS = json.loads((Path(__file__).parent / "rfc6962_vectors.json").read_text())
LEAVES = [bytes.fromhex(x) for x in VECTORS["leaves"]]
HASHES = [merkle.leaf_hash(x) for x in LEAVES]
SIZES = range(1, 34)


def tree(size):
    hashes = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    return hashes, merkle.getter(hashes)


def flipped(path):
    """Every way to flip one bit's byte of, drop, add or swap a hash of a proof."""
    for i, hash_ in enumerate(path):
        yield [*path[:i], bytes([hash_[0] ^ 1]) + hash_[1:], *path[i + 1 :]]
        yield [*path[:i], *path[i + 1 :]]
    yield [*path, bytes(32)]
    if len(path) > 1 and path[0] != path[1]:
        yield [path[1], path[0], *path[2:]]


def test_the_empty_tree_is_the_hash_of_nothing():
    assert merkle.root([]) == merkle.frontier_root([]) == hashlib.sha256(b"").digest()
    assert VECTORS["empty_root"] == merkle.EMPTY_ROOT.hex()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_match_the_certificate_transparency_vectors(size):
    assert merkle.root(HASHES[:size]).hex() == VECTORS["roots"][size - 1]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}of{c['size']}")
def test_inclusion_proofs_match_the_vectors(case):
    get = merkle.getter(HASHES)
    path = merkle.proof(merkle.inclusion_ranges(case["index"], case["size"]), get)
    assert [h.hex() for h in path] == case["path"]


@pytest.mark.parametrize(
    "case", VECTORS["consistency"], ids=lambda c: f"{c['first']}to{c['second']}"
)
def test_consistency_proofs_match_the_vectors(case):
    get = merkle.getter(HASHES)
    path = merkle.proof(merkle.consistency_ranges(case["first"], case["second"]), get)
    assert [h.hex() for h in path] == case["path"]


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_proves_itself_and_no_altered_proof_does(size):
    hashes, get = tree(size)
    root = merkle.root(hashes)
    for index, leaf in enumerate(hashes):
        path = merkle.proof(merkle.inclusion_ranges(index, size), get)
        merkle.verify_inclusion(leaf, index, size, path, root)
        for wrong in flipped(path):
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_inclusion(leaf, index, size, wrong, root)
        for other in {(index + 1) % size, index ^ 1} - {index}:
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_inclusion(leaf, other, size, path, root)
        with pytest.raises(merkle.ProofInvalid):
            merkle.verify_inclusion(bytes(32), index, size, path, root)


@pytest.mark.parametrize("second", SIZES)
def test_every_prefix_proves_itself_and_no_altered_proof_does(second):
    hashes, get = tree(second)
    root = merkle.root(hashes)
    for first in range(1, second + 1):
        path = merkle.proof(merkle.consistency_ranges(first, second), get)
        first_root = merkle.root(hashes[:first])
        merkle.verify_consistency(first, second, first_root, root, path)
        for wrong in flipped(path):
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_consistency(first, second, first_root, root, wrong)
        for wrong_first, wrong_second in ((bytes(32), root), (first_root, bytes(32))):
            with pytest.raises(merkle.ProofInvalid):
                merkle.verify_consistency(first, second, wrong_first, wrong_second, path)


def test_a_rewritten_history_has_no_consistency_proof():
    hashes, _ = tree(9)
    forged = [*hashes[:2], merkle.leaf_hash(b"forged"), *hashes[3:]]
    path = merkle.proof(merkle.consistency_ranges(6, 9), merkle.getter(forged))
    with pytest.raises(merkle.ProofInvalid):
        merkle.verify_consistency(6, 9, merkle.root(hashes[:6]), merkle.root(forged), path)


@pytest.mark.parametrize("ask", [(0, 0), (-1, 3), (3, 3), (4, 3)])
def test_no_inclusion_of_a_leaf_that_is_not_there(ask):
    with pytest.raises(ValueError, match="no leaf"):
        merkle.inclusion_ranges(*ask)
    with pytest.raises(merkle.ProofInvalid):
        merkle.root_from_inclusion(bytes(32), *ask, [])


@pytest.mark.parametrize("ask", [(0, 0), (0, 3), (4, 3)])
def test_no_consistency_from_nothing_or_backwards(ask):
    with pytest.raises(ValueError, match="no consistency"):
        merkle.consistency_ranges(*ask)
    with pytest.raises(merkle.ProofInvalid):
        merkle.verify_consistency(*ask, bytes(32), bytes(32), [])


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_tree_grown_in_batches_is_the_tree_grown_at_once(batches):
    size, frontier, places = 0, [], {}
    for batch in batches:
        new = [merkle.leaf_hash(str(size + i).encode()) for i in range(batch)]
        places |= {(0, size + i): h for i, h in enumerate(new)}
        size, frontier, nodes = merkle.extend(size, frontier, new)
        places |= {(level, index): h for level, index, h in nodes}
    hashes = [merkle.leaf_hash(str(i).encode()) for i in range(size)]
    assert size == sum(batches)
    assert merkle.frontier_root(frontier) == merkle.root(hashes)
    assert frontier == [places[p] for p in merkle.peaks(size)]
    for (level, index), hash_ in places.items():
        assert hash_ == merkle.root(hashes[index << level : (index + 1) << level])


@given(st.integers(1, 10**12), st.data())
def test_a_proof_needs_few_stored_hashes_whatever_the_size(size, data):
    index = data.draw(st.integers(0, size - 1))
    ranges = merkle.inclusion_ranges(index, size)
    assert len(ranges) <= size.bit_length()
    assert sum(end - start for start, end in ranges) == size - 1
    assert len(merkle.places(ranges)) <= 2 * size.bit_length()


@pytest.mark.parametrize("size", SIZES)
def test_all_paths_at_once_are_the_proofs_one_by_one(size):
    hashes, get = tree(size)
    root, paths = merkle.with_paths(hashes)
    assert root == merkle.root(hashes)
    assert paths == [merkle.proof(merkle.inclusion_ranges(i, size), get) for i in range(size)]
