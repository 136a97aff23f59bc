"""HPKE base mode of one message, and what answers it (RFC 9180, X25519, HKDF-SHA256, AES-256-GCM).

Sender and recipient derive one secret from a Diffie-Hellman exchange between an ephemeral key and
the recipient's. It encrypts the message; what is exported of it (§5.3) encrypts the answer, bound
to the same info, without another exchange (§9.8), by the recipe of RFC 9458 §4.4:

    prk = Extract(enc ‖ nonce, secret),  nonce 32 fresh random bytes that precede the ciphertext

so that the same question may be answered more than once. `cryptography` offers neither a given
ephemeral key nor exports.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES, NONCE_BYTES, SECRET_BYTES = 32, 12, 32
BLOCK_BYTES = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_KEM = b"KEM\x00\x20"
_SUITE = b"HPKE\x00\x20\x00\x01\x00\x02"
_VERSION = b"HPKE-v1"


@dataclass(frozen=True, slots=True)
class Context:
    """What sender and recipient of one message share; `enc` is the ephemeral public key."""

    enc: bytes
    key: bytes
    nonce: bytes
    exporter: bytes

    def seal(self, message: bytes) -> bytes:
        """Once: the nonce does not change."""
        return AESGCM(self.key).encrypt(self.nonce, message, b"")

    def open(self, sealed: bytes) -> bytes:
        """Raises: InvalidTag."""
        return AESGCM(self.key).decrypt(self.nonce, sealed, b"")

    def export(self, context: bytes) -> bytes:
        """A secret of both for another purpose."""
        return _expand(_EXPORTED, self.exporter, context)


def sender(ephemeral: X25519PrivateKey, recipient: bytes, info: bytes) -> Context:
    """Towards a public key. An ephemeral key may serve several recipients, each with its own info.

    Raises: ValueError for a public key without a secret.
    """
    enc = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    return _context(shared, enc, recipient, info)


def recipient(enc: bytes, private: X25519PrivateKey, info: bytes) -> Context:
    """Raises: ValueError for an `enc` that is no key."""
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    return _context(shared, enc, _public(private), info)


@lru_cache(maxsize=8)
def _public(private: X25519PrivateKey) -> bytes:
    """Of a node's own key, which opens all that it gets."""
    return private.public_key().public_bytes_raw()


def answer(secret: bytes, enc: bytes, message: bytes) -> bytes:
    """An answer under an exported secret."""
    nonce = secrets.token_bytes(SECRET_BYTES)
    key, iv = _answer_keys(secret, enc, nonce)
    return nonce + AESGCM(key).encrypt(iv, message, b"")


def open_answer(secret: bytes, enc: bytes, sealed: bytes) -> bytes:
    """Raises: InvalidTag; ValueError for what is too short."""
    if len(sealed) < SECRET_BYTES:
        raise ValueError("an answer begins with its nonce")
    key, iv = _answer_keys(secret, enc, sealed[:SECRET_BYTES])
    return AESGCM(key).decrypt(iv, sealed[SECRET_BYTES:], b"")


def _answer_keys(secret: bytes, enc: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    prk = _hmac(enc + nonce, secret)
    return _hmac(prk, b"key\x01"), _hmac(prk, b"nonce\x01")[:NONCE_BYTES]


def _context(shared: bytes, enc: bytes, recipient_public: bytes, info: bytes) -> Context:
    prk = _labeled_extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand(_SHARED, prk, enc + recipient_public)
    scheduled = _BASE + _labeled_extract(_SUITE, b"", b"info_hash", info)
    prk = _labeled_extract(_SUITE, secret, b"secret", b"")
    return Context(
        enc,
        _expand(_KEY, prk, scheduled),
        _expand(_BASE_NONCE, prk, scheduled)[:NONCE_BYTES],
        _expand(_EXPORTER, prk, scheduled),
    )


def _hmac(key: bytes, message: bytes) -> bytes:
    """RFC 2104 §2, of keys up to a block. The library's looks its hash up at each call, which takes
    three times as long as the two hashes, and a query needs eleven of them at each node."""
    if len(key) > BLOCK_BYTES:
        raise ValueError("a key has a block at most")
    padded = key.ljust(BLOCK_BYTES, b"\0")
    inner = sha256(padded.translate(_INNER) + message).digest()
    return sha256(padded.translate(_OUTER) + inner).digest()


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return _hmac(salt, _VERSION + suite + label + material)


def _labeled(suite: bytes, label: bytes, length: int) -> bytes:
    """How what is expanded for a purpose begins, of one block at most."""
    return length.to_bytes(2, "big") + _VERSION + suite + label


def _expand(labeled: bytes, prk: bytes, info: bytes) -> bytes:
    return _hmac(prk, labeled + info + b"\x01")


_SHARED = _labeled(_KEM, b"shared_secret", SECRET_BYTES)
_KEY = _labeled(_SUITE, b"key", KEY_BYTES)
_BASE_NONCE = _labeled(_SUITE, b"base_nonce", NONCE_BYTES)
_EXPORTER = _labeled(_SUITE, b"exp", SECRET_BYTES)
_EXPORTED = _labeled(_SUITE, b"sec", SECRET_BYTES)
# Mode base, and the hash of no pre-shared key.
_BASE = b"\x00" + _labeled_extract(_SUITE, b"", b"psk_id_hash", b"")
