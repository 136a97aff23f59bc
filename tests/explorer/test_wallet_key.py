"""A key made, bound and used in a real Chromium; what the server then refuses."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.accounts.models import Party
from apps.accounts.services import sign_up
from apps.core import clock
from apps.core.errors import Forbidden
from apps.governance.models import Vote
from apps.protocol import consent
from apps.wallets import services
from apps.wallets.keys import Consent, keys_of
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import faucet
from tests.explorer.world import PASSWORD
from tests.governance.helpers import submitted
from tests.support.browser import axe_violations
from tests.support.consents import signed
from workers.client.replay import replay

MICRO = 1_000_000


@pytest.fixture
def ada(site: str) -> Party:
    now = clock.now() - timedelta(minutes=1)
    _, party = sign_up(
        email="buyer@example.org", password=PASSWORD, name="Ada", kind="person", now=now
    )
    for asset in ("USDC", "FLAI"):
        faucet(party=party, asset=asset, amount_micro=100 * MICRO, now=now)
    return party


@pytest.fixture
def bob(site: str) -> Party:
    _, party = sign_up(email="bob@example.org", password=PASSWORD, name="Bob", kind="person")
    return party


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def in_dialog(page: Any, name: str) -> str:
    """Presses a button of the open dialog; returns what the dialog said."""
    dialog = page.get_by_role("dialog")
    said = dialog.inner_text()
    dialog.get_by_role("button", name=name, exact=True).click()
    return str(said)


def make_key(visitor: Any) -> None:
    page = visitor.page
    page.goto("/wallet/key/")
    press(page, "Make a key in this browser")
    in_dialog(page, "Make and bind the key")
    page.get_by_role("heading", name="Your key", exact=True).wait_for()
    page.get_by_text("This browser has it.").wait_for()


def test_a_key_signs_a_payment_a_stake_and_a_vote(
    ada: Party, bob: Party, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    page = visitor.page
    sign_in(visitor)
    make_key(visitor)
    assert keys_of(ada)["keyed"]

    page.goto("/wallet/")
    form = page.get_by_role("region", name="Send", exact=True)
    form.get_by_label("To", exact=True).fill(bob.pid)
    form.get_by_label("Amount").fill("12.5")
    form.get_by_label("Token").select_option("USDC")
    form.get_by_label("Note to the payee").fill("for the tea")
    press(page, "Preview the payment")
    assert "Bob" in page.get_by_role("main").inner_text() and not Transfer.objects.filter(
        kind="wallets.send"
    )
    press(page, "Pay 12.5 USDC")
    page.get_by_text("Exactly these bytes").click()
    assert f'"to":"{bob.pid}"' in page.get_by_role("dialog").inner_text()
    assert f"Pay 12.50 USDC to the party {bob.pid[:6]}…{bob.pid[-4:]}" in in_dialog(page, "Sign")
    page.get_by_text("Paid $12.50 to Bob.").wait_for()

    form = page.get_by_role("region", name="Stake", exact=True)
    form.get_by_label("Amount").first.fill("40")
    form.get_by_role("button", name="Stake", exact=True).click()
    assert "Stake 40.00 FLAI" in in_dialog(page, "Sign")
    page.get_by_text("Staked 40 FLAI").wait_for()

    rfm = submitted(bob, now=clock.now())
    page.goto(f"/proposals/{rfm.proposal_id}/")
    page.get_by_role("button", name="Vote for").click()
    assert "Vote “for” on the proposal" in in_dialog(page, "Sign")
    page.get_by_role("heading", name="You voted for").wait_for()
    assert Vote.objects.get().voter == ada
    state = replay(_leaves())
    assert state.findings.errors == [] and state.keyring.parties[ada.pid].nonce == 3
    assert visitor.complaints == []

    # The session alone, a forged and an expired signature: refused, by service and form alike.
    key = Ed25519PrivateKey.generate()
    payload = consent.send_payload(to=bob.pid, asset="USDC", amount_micro=MICRO)
    forged = signed(ada, key, consent.SEND, payload, nonce=9, now=clock.now())
    late = forged | {"key": keys_of(ada)["keys"]["wallet"], "expires_at": 1}
    for word, code in ((None, "signature_required"), (forged, "unknown_key"),
                       (late, "consent_expired")):  # fmt: skip
        with pytest.raises(Forbidden, match=code):
            services.send(party=ada, to=bob, asset="USDC", amount_micro=MICRO,
                          consent=Consent("session", word))  # fmt: skip
    assert Transfer.objects.filter(kind="wallets.send").count() == 1


def test_without_the_key_the_page_says_what_to_do_and_a_recovery_code_helps(
    ada: Party, visit: Any, sign_in: Any
) -> None:
    first = visit()
    sign_in(first)
    make_key(first)
    page = first.page
    press(page, "Add a recovery code")
    code = page.locator("#recovery-code").inner_text()
    in_dialog(page, "I have written it down")
    in_dialog(page, "Sign")
    page.get_by_role("button", name="Use the recovery code").wait_for()
    old = keys_of(ada)["keys"]
    assert axe_violations(page) == []

    other = visit()
    sign_in(other)
    page = other.page
    page.goto("/wallet/")
    form = page.get_by_role("region", name="Stake", exact=True)
    form.get_by_label("Amount").first.fill("1")
    form.get_by_role("button", name="Stake", exact=True).click()
    said = in_dialog(page, "Close")
    assert "not in this browser" in said and "Nothing was sent." in said
    page.goto("/wallet/key/")
    page.get_by_text("This browser does not have it").wait_for()
    press(page, "Use the recovery code")
    page.get_by_role("textbox", name="Recovery code").fill(code)
    in_dialog(page, "Use it")
    in_dialog(page, "Sign")
    page.get_by_text("This browser has it.").wait_for()
    new = keys_of(ada)["keys"]
    assert new["wallet"] != old["wallet"] and new["recovery"] == old["recovery"]

    press(page, "Revoke the key")
    in_dialog(page, "Sign")
    page.get_by_text("Your sign-in alone authorises now").wait_for()
    assert not keys_of(ada)["keyed"] and replay(_leaves()).findings.errors == []
    assert first.complaints == other.complaints == []


def _leaves() -> list[Any]:
    rows = LogLeaf.objects.order_by("id").values_list("data", flat=True)
    return [json.loads(bytes(data)) for data in rows]
