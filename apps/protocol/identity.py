"""A certificate of a node or of the coordinator: self-signed by the Ed25519 identity key, so that
pinning one pins both.

Everything in it follows from key and name; Ed25519 is deterministic, so the same key always makes
the same certificate and needs no file for it.
"""

from __future__ import annotations

import datetime as dt
import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

# The name in the certificate of whoever dispatches jobs.
COORDINATOR = "coordinator"

# A pinned key has no use for a date; RFC 5280 §4.1.2.5 gives this value for "no expiry".
_FROM = dt.datetime(2024, 1, 1)
_TO = dt.datetime(9999, 12, 31, 23, 59, 59)


class BadCertificate(Exception):
    """A certificate is not self-signed by the key that it should belong to."""


def certificate_pem(key: Ed25519PrivateKey, name: str) -> str:
    """The self-signed certificate of a key's owner, PEM."""
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    serial = int.from_bytes(hashlib.sha256(public.public_bytes_raw()).digest()[:16], "big") >> 1
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(serial or 1)
        .not_valid_before(_FROM)
        .not_valid_after(_TO)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, None).public_bytes(Encoding.PEM).decode("ascii")


def certificate_der(pem: str, *, sign_key: str) -> bytes:
    """The certificate's DER bytes, if it is self-signed by `sign_key` (hex).

    Raises: BadCertificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        public = certificate.public_key()
        if not isinstance(public, Ed25519PublicKey):
            raise BadCertificate("the certificate has no Ed25519 key")
        if public.public_bytes_raw().hex() != sign_key:
            raise BadCertificate("the certificate belongs to another key")
        public.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except (ValueError, InvalidSignature):
        raise BadCertificate("the certificate is malformed or not self-signed") from None
    return certificate.public_bytes(Encoding.DER)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """The identity key as the TLS library wants it; for memory, not for a file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
