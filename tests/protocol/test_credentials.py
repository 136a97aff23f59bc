"""Credentials: the form of what is signed, and whom a listing's terms admit by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol.credentials import (
    PRECEDENCE,
    Access,
    Credential,
    Demand,
    NotShown,
    access_of,
    credential_of,
    demand_of,
    is_kind,
    issue_payload,
    obstacle,
    shown,
)
from tests.support import proofs

ISSUER, OTHER, HOLDER, KEY = "a1" * 16, "b2" * 16, "c3" * 16, "d4" * 32
TERMS = Access("accredited-hospital", (ISSUER,))
HELD = Credential("e5" * 32, "accredited-hospital", ISSUER, HOLDER, KEY, until_ms=1_000)
SIGNED = {"key": "f6" * 32, "nonce": 1, "expires_at": 9, "signature": "00" * 64}


def why(held: Credential = HELD, *, at_ms: int = 0, late_ms: int = 0, **changes: Any) -> Any:
    asked = {"holder": HOLDER, "key": KEY} | changes
    return obstacle(TERMS, held, at_ms=at_ms, late_ms=late_ms, **asked)


def test_the_right_one_admits_until_its_end() -> None:
    assert why() is None and why(at_ms=999) is None
    assert why(at_ms=1_000) == "expired" and why(at_ms=1_000, late_ms=1) is None
    revoked = replace(HELD, revoked_ms=500)
    assert why(revoked, at_ms=499) is None and why(revoked, at_ms=500) == "revoked"
    assert why(revoked, at_ms=509, late_ms=10) is None


def test_every_other_one_is_refused_and_the_first_fault_is_named() -> None:
    worse, seen = HELD, []
    faults: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"until_ms": 0}, {}),
        ({"revoked_ms": 0}, {}),
        ({"key": "00" * 32}, {}),
        ({"subject": OTHER}, {}),
        ({"issuer": OTHER}, {}),
        ({"kind": "hospital"}, {}),
    ]
    for changes, asked in faults:
        worse = replace(worse, **changes)
        seen.append(why(worse, **asked))
    assert tuple(reversed(seen)) == PRECEDENCE
    assert why(key=None) == "other_key"  # whoever has no key any more


def test_terms_have_one_form() -> None:
    assert access_of(TERMS.params) == TERMS
    assert access_of({}) is None and access_of(None) is None
    for bad in (
        {"credential": "hospital"},
        {"credential": "hospital", "issuers": []},
        {"credential": "hospital", "issuers": ISSUER},
        {"credential": "hospital", "issuers": [OTHER, ISSUER]},
        {"credential": "hospital", "issuers": [ISSUER, ISSUER]},
        {"credential": "hospital", "issuers": ["x"]},
        {"credential": "Hospital", "issuers": [ISSUER]},
        {"credential": "hospital", "issuers": [f"{n:032x}" for n in range(21)]},
        {"credential": "hospital", "issuers": [ISSUER], "more": 1},
        [],
        "hospital",
    ):
        with pytest.raises(ValueError):
            access_of(bad)
    for text in ("", "a b", "-a", "a-", "a--b", "1a", "ä", "a" * 41, None):
        assert not is_kind(text)


def test_its_name_covers_all_that_was_signed() -> None:
    payload = issue_payload(credential="hospital", subject=HOLDER, key=KEY, until_ms=5)
    first = credential_of(ISSUER, payload, SIGNED)
    assert (first.issuer, first.subject, first.key, first.until_ms) == (ISSUER, HOLDER, KEY, 5)
    names = {first.id, credential_of(OTHER, payload, SIGNED).id}
    for name, value in (
        ("credential", "lab"), ("subject", OTHER), ("key", "00" * 32), ("until_ms", "6")
    ):  # fmt: skip
        names.add(credential_of(ISSUER, payload | {name: value}, SIGNED).id)
    for name, value in (("nonce", 2), ("expires_at", 8), ("key", "00" * 32)):
        names.add(credential_of(ISSUER, payload, SIGNED | {name: value}).id)
    assert len(names) == 9
    for bad in ({"until_ms": "x"}, {"until_ms": "05"}, {"subject": "x"}, {"more": "1"}):
        with pytest.raises(ValueError):
            credential_of(ISSUER, payload | bad, SIGNED)


BOARD, ROGUE, WALLET, THIEF = (
    Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4)
)
ASKER, END = "0e" * 32, 1_000_000


def told(proof: Any, *, sender: str = ASKER, at_ms: int = 0) -> str:
    with pytest.raises(NotShown) as error:
        shown(proofs.demand(BOARD), proof, sender=sender, at_ms=at_ms)
    return error.value.text


def test_a_ticket_shows_a_credential_that_its_holder_lent_its_sender() -> None:
    about: dict[str, Any] = {"asker": ASKER, "until_ms": END}
    good = proofs.proof(BOARD, WALLET, **about, lent_until_ms=END - 1)
    asked = proofs.demand(BOARD, ROGUE)
    assert shown(asked, good, sender=ASKER, at_ms=END - 2).kind == asked.credential
    for at_ms in (END - 1, END):
        assert "expired" in told(good, at_ms=at_ms)
    late = proofs.proof(BOARD, WALLET, **about, lent_until_ms=END + 9)
    assert "expired" in told(late, at_ms=END)
    assert "shows no credential" in told(None)
    assert "not “lab”" in told(proofs.proof(BOARD, WALLET, **about, kind="lab"))
    assert "not by an issuer" in told(proofs.proof(ROGUE, WALLET, **about))
    # another's, seen in a ticket: the server's own key was lent nothing
    assert "not lent" in told(good, sender="0d" * 32)
    stolen = good | {"lent": proofs.proof(BOARD, THIEF, **about)["lent"]}
    assert "not lent" in told(stolen)
    # forged: another holder's key or a later end under the issuer's signature
    for name, value in (("until_ms", str(END * 2)), ("subject", "00" * 16)):
        assert "not signed by its issuer" in told(
            good | {"payload": good["payload"] | {name: value}}
        )
    posing = proofs.proof(ROGUE, WALLET, **about)
    signed = posing["signed"] | {"key": good["signed"]["key"]}
    assert "not signed by its issuer" in told(posing | {"signed": signed})


def test_no_proof_of_another_form_is_read() -> None:
    good = proofs.proof(BOARD, WALLET, asker=ASKER, until_ms=END)
    for bad in (
        {}, [], "x", 1, good | {"more": 1}, good | {"issuer": 1}, good | {"payload": None},
        good | {"signed": {}}, good | {"signed": None}, good | {"lent": None},
        good | {"lent": good["lent"] | {"until_ms": "1"}},
        good | {"lent": good["lent"] | {"until_ms": True}},
        good | {"lent": good["lent"] | {"more": 1}},
        good | {"payload": good["payload"] | {"more": "1"}},
    ):  # fmt: skip
        assert "malformed" in told(bad)
    for lacking in good:
        assert "malformed" in told({name: good[name] for name in good if name != lacking})
    assert "not lent" in told(good | {"lent": good["lent"] | {"signature": "x"}})


def test_what_makers_ask_for_has_one_form() -> None:
    asked = Demand("hospital", (KEY,))
    assert demand_of(asked.params) == asked and demand_of(None) is None
    for bad in (
        {}, [], {"credential": "hospital"}, asked.params | {"more": 1},
        asked.params | {"credential": "Hospital"}, asked.params | {"keys": KEY},
        asked.params | {"keys": []}, asked.params | {"keys": [KEY, KEY]},
        asked.params | {"keys": [KEY, "00" * 32]}, asked.params | {"keys": ["x"]},
        asked.params | {"keys": [f"{n:064x}" for n in range(21)]},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            demand_of(bad)
