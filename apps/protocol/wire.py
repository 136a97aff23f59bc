"""Canonical bytes, digests and signatures: what every signed thing in FLAI is made of.

canonical(obj) is JSON with sorted keys, no spaces, UTF-8, and only dict, list, str, int, bool and
None: two implementations that agree on the value agree on the bytes. A digest or signature always
carries a domain, so that bytes signed for one purpose mean nothing for another:

    digest(domain, x) = SHA-256(domain ‖ 0x00 ‖ bytes(x))
    message signed    =         domain ‖ 0x00 ‖ canonical(obj)          Ed25519, RFC 8032
"""

from __future__ import annotations

import binascii
import hashlib
import re
from functools import lru_cache
from json import encoder
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

# Integers beyond this are not exact in JavaScript; big amounts travel as decimal strings.
SAFE_INT = 2**53
MAX_DEPTH = 32

_all_hex = re.compile(r"[0-9a-f]*").fullmatch
# What `json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)` makes anew for
# each object: it takes the object and how deep it stands, and gives the text in pieces.
_encode = encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, None, encoder.encode_basestring, None, ":", ",", True, False, False
)


class BadSignature(Exception):
    """A signature does not match its key, domain and content."""


def canonical(obj: Any) -> bytes:
    """The one byte string of `obj`: sorted keys, no spaces, UTF-8.

    Raises: ValueError for floats, integers beyond ±2^53, non-string keys, unpaired surrogates and
    any other type.
    """
    ensure_canonical(obj)
    return encoded(obj)


def encoded(obj: Any) -> bytes:
    """`canonical` of what is known to have that form: each of its values was looked at before.

    Raises: ValueError for unpaired surrogates.
    """
    try:
        return "".join(_encode(obj, 0)).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds an unpaired surrogate") from None


def ensure_canonical(obj: Any, depth: int = 0) -> None:
    """Raises ValueError unless `obj`, so deep inside of another, has a canonical form but for its
    strings' surrogates.

    Most values are strings and small numbers: those are not called for, as each signed thing is
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
            ensure_canonical(value, depth)
    elif isinstance(obj, int):
        if not -SAFE_INT <= obj <= SAFE_INT:
            raise ValueError("an integer beyond ±2^53 must be written as a string")
    elif obj is not None and not isinstance(obj, str):
        raise ValueError(f"{type(obj).__name__} has no canonical form")


def digest(domain: str, content: Any) -> str:
    """SHA-256(domain ‖ 0x00 ‖ content), hex; content is bytes or anything canonical."""
    return hashlib.sha256(_message(domain, content)).hexdigest()


def _message(domain: str, content: Any) -> bytes:
    data = content if isinstance(content, bytes) else canonical(content)
    return domain.encode() + b"\0" + data


def sign(key: Ed25519PrivateKey, domain: str, content: Any) -> str:
    """Ed25519 signature (128 hex digits) over domain ‖ 0x00 ‖ content, as in `digest`."""
    return key.sign(_message(domain, content)).hex()


def verify(public_hex: str, domain: str, content: Any, signature_hex: str) -> None:
    """Raises BadSignature unless `signature_hex` is the signature of that key over that content.

    As in `digest`, content may be the canonical bytes themselves, where they are at hand.
    """
    try:
        key = _public_key(unhex(public_hex, 32))
        key.verify(unhex(signature_hex, 64), _message(domain, content))
    except (InvalidSignature, ValueError):
        raise BadSignature(f"signature over {domain} does not verify") from None


@lru_cache(maxsize=1024)
def _public_key(raw: bytes) -> Ed25519PublicKey:
    """The same few sign again and again."""
    return Ed25519PublicKey.from_public_bytes(raw)


def public_hex(key: Ed25519PrivateKey) -> str:
    """The raw public key, 64 hex digits."""
    return key.public_key().public_bytes_raw().hex()


def unhex(text: Any, size: int | None = None) -> bytes:
    """Lower-case hex to bytes. Raises: ValueError for anything else or another size."""
    if not isinstance(text, str) or len(text) % 2 or not _all_hex(text):
        raise ValueError("not lower-case hex")
    data = bytes.fromhex(text)
    if size is not None and len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return data


def is_hex(text: Any, size: int) -> bool:
    """Is it `size` bytes in lower-case hex?"""
    return isinstance(text, str) and len(text) == 2 * size and _all_hex(text) is not None


def b64(data: bytes | memoryview) -> str:
    """Standard base64, for anything longer than 64 bytes."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unb64(text: Any) -> bytes:
    """Raises: ValueError unless standard base64 with padding."""
    if not isinstance(text, str):
        raise ValueError("not base64")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise ValueError("not base64") from None
