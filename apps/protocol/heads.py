"""Signed heads of the log, and the nodes' signatures beside the log's own.

    head     = {"v", "size", "root", "at"}                    signed by the log key
    cosigned = {"v", "log", "size", "root", "at", "node"}     signed by a node's key

A node signs a head only when it begins with the one that it signed last (`may_follow`), so the log
that two honest nodes signed is one log: whoever wants it forked or rewritten needs t + 1 of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.protocol import merkle
from apps.protocol.wire import SAFE_INT, BadSignature, is_hex, unhex, verify

# How old a log lets its newest head become, and from when on a client says that it stands still.
PULSE_S, STALLED_S = 600, 1800
HEAD_DOMAIN = "flai/head/v1"
COSIGN_DOMAIN = "flai/cosign/v1"
COSIGNERS_MIN = 2  # t + 1
PATH_MAX = 128


class HeadRefused(Exception):
    """Why a head does not follow: `code` for programs, `text` safe to show."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Head:
    """The first `size` leaves have this root (hex), said at `at_ms`."""

    size: int
    root: str
    at_ms: int


def head_content(size: int, root: str, at_ms: int) -> dict[str, Any]:
    """What a head's signature covers, with HEAD_DOMAIN."""
    return {"v": 1, "size": size, "root": root, "at": at_ms}


def cosign_content(head: Head, *, log: str, node: str) -> dict[str, Any]:
    """What a node signs, with COSIGN_DOMAIN: the log's public key, the head, its fingerprint."""
    return head_content(head.size, head.root, head.at_ms) | {"log": log, "node": node}


def check_head(signed: Any, *, log: str) -> Head:
    """The head, if the log's key signed it. Raises HeadRefused("malformed", "bad_signature")."""
    ok = (
        isinstance(signed, Mapping)
        and set(signed) == {"v", "size", "root", "at", "signature"}
        and signed["v"] == 1
        and _whole(signed["size"])
        and signed["size"] > 0
        and _whole(signed["at"])
        and is_hex(signed["root"], merkle.HASH_BYTES)
    )
    if not ok:
        raise HeadRefused("malformed", "The head has a wrong form.")
    head = Head(size=signed["size"], root=signed["root"], at_ms=signed["at"])
    try:
        verify(
            log, HEAD_DOMAIN, head_content(head.size, head.root, head.at_ms), signed["signature"]
        )
    except BadSignature:
        raise HeadRefused("bad_signature", "The head is not signed by the log's key.") from None
    return head


def may_follow(last: Head, head: Head, path: Any) -> None:
    """`head` is `last`, or goes on from it by the consistency proof `path` (hex hashes).

    Raises HeadRefused: "shorter_log" (fewer leaves than were signed), "fork" (others).
    """
    if head.size < last.size:
        raise HeadRefused(
            "shorter_log", f"{last.size} entries were signed here; this head has {head.size}."
        )
    if not isinstance(path, list) or len(path) > PATH_MAX:
        raise HeadRefused("malformed", "The proof is not a list of hashes.")
    try:
        hashes = [unhex(hash_, merkle.HASH_BYTES) for hash_ in path]
    except ValueError:
        raise HeadRefused("malformed", "The proof is not a list of hashes.") from None
    roots = bytes.fromhex(last.root), bytes.fromhex(head.root)
    try:
        merkle.verify_consistency(last.size, head.size, *roots, hashes)
    except merkle.ProofInvalid:
        raise HeadRefused(
            "fork", f"This head does not go on from the {last.size} entries that were signed here."
        ) from None


def cosigners(
    head: Head,
    signatures: Iterable[Mapping[str, Any]],
    *,
    log: str,
    sign_keys: Mapping[str, str],
    trusted: Collection[str],
) -> Sequence[str]:
    """The trusted nodes (fingerprints) whose signature over this head verifies, each once.

    signatures: [{"node", "signature"}]; sign_keys: {fingerprint: key} from checked descriptors.
    """
    found: list[str] = []
    for one in signatures:
        node = str(one.get("node"))
        if node not in trusted or node in found or node not in sign_keys:
            continue
        try:
            content = cosign_content(head, log=log, node=node)
            verify(sign_keys[node], COSIGN_DOMAIN, content, one.get("signature", ""))
        except BadSignature:
            continue
        found.append(node)
    return found


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= SAFE_INT
