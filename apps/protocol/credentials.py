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

Nodes read no log. A model's makers sign what its nodes ask for themselves (`Demand`): the kind, and
the wallet keys that its issuers had then. The ticket of a query shows a credential by

    proof = {"issuer", "payload", "signed",
             "lent": {"until_ms", "signature"}}, the signature of the credential's own key over
             {"v", "credential": id, "key": the ticket's sender, "until_ms"}, ASKER_DOMAIN

so that a program asks without the wallet key, and nobody by what others have shown. What a node
can't know: that a credential was revoked, or a key replaced; both hold there until `until_ms`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.protocol.consent import ACTION_DOMAIN, check_form, message
from apps.protocol.wire import BadSignature, digest, is_hex, verify

CREDENTIAL_DOMAIN = "flai/credential/v1"
ASKER_DOMAIN = "flai/asker/v1"
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


@dataclass(frozen=True)
class Demand:
    """What a model's nodes ask of who asks it: a credential of this kind, signed by one of these
    keys. Raises ValueError, naming what."""

    credential: str
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if not is_kind(self.credential):
            raise ValueError("the kind of the credential is malformed")
        formed = all(is_hex(key, 32) for key in self.keys)
        if not formed or not 0 < len(self.keys) <= ISSUERS_MAX:
            raise ValueError(f"name 1 to {ISSUERS_MAX} keys of issuers")
        if list(self.keys) != sorted(set(self.keys)):
            raise ValueError("name each key once, in order")

    @property
    def params(self) -> dict[str, Any]:
        return {"credential": self.credential, "keys": list(self.keys)}


class NotShown(Exception):
    """A proof does not admit its sender; `text` is safe to show."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


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


def demand_of(raw: Any) -> Demand | None:
    """From untrusted data: {"credential", "keys"}; nothing: open to all. Raises ValueError."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping) or set(raw) != {"credential", "keys"}:
        raise ValueError("give credential and keys, or nothing")
    if not isinstance(raw["keys"], (list, tuple)):
        raise ValueError("keys is a list")
    return Demand(raw["credential"], tuple(raw["keys"]))


def demand_named(said: Mapping[str, Any] | None) -> Demand | None:
    """What the tickets of a round ask for whose leaf says {"credential", "issuers", "keys"}, each
    issuer's; {} or nothing: open to all. Raises ValueError."""
    if not said:
        return None
    return Demand(said["credential"], tuple(sorted(set(said["keys"]))))


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


def lending(credential: str, *, key: str, until_ms: int) -> dict[str, Any]:
    """What a credential's key signs, with ASKER_DOMAIN, for another that asks by it until then."""
    return {"v": 1, "credential": credential, "key": key, "until_ms": until_ms}


def shown(demand: Demand, proof: Any, *, sender: str, at_ms: int) -> Credential:
    """The credential by which tickets of this sender may ask, as far as their bytes tell.

    Raises NotShown for a proof that is missing, malformed or forged, of another kind, by an issuer
    that the makers did not name, lent to another key, or over.
    """
    if proof is None:
        raise NotShown(f"The ticket shows no credential “{demand.credential}”.")
    try:
        if set(proof) != {"issuer", "payload", "signed", "lent"} or not is_hex(proof["issuer"], 16):
            raise ValueError("issuer, payload, signed and lent")
        said, signed, lent = (
            credential_of(proof["issuer"], proof["payload"], proof["signed"]),
            check_form(proof["signed"]),
            proof["lent"],
        )
        until_ms, signature = lent["until_ms"], lent["signature"]
        if set(lent) != {"until_ms", "signature"} or type(until_ms) is not int:
            raise ValueError("lent")
        parts = {name: signed[name] for name in ("key", "nonce", "expires_at")}
        body = message(pid=said.issuer, kind=ISSUE, payload=proof["payload"], **parts)
        loan = lending(said.id, key=sender, until_ms=until_ms)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotShown(f"The ticket's credential is malformed: {error}.") from None
    if said.kind != demand.credential:
        raise NotShown(f"It takes a credential “{demand.credential}”, not “{said.kind}”.")
    if signed["key"] not in demand.keys:
        raise NotShown("The credential is not by an issuer that the model's makers named.")
    if at_ms >= min(said.until_ms, until_ms):
        raise NotShown("The credential, or what it was lent for, has expired.")
    try:
        verify(signed["key"], ACTION_DOMAIN, body, signed["signature"])
    except BadSignature:
        raise NotShown("The credential is not signed by its issuer.") from None
    try:
        verify(said.key, ASKER_DOMAIN, loan, signature)
    except BadSignature:
        raise NotShown("The credential is not lent to the ticket's sender by its holder.") from None
    return said
