"""What a signature of a wallet key authorises, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import consent, wire
from apps.protocol.consent import AGENT, RECOVERY, WALLET

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PID, NOW = "ab" * 16, 1_700_000_000_000
PAYLOAD = consent.send_payload(to="cd" * 16, asset="USDC", amount_micro=5)


def signed(**changes: Any) -> dict[str, Any]:
    """A consent as its owner makes it, then changed."""
    fields = {"key": wire.public_hex(KEY), "nonce": 7, "expires_at": NOW + 60_000}
    said = consent.message(pid=PID, kind=consent.SEND, payload=PAYLOAD, **fields)
    return fields | {"signature": wire.sign(KEY, consent.ACTION_DOMAIN, said)} | changes


def check(given: dict[str, Any], **changes: Any) -> None:
    facts = {"pid": PID, "kind": consent.SEND, "payload": PAYLOAD, "last_nonce": 6, "at_ms": NOW}
    consent.check(given, **(facts | changes))


def test_a_signature_authorises_exactly_what_it_says() -> None:
    check(signed())


@pytest.mark.parametrize(
    ("given", "facts", "code"),
    [
        ({}, {"at_ms": NOW + 60_000}, "consent_expired"),
        ({}, {"at_ms": NOW + 60_000 - consent.LIFETIME_MS_MAX - 1}, "consent_too_long"),
        ({}, {"last_nonce": 7}, "stale_nonce"),
        ({}, {"pid": "ef" * 16}, "bad_signature"),
        ({}, {"kind": consent.STAKE}, "bad_signature"),
        ({}, {"payload": PAYLOAD | {"amount_micro": "6"}}, "bad_signature"),
        ({}, {"payload": PAYLOAD | {"to": "ee" * 16}}, "bad_signature"),
        ({"nonce": 8}, {}, "bad_signature"),
        ({"expires_at": NOW + 61_000}, {}, "bad_signature"),
        ({"key": wire.public_hex(Ed25519PrivateKey.generate())}, {}, "bad_signature"),
        # of several faults the first of PRECEDENCE is named
        ({"nonce": 1, "expires_at": NOW}, {}, "consent_expired"),
        ({"nonce": 1}, {}, "stale_nonce"),
    ],
)
def test_anything_else_is_refused_by_name(given: Any, facts: Any, code: str) -> None:
    with pytest.raises(consent.ConsentRefused) as refused:
        check(signed(**given), **facts)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "change",
    [{"nonce": 0}, {"nonce": True}, {"nonce": 2**53 + 1}, {"nonce": "7"}, {"key": "AB" * 32},
     {"signature": "ab"}, {"expires_at": None}, {"more": 1}],
)  # fmt: skip
def test_a_consent_has_one_form(change: dict[str, Any]) -> None:
    assert consent.check_form(signed()) == signed()
    with pytest.raises(ValueError):
        consent.check_form(signed(**change))


def test_who_changes_which_key() -> None:
    table = [
        (AGENT, [], set()),
        (AGENT, [WALLET], set()),
        (AGENT, [AGENT], {AGENT}),
        (AGENT, [AGENT, WALLET, RECOVERY], {AGENT, WALLET, RECOVERY}),
        (WALLET, [], set()),
        (WALLET, [AGENT], set()),
        (WALLET, [WALLET], {WALLET}),
        (WALLET, [WALLET, RECOVERY], {WALLET, RECOVERY}),
        (WALLET, [RECOVERY], {RECOVERY}),
        (RECOVERY, [WALLET], {WALLET}),
        (RECOVERY, [WALLET, RECOVERY], {RECOVERY}),
        (RECOVERY, [], {WALLET}),
    ]
    assert [set(consent.signers(purpose, bound)) for purpose, bound, _ in table] == [
        expected for *_, expected in table
    ]
