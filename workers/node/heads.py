"""Cosigning the log: a node signs only heads that go on from the one that it signed last.

It keeps no leaves. The last head, and whose log it is, lie in its store and are on disk before the
signature leaves: however often it is asked, and after every restart, it signs one history only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from apps.protocol import heads, wire
from apps.protocol.heads import Head, HeadRefused
from workers.node.errors import Conflict, Malformed, Refused
from workers.node.home import Node
from workers.node.store import Store

META = "log-head"


def highest(told: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Of what several nodes signed last, the longest, as long as it is of one log; None where none
    signed any. Raises: Conflict("log_forked")."""
    heads_ = [head for head in told if head]
    logs = {head["log"] for head in heads_}
    roots: dict[int, set[str]] = {}
    for head in heads_:
        roots.setdefault(head["size"], set()).add(head["root"])
    if len(logs) > 1 or any(len(found) > 1 for found in roots.values()):
        raise Conflict("log_forked", "The others have signed heads of different logs.")
    return max(heads_, key=lambda head: head["size"], default=None)


class Heads:
    """One node's memory of the log."""

    def __init__(self, *, node: Node, store: Store) -> None:
        self._node = node
        self._store = store
        self._lock = threading.Lock()

    def last(self) -> dict[str, Any]:
        """{"log", "size", "root"} of what was signed last; size 0 before the first."""
        return self._store.note(META) or {"log": None, "size": 0, "root": None}

    def made_at_s(self) -> float:
        """When the head that was signed last was made, Unix seconds; 0 before the first."""
        return (self._store.note(META) or {}).get("at", 0) / 1000

    def cosign(self, log: Any, signed: Any, path: Any) -> dict[str, Any]:
        """{"node", "size", "root", "signature"} over a head that may follow. The log whose head
        comes first is this node's log from then on.

        Raises: Malformed, Refused("bad_signature", "other_log", "shorter_log", "fork").
        """
        if not wire.is_hex(log, 32):
            raise Malformed("malformed", "The log's key is 32 bytes in hex.")
        try:
            head = heads.check_head(signed, log=log)
            with self._lock:
                known = self._store.note(META)
                if known is not None:
                    if known["log"] != log:
                        raise HeadRefused("other_log", "This node signs another log's heads.")
                    last = Head(known["size"], known["root"], known["at"])
                    heads.may_follow(last, head, path)
                self._store.put_note(
                    META, {"log": log, "size": head.size, "root": head.root, "at": head.at_ms}
                )
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
