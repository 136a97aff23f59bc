"""Key files: 32 secret bytes in hex, mode 0600, made once and never overwritten."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from apps.protocol.wire import unhex

SECRET_BYTES = 32


class KeyFileError(Exception):
    """A key file is missing, unreadable, malformed or open to others. Text safe to show."""


def load(path: Path) -> bytes:
    """The 32 bytes of a key file. Raises: KeyFileError."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise KeyFileError(f"key file {path} is missing") from None
    except (OSError, UnicodeDecodeError):
        raise KeyFileError(f"key file {path} cannot be read") from None
    if mode & 0o077:
        raise KeyFileError(f"key file {path} is open to others: chmod 600 it")
    try:
        return unhex(text.strip(), SECRET_BYTES)
    except ValueError:
        raise KeyFileError(f"key file {path} does not hold 32 bytes in hex") from None


def create(path: Path) -> bytes:
    """A new key in a new file; an existing file is never touched. Raises: KeyFileError."""
    secret = secrets.token_bytes(SECRET_BYTES)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyFileError(f"key file {path} cannot be written: {error.strerror}") from None
    return secret


def load_or_create(path: Path) -> bytes:
    """The key of that file, made at the first call."""
    return load(path) if path.exists() else create(path)


def signing_key(secret: bytes) -> Ed25519PrivateKey:
    """The Ed25519 key of a 32-byte seed."""
    return Ed25519PrivateKey.from_private_bytes(secret)


def hpke_key(secret: bytes) -> X25519PrivateKey:
    """The X25519 key that opens what is sealed to its owner."""
    return X25519PrivateKey.from_private_bytes(secret)


def hpke_public_hex(key: X25519PrivateKey) -> str:
    """The raw public key, 64 hex digits: a node's `hpke_key`, a buyer's `reply_key`."""
    return key.public_key().public_bytes_raw().hex()
