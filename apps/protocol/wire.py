"""Canonical bytes, digests and signatures: what every signed thing in FLAI is made of.

canonical(obj) is JSON with sorted keys, no spaces, UTF-8, and only dict, list, str, int, bool and
None: two implementations that agree on the value agree on the bytes. A digest or signature always
carries a domain, so that bytes signed for one purpose mean nothing for another:

    digest(domain, x) = SHA-256(domain ‖ 0x00 ‖ bytes(x))
    message signed    =         domain ‖ 0x00 ‖ canonical(obj)          Ed25519, RFC 8032
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

# Integers beyond this are not exact in JavaScript; big amounts travel as decimal strings.
SAFE_INT = 2**53
MAX_DEPTH = 32

_HEX = re.compile(r"[0-9a-f]*")
# One for all: `json.dumps` makes an encoder for each call that asks for other than its defaults.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class BadSignature(Exception):
    """A signature does not match its key, domain and content."""


def canonical(obj: Any) -> bytes:
    """The one byte string of `obj`: sorted keys, no spaces, UTF-8.

    Raises: ValueError for floats, integers beyond ±2^53, non-string keys, unpaired surrogates and
    any other type.
    """
    _check(obj, 0)
    try:
        return _ENCODER.encode(obj).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string holds an unpaired surrogate") from None


def _check(obj: Any, depth: int) -> None:
    """Most values are strings and small numbers: those are not called for, as each signed thing is
    checked here."""
    if isinstance(obj, (dict, list, tuple)):
        if depth >= MAX_DEPTH and obj:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(obj, dict):
            for key in obj:
                if type(key) is not str and not isinstance(key, str):
                    raise ValueError("keys must be strings")
            obj = obj.values()
        depth += 1
        for value in obj:
            kind = type(value)
            if kind is str or value is None or (kind is int and -SAFE_INT <= value <= SAFE_INT):
                continue
            _check(value, depth)
    elif isinstance(obj, int):
        if not -SAFE_INT <= obj <= SAFE_INT:
            raise ValueError("an integer beyond ±2^53 must be written as a string")
    elif obj is not None and not isinstance(obj, str):
        raise ValueError(f"{type(obj).__name__} has no canonical form")


def digest(domain: str, content: Any) -> str:
    """SHA-256(domain ‖ 0x00 ‖ content), hex; content is bytes or anything canonical."""
    data = content if isinstance(content, bytes) else canonical(content)
    return hashlib.sha256(domain.encode() + b"\0" + data).hexdigest()


def sign(key: Ed25519PrivateKey, domain: str, obj: Any) -> str:
    """Ed25519 signature (128 hex digits) over domain ‖ 0x00 ‖ canonical(obj)."""
    return key.sign(domain.encode() + b"\0" + canonical(obj)).hex()


def verify(public_hex: str, domain: str, content: Any, signature_hex: str) -> None:
    """Raises BadSignature unless `signature_hex` is the signature of that key over that content.

    As in `digest`, content may be the canonical bytes themselves, where they are at hand.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(unhex(public_hex, 32))
        data = content if isinstance(content, bytes) else canonical(content)
        message = domain.encode() + b"\0" + data
        key.verify(unhex(signature_hex, 64), message)
    except (InvalidSignature, ValueError):
        raise BadSignature(f"signature over {domain} does not verify") from None


def public_hex(key: Ed25519PrivateKey) -> str:
    """The raw public key, 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def unhex(text: Any, size: int | None = None) -> bytes:
    """Lower-case hex to bytes. Raises: ValueError for anything else or another size."""
    if not isinstance(text, str) or len(text) % 2 or not _HEX.fullmatch(text):
        raise ValueError("not lower-case hex")
    data = bytes.fromhex(text)
    if size is not None and len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return data


def is_hex(text: Any, size: int) -> bool:
    """Is it `size` bytes in lower-case hex?"""
    return isinstance(text, str) and len(text) == 2 * size and bool(_HEX.fullmatch(text))


def b64(data: bytes | memoryview) -> str:
    """Standard base64, for anything longer than 64 bytes."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: Any) -> bytes:
    """Raises: ValueError unless standard base64 with padding."""
    if not isinstance(text, str):
        raise ValueError("not base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
