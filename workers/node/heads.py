"""Cosigning the log: a node signs only heads that go on from the one that it signed last.

It keeps no leaves. The last head, and whose log it is, lie in its store and are on disk before the
signature leaves: however often it is asked, and after every restart, it signs one history only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from apps.protocol import heads, wire
from apps.protocol.heads import Head, HeadRefused
from workers.node.errors import Conflict, Malformed, Refused
from workers.node.home import Node
from workers.node.store import Store

META = "log-head"  # {"log", "size", "root", "at", "signature"}, and "also": heads of others
TOLD_BY = 2
ALSO_MAX = 8  # heads that one node tells besides its last
UNDECIDED = "undecided"  # in place of a log's key

_FIELDS = ("size", "root", "at", "signature")


def floors(mine: dict[str, Any] | None, told: Iterable[Any]) -> dict[str, Any] | None:
    """What a recovered node remembers of the log: its own heads and those that others told, each
    signed by the log itself; None where there are none.

    It chooses none of them. A log counts that two others tell, or the only one that is told;
    where neither is so, none does, until the operator says `forget-log`.
    """
    said: dict[str, list[list[dict[str, Any]]]] = {}
    for note in told:
        if found := _signed_by_log(note):
            said.setdefault(note["log"], []).append(found)
    alike = [log for log, found in said.items() if len(found) >= TOLD_BY]
    if mine is not None:
        log = mine["log"]
    elif not said:
        return None
    else:
        (log,) = said if len(said) == 1 else alike if len(alike) == 1 else (UNDECIDED,)
    own = [] if mine is None else _heads_of(mine)
    return _note(log, [*own, *(head for found in said.get(log, []) for head in found)])


def _heads_of(note: dict[str, Any]) -> list[dict[str, Any]]:
    """What the next head must go on from, the shortest first."""
    return [{k: v for k, v in note.items() if k not in ("log", "also")}, *note.get("also", [])]


def _note(log: str, heads_: Iterable[dict[str, Any]]) -> dict[str, Any]:
    each = {(head["size"], head["root"]): head for head in heads_}
    first, *also = [each[key] for key in sorted(each)] or [{"size": 0, "root": "", "at": 0}]
    return {"log": log, **first, **({"also": also} if also else {})}


def _signed_by_log(note: Any) -> list[dict[str, Any]]:
    """Those heads of a note that the log's own key signed."""
    if not isinstance(note, dict) or not wire.is_hex(note.get("log"), 32):
        return []
    also, found = note.get("also"), []
    for one in [note, *(also[:ALSO_MAX] if isinstance(also, list) else [])]:
        head = {k: one.get(k) for k in _FIELDS} if isinstance(one, dict) else {}
        try:
            heads.check_head({"v": 1, **head}, log=note["log"])
        except HeadRefused:
            continue
        found.append(head)
    return found


def _may_be(other: Head, head: Head) -> None:
    """What needs no proof. Raises: HeadRefused("shorter_log", "fork")."""
    if head.size < other.size:
        raise HeadRefused("shorter_log", f"A head of {other.size} entries is known here.")
    if head.size == other.size and head.root != other.root:
        raise HeadRefused("fork", f"Another head of {other.size} entries is known here.")


class Heads:
    """One node's memory of the log."""

    def __init__(self, *, node: Node, store: Store) -> None:
        self._node = node
        self._store = store
        self._lock = threading.Lock()

    def last(self) -> dict[str, Any]:
        """{"log", "size", "root"} of what was signed last, or of the first of those heads that the
        next one must go on from; size 0 before the first."""
        return self._store.note(META) or {"log": None, "size": 0, "root": None}

    def made_at_s(self) -> float:
        """When the head that was signed last was made, Unix seconds; 0 before the first."""
        return min((self._store.note(META) or {}).get("at", 0) / 1000, time.time())

    def cosign(self, log: Any, signed: Any, path: Any) -> dict[str, Any]:
        """{"node", "size", "root", "signature"} over a head that may follow. The log whose head
        comes first is this node's log from then on.

        A node that was recovered has heads that others signed, too: it signs when it has seen that
        the head goes on from each of them, which takes a request for each. Raises: Malformed,
        Refused("bad_signature", "other_log", "shorter_log", "fork"), Conflict("more_proofs").
        """
        if not wire.is_hex(log, 32):
            raise Malformed("malformed", "The log's key is 32 bytes in hex.")
        try:
            head = heads.check_head(signed, log=log)
            with self._lock:
                known, left = self._store.note(META), []
                if known is not None:
                    if known["log"] != log:
                        raise HeadRefused("other_log", "This node signs another log's heads.")
                    last, *others = (Head(h["size"], h["root"], h["at"]) for h in _heads_of(known))
                    for other in [*others, last]:
                        _may_be(other, head)
                    heads.may_follow(last, head, path)
                    left = [h for h in known.get("also", []) if h["size"] < head.size]
                shown = {k: signed[k] for k in _FIELDS}
                self._store.put_note(META, _note(log, [*left, shown]))
            if left:
                raise Conflict("more_proofs", "Show it from the next head too.", retryable=True)
        except HeadRefused as refused:
            kind = Malformed if refused.code == "malformed" else Refused
            raise kind(refused.code, refused.text) from None
        content = heads.cosign_content(head, log=log, node=self._node.fingerprint)
        signature = wire.sign(self._node.sign_key, heads.COSIGN_DOMAIN, content)
        return {
            "node": self._node.fingerprint,
            "size": head.size,
            "root": head.root,
            "signature": signature,
        }
