"""What the log says of parties' keys."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.services import KEY_DOMAIN, signing_key_bind
from apps.core.clock import now
from apps.core.models import OutboxEvent
from apps.protocol import wire
from apps.wallets.handlers import signing_key_bound
from apps.wallets.models import LogLeaf
from tests.wallets.ledger_helpers import party


@pytest.mark.django_db
def test_a_bound_key_is_in_the_log_once_with_its_proof():
    ada, key = party("ada"), Ed25519PrivateKey.generate()
    content = {"pid": ada.pid, "public_key": wire.public_hex(key)}
    signature = wire.sign(key, KEY_DOMAIN, content)
    signing_key_bind(party=ada, public_key=wire.public_hex(key), signature=signature)
    event = OutboxEvent.objects.get(name="accounts.SigningKeyBound")
    for _ in range(2):
        signing_key_bound(event.payload, event_id=event.id, now=now())
    body = json.loads(bytes(LogLeaf.objects.get(type="accounts.signing_key").data))["body"]
    wire.verify(
        body["public_key"],
        KEY_DOMAIN,
        {"pid": body["pid"], "public_key": body["public_key"]},
        body["signature"],
    )
    assert body["pid"] == ada.pid
