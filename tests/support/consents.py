"""Parties with wallet keys, and their signatures, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party
from apps.core.clock import unix_ms
from apps.protocol import consent, wire
from apps.wallets.keys import Consent, key_bind


def signed(
    who: Party | str,
    key: Ed25519PrivateKey,
    kind: str,
    payload: Mapping[str, Any],
    *,
    nonce: int,
    now: datetime,
    lifetime_ms: int = 60_000,
) -> dict[str, Any]:
    """What `key` says to an action of `who` (or of this pid)."""
    fields = {
        "key": wire.public_hex(key),
        "nonce": nonce,
        "expires_at": unix_ms(now) + lifetime_ms,
    }
    pid = who if isinstance(who, str) else who.pid
    said = consent.message(pid=pid, kind=kind, payload=payload, **fields)
    return fields | {"signature": wire.sign(key, consent.ACTION_DOMAIN, said)}


def possession(who: Party, key: Ed25519PrivateKey, purpose: str) -> dict[str, str]:
    """The fields of a binding that the new key gives."""
    public = wire.public_hex(key)
    content = consent.possession(who.pid, purpose, public)
    return {
        "purpose": purpose,
        "public_key": public,
        "signature": wire.sign(key, consent.KEY_DOMAIN, content),
    }


def bind(
    who: Party,
    key: Ed25519PrivateKey,
    purpose: str = "wallet",
    *,
    by: Ed25519PrivateKey | None = None,
    nonce: int = 1,
    now: datetime,
) -> None:
    """Bind `key`, the change signed by another key where one is given."""
    payload = consent.key_payload(purpose=purpose, public_key=wire.public_hex(key))
    word = signed(who, by, consent.BIND, payload, nonce=nonce, now=now) if by else None
    said = Consent("session", word)
    key_bind(party=who, **possession(who, key, purpose), consent=said, now=now)
