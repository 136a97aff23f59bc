"""Credentials as they travel in a ticket, made by keys alone: no site has seen them."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import consent, wire
from apps.protocol import credentials as rules
from workers.client.proofs import lent

KIND = "accredited-hospital"


def issued(
    issuer: Ed25519PrivateKey, holder: Ed25519PrivateKey, *, until_ms: int, kind: str = KIND
) -> dict[str, Any]:
    """A row of the API: what the holder's party was given."""
    payload = rules.issue_payload(
        credential=kind, subject="5b" * 16, key=wire.public_hex(holder), until_ms=until_ms
    )
    said = {"key": wire.public_hex(issuer), "nonce": 1, "expires_at": 1}
    message = consent.message(pid="a1" * 16, kind=rules.ISSUE, payload=payload, **said)
    signed = said | {"signature": wire.sign(issuer, consent.ACTION_DOMAIN, message)}
    row = {"issuer": {"pid": "a1" * 16}, "payload": payload, "signed": signed}
    return row | {"credential": kind, "state": "in_force"}


def proof(
    issuer: Ed25519PrivateKey,
    holder: Ed25519PrivateKey,
    *,
    asker: str,
    until_ms: int,
    lent_until_ms: int | None = None,
    kind: str = KIND,
) -> dict[str, Any]:
    """What a ticket signed by `asker` shows."""
    row = issued(issuer, holder, until_ms=until_ms, kind=kind)
    return lent(row, holder, asker=asker, until_ms=lent_until_ms or until_ms)


def demand(*issuers: Ed25519PrivateKey, kind: str = KIND) -> rules.Demand:
    return rules.Demand(kind, tuple(sorted(map(wire.public_hex, issuers))))
