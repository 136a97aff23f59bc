"""Credentials: what an issuer says of a party's wallet key, and whom a listing admits by it.

    said = {"v", "pid": issuer, "kind": "credentials.issue", "payload", "key", "nonce",
            "expires_at"}
    payload = {"credential", "subject": pid, "key": the subject's wallet key, "until_ms"}
    id = digest("flai/credential/v1", said),  signed by the issuer's wallet key as every action is

(`apps.protocol.consent`; its `expires_at` is until when it could be filed, not how long it holds).
It holds until `until_ms`, unless its issuer revokes it, for as long as the key that it names is the
subject's wallet key: of a party with a bound key nobody but the key pays a prediction, so nobody
else can ask by its credential.

A SubDAO votes which kind of credential its listing asks for, and whose. Nothing is issued that no
vote asks of its issuer: a kind is words about somebody, and stays in the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.protocol.consent import message
from apps.protocol.wire import digest, is_hex

CREDENTIAL_DOMAIN = "flai/credential/v1"
ISSUE, REVOKE = "credentials.issue", "credentials.revoke"
LIFETIME_MS_MAX = 732 * 86_400_000
ISSUERS_MAX = 20
KIND_MAX = 40
_KIND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

# Why a credential does not admit: which of several faults is named.
PRECEDENCE = ("other_kind", "not_trusted", "other_subject", "other_key", "revoked", "expired")


@dataclass(frozen=True)
class Credential:
    """One that was issued; `issuer` and `subject` are pids."""

    id: str
    kind: str
    issuer: str
    subject: str
    key: str
    until_ms: int
    revoked_ms: int | None = None


@dataclass(frozen=True)
class Access:
    """Whom a listing admits: holders of a credential of this kind, from one of these issuers
    (pids). Raises ValueError, naming what."""

    credential: str
    issuers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_kind(self.credential):
            raise ValueError(f"a credential is named in up to {KIND_MAX} of a-z, 0-9 and hyphens")
        formed = all(is_hex(one, 16) for one in self.issuers)
        if not formed or not 0 < len(self.issuers) <= ISSUERS_MAX:
            raise ValueError(f"name 1 to {ISSUERS_MAX} issuers by their pseudonyms")
        if list(self.issuers) != sorted(set(self.issuers)):
            raise ValueError("name each issuer once, in order of the pseudonyms")

    @property
    def params(self) -> dict[str, Any]:
        return {"credential": self.credential, "issuers": list(self.issuers)}


def is_kind(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= KIND_MAX and bool(_KIND.fullmatch(text))


def access_of(raw: Any) -> Access | None:
    """From untrusted data: {"credential", "issuers"}; {} or nothing: open to all. Raises
    ValueError."""
    if raw is None or raw == {}:
        return None
    if not isinstance(raw, Mapping) or set(raw) != {"credential", "issuers"}:
        raise ValueError("give credential and issuers, or nothing")
    if not isinstance(raw["issuers"], (list, tuple)):
        raise ValueError("issuers is a list")
    return Access(raw["credential"], tuple(raw["issuers"]))


def issue_payload(*, credential: str, subject: str, key: str, until_ms: int) -> dict[str, str]:
    """What the issuer signs. `key`: the subject's wallet key."""
    return {"credential": credential, "subject": subject, "key": key, "until_ms": str(until_ms)}


def revoke_payload(*, id: str) -> dict[str, str]:
    return {"id": id}


def credential_of(issuer: str, payload: Mapping[str, Any], signed: Mapping[str, Any]) -> Credential:
    """What these say, by its id; whether they are signed, `consent.check` tells. Raises
    ValueError."""
    kind, subject, key = payload["credential"], payload["subject"], payload["key"]
    until_ms = int(payload["until_ms"])
    asked = issue_payload(credential=kind, subject=subject, key=key, until_ms=until_ms)
    formed = is_kind(kind) and is_hex(subject, 16) and is_hex(key, 32)
    if dict(payload) != asked or not formed:
        raise ValueError("a credential names its kind, its subject and the key, and its end")
    parts = {name: signed[name] for name in ("key", "nonce", "expires_at")}
    said = message(pid=issuer, kind=ISSUE, payload=payload, **parts)
    return Credential(digest(CREDENTIAL_DOMAIN, said), kind, issuer, subject, key, until_ms)


def obstacle(
    access: Access, held: Credential, *, holder: str, key: str | None, at_ms: int, late_ms: int = 0
) -> str | None:
    """Why `held` does not admit `holder`, whose wallet key is `key`: one of PRECEDENCE; None if it
    does. `late_ms`: by how much what happened at `at_ms` may have been decided before.
    """
    faults = {
        "other_kind": held.kind != access.credential,
        "not_trusted": held.issuer not in access.issuers,
        "other_subject": held.subject != holder,
        "other_key": held.key != key,
        "revoked": held.revoked_ms is not None and at_ms >= held.revoked_ms + late_ms,
        "expired": at_ms >= held.until_ms + late_ms,
    }
    return next((name for name in PRECEDENCE if faults[name]), None)
