"""A bound wallet key: what needs its signature, who changes it, and that nobody can do without.

The last test plays the server, which holds the database and the log's key.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction
from rest_framework.test import APIClient

from apps.accounts.models import Membership, Party, PartyKey, User
from apps.accounts.services import api_key_create
from apps.core import clock
from apps.core.clock import unix_ms
from apps.core.errors import DomainError
from apps.exchange import vaults
from apps.protocol import consent, wire
from apps.wallets import keys, ledger, log, services
from apps.wallets.models import LogLeaf, Transfer
from tests.support.consents import bind, possession, signed
from tests.wallets.ledger_helpers import T0, at, funded
from workers.client.replay import replay

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada() -> Party:
    return funded("ada", 100).owner


@pytest.fixture
def bob() -> Party:
    return funded("bob", 0).owner


@pytest.fixture
def key(ada: Party) -> Ed25519PrivateKey:
    """Ada's wallet key, bound."""
    made = Ed25519PrivateKey.generate()
    bind(ada, made, now=T0)
    return made


def leaves() -> list[dict[str, Any]]:
    return [
        json.loads(bytes(d)) for d in LogLeaf.objects.order_by("id").values_list("data", flat=True)
    ]


def pay(
    ada: Party, bob: Party, word: dict[str, Any] | None, amount: int = 5, **more: Any
) -> Transfer:
    return services.send(
        party=ada, to=bob, asset="USDC", amount_micro=amount,
        consent=keys.Consent("api_key", word), now=more.pop("now", at(1)), **more,
    )  # fmt: skip


def word(
    ada: Party, bob: Party, key: Ed25519PrivateKey, amount: int = 5, nonce: int = 1
) -> dict[str, Any]:
    payload = consent.send_payload(to=bob.pid, asset="USDC", amount_micro=amount)
    return signed(ada, key, consent.SEND, payload, nonce=nonce, now=at(1))


def refused(code: str, work: Any, *args: Any, **kwargs: Any) -> None:
    """It raises that error and writes nothing."""
    before = LogLeaf.objects.count(), Transfer.objects.count(), list(Party.objects.values("nonce"))
    with pytest.raises(DomainError) as error:
        work(*args, **kwargs)
    assert error.value.code == code
    after = LogLeaf.objects.count(), Transfer.objects.count(), list(Party.objects.values("nonce"))
    assert before == after


def test_without_a_key_the_leaf_says_by_what_it_was_done(ada, bob):
    pay(ada, bob, None)
    assert leaves()[-1]["body"]["auth"] == "api_key"
    assert "signed" not in leaves()[-1]["body"]
    assert replay(leaves()).findings.errors == []


def test_with_a_key_a_payment_needs_its_signature(ada, bob, key):
    refused("signature_required", pay, ada, bob, None)
    made = pay(ada, bob, word(ada, bob, key))
    body = leaves()[-1]["body"]
    assert body["auth"] == "key" and body["signed"] == word(ada, bob, key)
    state = replay(leaves())
    assert state.findings.errors == [] and state.findings.signatures == 2
    refused("stale_nonce", pay, ada, bob, word(ada, bob, key))
    refused("bad_signature", pay, ada, bob, word(ada, bob, key, nonce=2), amount=6)
    refused("consent_expired", pay, ada, bob, word(ada, bob, key, nonce=2), now=at(61))
    refused("unknown_key", pay, ada, bob, word(ada, bob, Ed25519PrivateKey.generate(), nonce=2))
    refused("bad_consent", pay, ada, bob, {"nonce": 2})
    refused("insufficient_balance", pay, ada, bob, word(ada, bob, key, 96, 2), amount=96)
    assert pay(ada, bob, word(ada, bob, key, nonce=9)).id != made.id


def test_the_same_payment_again_is_the_same_payment(ada, bob, key):
    once = ledger.reversal_id(ada.id)
    first = pay(ada, bob, word(ada, bob, key), idempotency=once)
    assert pay(ada, bob, word(ada, bob, key), idempotency=once).id == first.id
    assert Transfer.objects.filter(kind="wallets.send").count() == 1


def test_giving_back_staking_and_unstaking_are_signed_too(ada, bob, key):
    paid = pay(ada, bob, word(ada, bob, key))
    bobs = Ed25519PrivateKey.generate()
    bind(bob, bobs, now=at(2))
    refused("signature_required", services.give_back, party=bob, transfer_id=paid.id, now=at(3))
    payload = consent.give_back_payload(transfer=str(paid.id))
    said = signed(bob, bobs, consent.GIVE_BACK, payload, nonce=1, now=at(3))
    services.give_back(
        party=bob, transfer_id=paid.id, consent=keys.Consent("session", said), now=at(3)
    )
    with transaction.atomic():
        services.mint("FLAI", services.account(ada, "FLAI"), 50, None, at(4))
    moves = {"party": ada, "asset": "FLAI", "amount_micro": 50, "now": at(5)}
    refused("signature_required", vaults.stake, **moves)
    for nonce, (kind, service) in enumerate(
        [(consent.STAKE, vaults.stake), (consent.UNSTAKE, vaults.unstake)], 2
    ):
        said = signed(
            ada, key, kind, consent.stake_payload(asset="FLAI", amount_micro=50),
            nonce=nonce, now=at(5),
        )  # fmt: skip
        service(**moves, consent=keys.Consent("session", said))
    assert replay(leaves()).findings.errors == []


def test_keys_are_replaced_recovered_and_revoked_only_by_signature(ada, bob, key):
    second, spare, third = (Ed25519PrivateKey.generate() for _ in range(3))
    refused("signature_required", bind, ada, second, now=at(2))
    bind(ada, spare, "recovery", by=key, nonce=1, now=at(2))
    refused("wrong_key", bind, ada, third, "recovery", by=key, nonce=2, now=at(3))
    bind(ada, second, by=key, nonce=2, now=at(3))
    refused("key_revoked", pay, ada, bob, word(ada, bob, key, nonce=3))
    refused("wrong_key", pay, ada, bob, word(ada, bob, spare, nonce=3))
    pay(ada, bob, word(ada, bob, second, nonce=3))
    bind(ada, third, by=spare, nonce=4, now=at(4))  # the second one is lost
    refused("key_revoked", pay, ada, bob, word(ada, bob, second, nonce=5))
    refused("key_used", bind, ada, second, by=third, nonce=5, now=at(5))
    refused("key_taken", bind, bob, third, now=at(5))
    refused("signature_required", keys.key_revoke, party=ada, purpose="wallet",
            consent=keys.SESSION, now=at(6))  # fmt: skip
    payload = consent.key_payload(purpose="wallet", public_key=wire.public_hex(third))
    said = signed(ada, third, consent.REVOKE, payload, nonce=5, now=at(6))
    keys.key_revoke(party=ada, purpose="wallet", consent=keys.Consent("session", said), now=at(6))
    pay(ada, bob, None)  # the session authorises again, and the log says so
    fourth = Ed25519PrivateKey.generate()
    refused("signature_required", bind, ada, fourth, now=at(7))  # the recovery key's
    bind(ada, fourth, by=spare, nonce=6, now=at(7))
    state = replay(leaves())
    assert state.findings.errors == []
    assert state.keyring.parties[ada.pid].active == {
        "recovery": wire.public_hex(spare),
        "wallet": wire.public_hex(fourth),
    }


def test_an_agents_key_is_one_of_another_purpose(ada, bob):
    agent, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    bind(ada, agent, "agent", now=T0)
    assert ada.signing_key == wire.public_hex(agent)
    pay(ada, bob, None)  # a machine's key for tickets does not lock the wallet
    refused("signature_required", bind, ada, other, "agent", now=at(1))
    bind(ada, other, "agent", by=agent, now=at(1))
    assert Party.objects.get(id=ada.id).signing_key == wire.public_hex(other)
    refused("key_taken", bind, ada, other, now=at(2))
    assert replay(leaves()).findings.errors == []


def test_a_signature_for_one_purpose_binds_no_other(ada):
    key = Ed25519PrivateKey.generate()
    fields = possession(ada, key, "agent") | {"purpose": "wallet"}
    refused("bad_signature", keys.key_bind, party=ada, **fields, now=T0)


def test_the_api_takes_the_same(ada, bob, key):
    user = User.objects.create_user("ada@example.org")
    Membership.objects.create(user=user, party=ada)
    _, api_key = api_key_create(user=user, party=ada)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {api_key}")
    mine = client.get("/api/v1/wallet/keys/").data
    assert mine["keyed"] and mine["next_nonce"] == 1
    assert mine["keys"] == {"wallet": wire.public_hex(key)}
    body = {"to": bob.slug, "asset": "USDC", "amount_micro": "5"}
    head = {"HTTP_IDEMPOTENCY_KEY": "a"}
    answer = client.post("/api/v1/wallet/transfers/", body, format="json", **head)
    assert (answer.status_code, answer.data["code"]) == (403, "signature_required")
    now = clock.now()
    payload = consent.send_payload(to=bob.pid, asset="USDC", amount_micro=5)
    said = signed(ada, key, consent.SEND, payload, nonce=1, now=now)
    for _ in range(2):  # a retry gets the first answer; its nonce is spent once
        answer = client.post(
            "/api/v1/wallet/transfers/", body | {"signed": said}, format="json", **head
        )
        assert answer.status_code == 201, answer.data
    answer = client.post(
        "/api/v1/wallet/transfers/", body | {"signed": said}, format="json",
        HTTP_IDEMPOTENCY_KEY="b",
    )  # fmt: skip
    assert (answer.data["code"], answer.data["next_nonce"]) == ("stale_nonce", 2)
    spare = Ed25519PrivateKey.generate()
    change = consent.key_payload(purpose="recovery", public_key=wire.public_hex(spare))
    said = signed(ada, key, consent.BIND, change, nonce=2, now=clock.now())
    body = possession(ada, spare, "recovery") | {"signed": said}
    answer = client.post("/api/v1/wallet/keys/bind/", body, format="json")
    assert answer.status_code == 201 and set(answer.data["keys"]) == {"wallet", "recovery"}
    change = consent.key_payload(purpose="recovery", public_key=wire.public_hex(spare))
    said = signed(ada, spare, consent.REVOKE, change, nonce=3, now=clock.now())
    answer = client.post(
        "/api/v1/wallet/keys/revoke/", {"purpose": "recovery", "signed": said}, format="json"
    )
    assert answer.status_code == 200 and set(answer.data["keys"]) == {"wallet"}
    assert replay(leaves()).findings.errors == []


def test_a_server_that_acts_for_a_keyed_party_is_found(ada, bob, key, tampering):
    """It holds database and log key; it does not hold Ada's."""
    pay(ada, bob, word(ada, bob, key))
    mine, theirs = services.account(ada, "USDC"), services.account(bob, "USDC")
    forged: list[dict[str, Any] | None] = [
        None,
        {"auth": "session"},
        {"auth": "key"},
        {"auth": "key", "signed": word(ada, bob, key)},  # once more
        {"auth": "key", "signed": word(ada, bob, key, nonce=2) | {"nonce": 3}},
        {"auth": "key", "signed": word(ada, bob, Ed25519PrivateKey.generate(), nonce=4)},
    ]
    with transaction.atomic():
        services.mint("FLAI", services.account(ada, "FLAI", "staked"), 9, None, at(1))
    honest = LogLeaf.objects.count()
    with transaction.atomic():
        for said in forged:
            leg = ledger.Leg(mine, theirs, 5, "wallets.send", said=said)
            ledger.post([leg], now=at(2))
        for kind in ("subdaos.whatever", consent.QUERY, consent.PLEDGE):  # unsigned
            ledger.post([ledger.Leg(mine, theirs, 5, kind)], now=at(2))
        vote = {"proposal": "p", "voter": ada.pid, "support": "for", "weight": "9"}
        log.append("governance.proposal", _proposal(), now=at(2))
        snapshot = {"proposal": "p", "at": unix_ms(at(2)), "total": "9", "holders": 1}
        log.append("governance.snapshot", snapshot, now=at(2))
        log.append("governance.vote", vote | {"auth": "api_key"}, now=at(2))
        other = Ed25519PrivateKey.generate()
        fields = possession(ada, other, "wallet")
        body = {"id": "x", "pid": ada.pid, "purpose": "wallet", "proof": fields["signature"]}
        log.append("accounts.key_bound", body | {"public_key": fields["public_key"]}, now=at(2))
        log.append("accounts.key_revoked", body | {"public_key": wire.public_hex(key)}, now=at(2))
    errors = replay(leaves()).findings.unsigned
    named = [int(error.split(":")[0].removeprefix("leaf ")) for error in errors]
    assert named == [*range(honest, honest + 9), honest + 11, honest + 12, honest + 13]
    assert PartyKey.objects.get(party=ada, active=True).public_key == wire.public_hex(key)


def _proposal() -> dict[str, Any]:
    return {
        "proposal": "p", "dao": "d", "house": "super", "kind": "k", "payload_hash": "h",
        "proposer": None, "starts_at": unix_ms(at(2)), "ends_at": 2**41, "quorum_bps": 0,
        "threshold_bps": 0, "timelock_s": 0, "grace_s": 1,
    }  # fmt: skip
