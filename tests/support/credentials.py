"""Issuers with a wallet key, and what they say of others."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party
from apps.core.clock import now, unix_ms
from apps.core.transactions import durable
from apps.listings.actions import SetAccess
from apps.protocol import credentials as rules
from apps.protocol import wire
from apps.subdaos.models import Dao
from apps.wallets import credentials
from apps.wallets.keys import Consent
from apps.wallets.models import Credential
from tests.support import epochs
from tests.support.consents import bind, signed

KIND = "accredited-hospital"
DAY_MS = 86_400_000


def voted(dao: Dao, *pids: str, kind: str = KIND) -> None:
    """As if those who built the model had voted for these issuers, or for everybody."""
    payload = {"access": rules.Access(kind, tuple(sorted(pids))).params if pids else {}}
    with durable():
        payload = SetAccess().validate(payload, dao)
        SetAccess().execute(payload, dao=dao, proposal_id=uuid.uuid4(), now=now())


@dataclass
class Keyed:
    """A party with a wallet key; it issues, or is spoken of."""

    party: Party
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    nonce: int = 0

    def __post_init__(self) -> None:
        bind(self.party, self.key, now=now())
        self.party = Party.objects.get(pk=self.party.pk)

    @property
    def public(self) -> str:
        return wire.public_hex(self.key)

    def word(self, kind: str, payload: dict[str, Any]) -> Consent:
        nonce = Party.objects.get(pk=self.party.pk).nonce + 1
        said = signed(self.party, self.key, kind, payload, nonce=nonce, now=now())
        return Consent("session", said)

    def asked(self, kind: str = KIND) -> None:
        """Some SubDAO asks for what it issues."""
        voted(epochs.subdao(now()), self.party.pid, kind=kind)

    def issue(
        self, subject: Keyed, kind: str = KIND, *, days: int = 365, at: datetime | None = None
    ) -> Credential:
        until_ms = unix_ms(at or now()) + days * DAY_MS
        asked = rules.issue_payload(
            credential=kind, subject=subject.party.pid, key=subject.public, until_ms=until_ms
        )
        return credentials.credential_issue(
            issuer=self.party, subject=subject.party, kind=kind, key=subject.public,
            until_ms=until_ms, consent=self.word(rules.ISSUE, asked), now=at or now(),
        )  # fmt: skip

    def revoke(self, digest: str) -> Credential:
        word = self.word(rules.REVOKE, rules.revoke_payload(id=digest))
        return credentials.credential_revoke(
            issuer=self.party, digest=digest, consent=word, now=now()
        )
