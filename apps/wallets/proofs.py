"""Entries and proofs of the log, for anyone. A proof counts only against a signed head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from apps.core.errors import BadInput, DomainError, NotFound
from apps.protocol import merkle, wire
from apps.wallets import log
from apps.wallets.models import LogLeaf, TreeHead

ENTRIES_MAX = 1000
# Leaves without a number are in no index by their hash: so many, the newest, are looked through.
WAITING_MAX = 1000


class NotSequenced(DomainError):
    code = "not_sequenced"
    status = 409
    text = "This entry is written but not numbered yet; it is within a second or two."


def head_json(head: TreeHead) -> dict[str, Any]:
    """A head as the API shows it; the signature covers {"v","size","root","at"}."""
    return log.head_content(head.size, head.root, head.at_ms) | {"signature": head.signature}


def head() -> TreeHead:
    """The newest head. Raises NotFound for an empty log."""
    found = log.head_latest()
    if found is None:
        raise NotFound("log_empty", "The log has no entries yet.")
    return found


def entries(start: int, end: int) -> list[dict[str, Any]]:
    """Leaves [start, end) in order, at most 1000; fewer where the log ends.

    Raises BadInput for a range that is none.
    """
    if not 0 <= start < end:
        raise BadInput("bad_range", "start must be at least 0 and less than end.")
    end = min(end, start + ENTRIES_MAX)
    leaves = LogLeaf.objects.filter(seq__gte=start, seq__lt=end).order_by("seq")
    return [leaf_json(leaf) for leaf in leaves]


def leaf_json(leaf: LogLeaf) -> dict[str, Any]:
    """{index, leaf_b64, hash}."""
    return {
        "index": leaf.seq,
        "leaf_b64": wire.b64(bytes(leaf.data)),
        "hash": bytes(leaf.hash).hex(),
    }


def find(*, index: int | None = None, hash: str | None = None, ref: str | None = None) -> LogLeaf:
    """A numbered leaf by index, by leaf hash (hex) or by "type:ref".

    Raises: BadInput, NotFound, NotSequenced.
    """
    if sum(x is not None for x in (index, hash, ref)) != 1:
        raise BadInput("bad_lookup", "Give one of index, hash or ref.")
    if index is not None:
        leaf = LogLeaf.objects.filter(seq=index).first()
    elif hash is not None:
        if not wire.is_hex(hash, merkle.HASH_BYTES):
            raise BadInput("bad_hash", "A leaf hash is 64 hex digits.")
        same = LogLeaf.objects.filter(hash=bytes.fromhex(hash)).order_by("id")
        waiting = LogLeaf.objects.filter(seq=None).order_by("-id")[:WAITING_MAX]
        leaf = same.filter(seq__isnull=False).first() or next(
            (one for one in waiting if bytes(one.hash).hex() == hash), None
        )
    else:
        type_, _, ref_id = str(ref).partition(":")
        leaf = log.leaf_for(type_, ref_id) if ref_id else None
    if leaf is None:
        raise NotFound("leaf_not_found", "The log has no such entry.")
    if leaf.seq is None:
        raise NotSequenced()
    return leaf


def inclusion(leaf: LogLeaf, size: int | None = None) -> dict[str, Any]:
    """{index, leaf_b64, hash, size, root, path}; `size` defaults to the newest head's.

    Raises BadInput for a size that does not hold the leaf or that no head reaches.
    """
    newest = head().size
    size = newest if size is None else size
    assert leaf.seq is not None
    if not leaf.seq < size <= newest:
        raise BadInput("bad_size", f"The size must be from {leaf.seq + 1} to {newest}.")
    ranges = merkle.inclusion_ranges(leaf.seq, size)
    path, root = _hashes(ranges, size)
    return leaf_json(leaf) | {"size": size, "root": root, "path": path}


def inclusions(leaves: Iterable[LogLeaf]) -> dict[str, Any]:
    """{head, key, entries: [{index, leaf_b64, hash, path}]}: those of these numbered leaves that
    the newest head covers, their paths by one query. Raises NotFound for an empty log."""
    newest = head()
    covered = [leaf for leaf in leaves if leaf.seq is not None and leaf.seq < newest.size]
    ranges = [merkle.inclusion_ranges(leaf.seq or 0, newest.size) for leaf in covered]
    table = log.subtree_hashes(place for each in ranges for place in merkle.places(each))
    return {
        "head": head_json(newest),
        "key": log.public_key(),
        "entries": [
            leaf_json(leaf)
            | {"path": [h.hex() for h in merkle.proof(each, lambda lv, at: table[lv, at])]}
            for leaf, each in zip(covered, ranges, strict=True)
        ],
    }


def consistency(first: int, second: int) -> dict[str, Any]:
    """{first, second, first_root, second_root, path}: the earlier tree begins the later one.

    Raises BadInput unless 0 < first ≤ second ≤ newest size.
    """
    newest = head().size
    if not 0 < first <= second <= newest:
        raise BadInput("bad_sizes", f"Sizes must satisfy 0 < first ≤ second ≤ {newest}.")
    path, second_root = _hashes(merkle.consistency_ranges(first, second), second)
    _, first_root = _hashes([], first)
    return {
        "first": first,
        "second": second,
        "first_root": first_root,
        "second_root": second_root,
        "path": path,
    }


def _hashes(ranges: Iterable[tuple[int, int]], size: int) -> tuple[list[str], str]:
    """(hashes of the ranges, root at `size`), both hex, by one query."""
    ranges = list(ranges)
    table = log.subtree_hashes([*merkle.places(ranges), *merkle.peaks(size)])
    root = merkle.frontier_root([table[place] for place in merkle.peaks(size)])
    path = merkle.proof(ranges, lambda level, index: table[level, index])
    return [hash_.hex() for hash_ in path], root.hex()
