"""Signed and unsigned actions at once: a nonce is taken once, and no binding is overtaken."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.core.errors import DomainError
from apps.protocol import consent
from apps.wallets import keys, services
from apps.wallets.models import LogLeaf, Transfer
from tests.governance.helpers import together
from tests.support.consents import bind, signed
from tests.wallets.ledger_helpers import T0, at, funded
from workers.client.replay import replay

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair():
    return funded("ada", 100).owner, funded("bob", 0).owner


def sends(pair, count, word=None):
    ada, bob = pair
    said = keys.Consent("session", word)
    return [
        lambda: services.send(
            party=ada, to=bob, asset="USDC", amount_micro=1, consent=said, now=at(1)
        )
    ] * count


def findings():
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    return replay(json.loads(bytes(data)) for data in rows).findings.errors


def test_one_signature_pays_once_however_many_send_it_at_once(pair):
    ada, bob = pair
    key = Ed25519PrivateKey.generate()
    bind(ada, key, now=T0)
    payload = consent.send_payload(to=bob.pid, asset="USDC", amount_micro=1)
    word = signed(ada, key, consent.SEND, payload, nonce=1, now=at(1))
    results = together(*sends(pair, 5, word))
    refused = [r.code for r in results if isinstance(r, DomainError)]
    assert refused == ["stale_nonce"] * 4
    assert Transfer.objects.filter(kind="wallets.send").count() == 1 and findings() == []


def test_no_unsigned_payment_slips_in_behind_a_binding(pair):
    """Whatever the order, the log says that an unsigned payment came before the key, or not."""
    key = Ed25519PrivateKey.generate()
    unsigned = sends(pair, 3)
    results = together(*unsigned, lambda: bind(pair[0], key, now=T0), *unsigned)
    refused = {r.code for r in results if isinstance(r, DomainError)}
    assert refused <= {"signature_required"}
    assert not any(isinstance(r, Exception) and not isinstance(r, DomainError) for r in results)
    assert findings() == []
