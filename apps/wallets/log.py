"""The Merkle log: leaves, their numbering, signed heads.

A leaf is canonical bytes of {"v":1, "type", "at": unix ms, "body"}, written in the transaction of
what it tells. It gets its number later, in batches, so that no row is hot. Bodies carry pids, ids,
hashes and amounts (as strings) only: never names, e-mail or free text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection

from apps.core.clock import unix_ms
from apps.core.joined import Joined, prepared
from apps.core.live import changed
from apps.core.transactions import durable, require_transaction
from apps.protocol import heads, merkle, wire
from apps.protocol.heads import HEAD_DOMAIN, head_content
from apps.wallets.models import LogLeaf, TreeHead

BATCH_MAX = 20_000
PULSE_S = heads.PULSE_S
# One sequencer at a time in the whole cluster: "FLAI" "log" as two 32-bit words.
SEQUENCER_LOCK = (0x464C4149, 0x6C6F67)
_TYPE = re.compile(r"[a-z]+\.[a-z_]+")


def leaf_bytes(type: str, body: dict[str, Any], *, now: datetime) -> bytes:
    """canonical({"v":1,"type","at","body"}).

    Raises ValueError for a type that is not "app.word" or a body without canonical form.
    """
    if not _TYPE.fullmatch(type):
        raise ValueError(f"{type!r} is no leaf type")
    return wire.canonical({"v": 1, "type": type, "at": unix_ms(now), "body": body})


# The name by which a body names the thing that it is about, the nearest first.
SUBJECTS = ("id", "round", "proposal", "listing", "rfm")


def append(type: str, body: dict[str, Any], *, now: datetime, ref: Any = None) -> LogLeaf:
    """Write one leaf in the caller's transaction; `ref` (or what `body` is about) finds it."""
    return append_all([(type, body, ref)], now=now)[0]


def append_all(
    entries: Iterable[tuple[str, dict[str, Any], Any]], *, now: datetime
) -> list[LogLeaf]:
    """Write many leaves (type, body, ref or None) in the given order, by one statement."""
    require_transaction("log.append")
    leaves = []
    for type_, body, ref in entries:
        data = leaf_bytes(type_, body, now=now)
        ref_id = str(_about(body) if ref is None else ref)
        leaves.append(LogLeaf(type=type_, ref_id=ref_id, data=data, hash=merkle.leaf_hash(data)))
    return LogLeaf.objects.bulk_create(leaves)


def _about(body: dict[str, Any]) -> Any:
    return next((body[name] for name in SUBJECTS if name in body), "")


def leaf_for(type: str, ref: Any) -> LogLeaf | None:
    """The latest leaf of this type about `ref`; its `seq` is None until it has been numbered."""
    return LogLeaf.objects.filter(type=type, ref_id=str(ref)).order_by("-id").first()


def seqs(type: str, refs: Iterable[str]) -> dict[str, int]:
    """{ref: number in the log} of those leaves of these that have been numbered."""
    leaves = LogLeaf.objects.filter(type=type, ref_id__in=list(refs), seq__isnull=False)
    return dict(leaves.values_list("ref_id", "seq"))


def places(type: str, refs: Iterable[str]) -> dict[str, int]:
    """{ref: a number that grows with the place in the log} of the first leaf of each of these."""
    leaves = LogLeaf.objects.filter(type=type, ref_id__in=list(refs)).order_by("-id")
    return dict(leaves.values_list("ref_id", "id"))


@lru_cache(maxsize=4)
def _load_key(path: Path) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))


def log_key() -> Ed25519PrivateKey:
    """The key that signs heads, from settings.LOG_KEY_FILE."""
    return _load_key(Path(settings.LOG_KEY_FILE))


def public_key() -> str:
    """The public half, 64 hex digits."""
    return wire.public_hex(log_key())


_NEWEST = Joined("FROM wallets_treehead h ORDER BY size DESC LIMIT 1", h=TreeHead)


def head_latest() -> TreeHead | None:
    """The newest signed head, None for an empty log."""
    row = _NEWEST.first()
    return row[0] if row else None


def sequence(*, now: datetime, limit: int = BATCH_MAX) -> TreeHead | None:
    """Number the waiting leaves in the order of their ids, at most `limit`, and sign a head.

    Returns the new head; None if nothing waited or another sequencer is at it.
    """
    with durable():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", SEQUENCER_LOCK)
            if not cursor.fetchone()[0]:
                return None
        waiting = list(
            LogLeaf.objects.filter(seq=None).order_by("id").values_list("id", "hash")[:limit]
        )
        if not waiting:
            return None
        last = head_latest()
        size = last.size if last else 0
        frontier = _full_subtrees(merkle.peaks(size))
        new_size, new_frontier, nodes = merkle.extend(
            size, frontier, (bytes(hash_) for _, hash_ in waiting)
        )
        root = merkle.frontier_root(new_frontier).hex()
        at_ms = max(unix_ms(now), last.at_ms if last else 0)
        signature = wire.sign(log_key(), HEAD_DOMAIN, head_content(new_size, root, at_ms))
        # After this point it must succeed.
        _number([id_ for id_, _ in waiting], size)
        _keep(nodes)
        changed("log")
        return TreeHead.objects.create(size=new_size, root=root, at_ms=at_ms, signature=signature)


def pulse(*, now: datetime) -> bool:
    """An idle log writes an entry once its newest head is PULSE_S old: whoever sees an older one
    knows that the log stands still. False when that was not needed."""
    last = head_latest()
    if last is None or unix_ms(now) < last.at_ms + 1000 * PULSE_S:
        return False
    if LogLeaf.objects.filter(seq=None).exists():  # it is not idle, its sequencer is late
        return False
    with durable():
        append("wallets.pulse", {}, now=now)
    return True


def _number(ids: Sequence[int], start: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE wallets_logleaf SET seq = %s + numbered.place - 1"
            " FROM unnest(%s::bigint[]) WITH ORDINALITY AS numbered(id, place)"
            " WHERE wallets_logleaf.id = numbered.id",
            [start, list(ids)],
        )


def _keep(nodes: Sequence[tuple[int, int, bytes]]) -> None:
    levels, places, hashes = map(list, zip(*nodes, strict=True)) if nodes else ([], [], [])
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO wallets_lognode (level, index, hash)"
            " SELECT * FROM unnest(%s::int[], %s::bigint[], %s::bytea[])",
            [levels, places, hashes],
        )


def _full_subtrees(places: Sequence[merkle.Place]) -> list[bytes]:
    """The stored hashes at `places`, in their order, by one query."""
    table = subtree_hashes(places)
    return [table[place] for place in places]


_HASHES = """
SELECT 0, seq, hash FROM wallets_logleaf WHERE seq = ANY(%s::bigint[])
UNION ALL
SELECT n.level, n.index, n.hash FROM wallets_lognode n
JOIN unnest(%s::int[], %s::bigint[]) AS w(level, index) ON n.level = w.level AND n.index = w.index
"""


def subtree_hashes(places: Iterable[merkle.Place]) -> dict[merkle.Place, bytes]:
    """{(level, index): hash} of full subtrees, by one query; level 0 are leaves.

    Raises KeyError on use when one is not stored.
    """
    wanted = set(places)
    nodes = [place for place in wanted if place[0] > 0]
    values = [
        [index for level, index in wanted if level == 0],
        [level for level, _ in nodes],
        [index for _, index in nodes],
    ]
    return {(level, index): hash_ for level, index, hash_ in prepared(_HASHES, values)}
