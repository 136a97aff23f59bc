"""Credentials: issued and revoked by an issuer's wallet key, each a leaf with the signature.

The rule is `apps.protocol.credentials`; who asks for one, and whose it trusts, is a SubDAO's vote.
The log has pseudonyms, the kind and hashes alone; what an issuer knows of its subjects stays with
it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from apps.accounts.models import Party, PartyKey
from apps.core.clock import from_unix_ms, unix_ms
from apps.core.errors import BadInput, Forbidden, NotFound
from apps.core.transactions import durable
from apps.protocol import credentials as rules
from apps.protocol.consent import WALLET
from apps.wallets import keys, log
from apps.wallets.models import Credential

ISSUED = "wallets.credential"
REVOKED = "wallets.credential_revoked"
SUBJECTS = (Party.Kind.PERSON, Party.Kind.ORGANISATION)


# Which kinds the terms of some SubDAO trust a party (its pid) with; apps that know terms say so.
asked_of: list[Callable[[str], list[str]]] = []


class KeyNeeded(Forbidden):
    code = "no_wallet_key"
    text = "What you say of others is signed by your wallet key: bind one on the wallet key's page."


class NotAsked(Forbidden):
    code = "credential_not_asked"
    text = (
        "No model asks for such a credential from {party}. Those who built the model vote first "
        "which kind it asks for and whose (listings.set_access). Nothing was issued."
    )


def credential_issue(
    *,
    issuer: Party,
    subject: Party,
    kind: str,
    key: str,
    until_ms: int,
    consent: keys.Consent,
    now: datetime,
) -> Credential:
    """Say of `subject`, whose wallet key is `key`, that it is of this kind; no session will do.

    Raises BadInput (kind, subject, key, until), NotAsked, KeyNeeded, what `keys.grant` raises.
    """
    ensure_asked(issuer, kind)
    if not unix_ms(now) < until_ms <= unix_ms(now) + rules.LIFETIME_MS_MAX:
        raise BadInput("bad_until", "A credential ends in the future, within two years.")
    asked = rules.issue_payload(credential=kind, subject=subject.pid, key=key, until_ms=until_ms)
    with durable():
        said = _signed(issuer, rules.ISSUE, asked, consent, now)
        ensure_subject(subject, key)
        named = rules.credential_of(issuer.pid, asked, said["signed"])
        # After this point it must succeed.
        made = Credential.objects.create(
            digest=named.id,
            kind=kind,
            issuer=issuer,
            subject=subject,
            public_key=key,
            signed=said["signed"],
            until=from_unix_ms(until_ms),
            created_at=now,
        )
        body = {"id": named.id, "issuer": issuer.pid, "payload": asked, **said}
        log.append(ISSUED, body, now=now, ref=subject.id)
    made.bound = key  # type: ignore[attr-defined]
    return made


def kinds_of(issuer: Party) -> list[str]:
    """What it may issue: the kinds that a SubDAO's vote trusts it with, in order."""
    return sorted({kind for ask in asked_of for kind in ask(issuer.pid)})


def ensure_asked(issuer: Party, kind: str) -> None:
    """The log keeps a kind for ever beside whom it is said of, so it is no text of the issuer's: a
    vote has named it, and this issuer. Raises BadInput, NotAsked."""
    if not rules.is_kind(kind):
        raise BadInput(
            "bad_kind", f"Up to {rules.KIND_MAX} of a-z, 0-9 and hyphens.", field="credential"
        )
    kinds = kinds_of(issuer)
    if kind not in kinds:
        raise NotAsked(party=issuer.name, kinds=kinds)


def ensure_subject(subject: Party, key: str | None) -> None:
    """Whom a credential may be about, and its wallet key. Raises BadInput."""
    if subject.kind not in SUBJECTS:
        raise BadInput(
            "bad_subject", "Credentials are of people and organisations.", field="subject"
        )
    bound = Party.objects.get(pk=subject.pk).wallet_key
    if bound is None:
        raise BadInput(
            "subject_has_no_key",
            f"{subject.name} has no wallet key yet, and a credential is of one.",
            field="subject",
        )
    if key != bound:
        raise BadInput("other_key", "This is not the subject's wallet key.", field="key")


def credential_revoke(
    *, issuer: Party, digest: str, consent: keys.Consent, now: datetime
) -> Credential:
    """Nothing is admitted by it any more. Again: nothing changes.

    Raises NotFound for one that the party has not issued, KeyNeeded, what `keys.grant` raises.
    """
    with durable():
        said = _signed(issuer, rules.REVOKE, rules.revoke_payload(id=digest), consent, now)
        rows = _described(Credential.objects.filter(issuer=issuer, digest=digest))
        row = rows.select_for_update(of=("self",)).first()
        if row is None:
            raise NotFound("credential_not_found", "You have issued no such credential.")
        if row.revoked_at is None:
            row.revoked_at = now
            row.save(update_fields=["revoked_at"])
            body = {"id": digest, "issuer": issuer.pid, **said}
            log.append(REVOKED, body, now=now, ref=row.subject_id)
    return row


def _signed(
    issuer: Party, kind: str, asked: dict[str, str], consent: keys.Consent, now: datetime
) -> dict[str, Any]:
    if consent.signed is None and not keys.keyed(issuer):
        raise KeyNeeded()
    return keys.grant(issuer, kind, asked, consent, now=now)


def _described(rows: QuerySet[Credential]) -> QuerySet[Credential]:
    """Each with `bound`, its subject's wallet key."""
    keys_ = PartyKey.objects.filter(party=OuterRef("subject"), purpose=WALLET, active=True)
    named = rows.select_related("issuer", "subject")
    return named.annotate(bound=Subquery(keys_.values("public_key")[:1]))


def held_by(party: Party) -> QuerySet[Credential]:
    """All that were issued to it, newest first."""
    return _described(party.credentials.order_by("-created_at", "-id"))


def issued_by(party: Party) -> QuerySet[Credential]:
    return _described(party.credentials_issued.order_by("-created_at", "-id"))


def stated(row: Credential) -> rules.Credential:
    """As the rule has it."""
    revoked = unix_ms(row.revoked_at) if row.revoked_at else None
    about = (row.digest, row.kind, row.issuer.pid, row.subject.pid, row.public_key)
    return rules.Credential(*about, unix_ms(row.until), revoked)


def state_of(row: Any, *, now: datetime) -> str:
    """ "in_force", or why it admits nobody."""
    said = stated(row)
    own = rules.Access(said.kind, (said.issuer,))
    why = rules.obstacle(own, said, holder=said.subject, key=row.bound, at_ms=unix_ms(now))
    return why or "in_force"


def credential_json(row: Credential, *, now: datetime) -> dict[str, Any]:
    """With all that its holder needs to show it elsewhere: anybody can check the signature."""
    said = stated(row)
    payload = rules.issue_payload(
        credential=row.kind, subject=said.subject, key=row.public_key, until_ms=said.until_ms
    )
    return {
        "id": row.digest,
        "credential": row.kind,
        "issuer": {"pid": said.issuer, "name": row.issuer.name},
        "subject": {"pid": said.subject, "name": row.subject.name},
        "state": state_of(row, now=now),
        "until": row.until.isoformat(),
        "issued_at": row.created_at.isoformat(),
        "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
        "payload": payload,
        "signed": row.signed,
    }


def until_of(days: int, *, now: datetime) -> int:
    """Unix ms, so many days from now."""
    return unix_ms(now + timedelta(days=days))
