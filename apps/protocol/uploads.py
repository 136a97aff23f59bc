"""Large uploads in binary: a line that says what it is, then the encrypted correction as it is.

    frame = canonical({"ticket", "signature", "envelopes"}) ‖ "\\n" ‖ correction

Canonical JSON has no line break of its own, so the first one ends the head. A file of a site, and
what a node takes, is one frame. The platform takes head and correction apart, the latter in parts
that follow each other without a gap, each with its SHA-256 (RFC 9530 `Content-Digest`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from apps.protocol.tickets import GCM_TAG_BYTES, HEAD_FIELDS, MAX_VALUES, TicketError
from apps.protocol.wire import canonical

MEDIA_TYPE = "application/octet-stream"
HEAD_BYTES_MAX = 128 * 1024  # parameters and five envelopes fit
FRAME_BYTES_MAX = HEAD_BYTES_MAX + 8 * MAX_VALUES + GCM_TAG_BYTES
PART_BYTES_MAX = 2 << 20

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def head_of(upload: dict[str, Any]) -> dict[str, Any]:
    """The upload without its correction."""
    return {name: upload[name] for name in HEAD_FIELDS}


def head_line(head: dict[str, Any]) -> bytes:
    """The first line of a frame, its end included."""
    return canonical(head) + b"\n"


def unframe(frame: bytes | bytearray) -> dict[str, Any]:
    """The upload in a frame, its correction a view of the frame's bytes.

    Says nothing of its content: that is `check_upload`'s. Raises: TicketError("malformed").
    """
    end = frame.find(b"\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        raise TicketError("malformed", "The upload does not begin with its head on one line.")
    return {**read_head(frame[:end]), "correction": memoryview(frame)[end + 1 :]}


def read_head(line: bytes | bytearray) -> dict[str, Any]:
    """The head on a line. Raises: TicketError("malformed")."""
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict) or "correction" in head:
        raise TicketError("malformed", "The head of the upload is not a JSON object.")
    return head


def content_digest(data: bytes) -> str:
    """The value of `Content-Digest` for these bytes."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def is_digest(text: str) -> bool:
    """Has it the form of a SHA-256 `Content-Digest`?"""
    return bool(_DIGEST.fullmatch(text))
