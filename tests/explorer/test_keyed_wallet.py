"""One wallet's whole way with a key that only its browser has, in a real Chromium.

Made and bound, it signs a payment, a swap, a stake, a proposal, a conversion, a pledge, a mandate,
a credential and its revocation; a claim needs no signature, since money comes in. The replay then
finds each signed.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from apps.accounts.models import Party
from apps.accounts.services import sign_up
from apps.core import clock
from apps.core.transactions import durable
from apps.exchange.pools import pool_open
from apps.governance.models import Proposal
from apps.listings import closing
from apps.listings.models import Mandate, PayoutChoice
from apps.rfms.models import Pledge, Rfm
from apps.subdaos.models import Conversion, Dao
from apps.subdaos.services import sbgt_mint
from apps.wallets.models import LogLeaf, Transfer
from apps.wallets.services import faucet, send
from tests.explorer.test_wallet_key import MICRO, in_dialog, make_key, press
from tests.explorer.world import PASSWORD
from tests.governance.helpers import approved, at, founded, party
from tests.subdaos.test_emission import close_epoch
from tests.support import epochs
from tests.support.credentials import Keyed, voted
from workers.client.replay import replay


@pytest.fixture
def dao(site: str) -> Dao:
    """A SubDAO whose token is traded, with one epoch's emission."""
    dao, _, backer = founded()
    pool_open(
        party=backer, base=dao.asset.code, base_micro=100_000 * MICRO, quote_micro=1_000 * MICRO,
        now=at(30),
    )  # fmt: skip
    close_epoch(dao, 40)
    return dao


@pytest.fixture
def ada(dao: Dao) -> Party:
    """With USDC, tokens enough to propose, and one point."""
    _, ada = sign_up(
        email="buyer@example.org", password=PASSWORD, name="Ada", kind="person", now=at(1)
    )
    faucet(party=ada, asset="USDC", amount_micro=500 * MICRO, now=at(50))
    backer = Party.objects.get(name="Backer")
    send(party=backer, to=ada, asset=dao.asset.code, amount_micro=50_000 * MICRO, now=at(51))
    with durable():
        sbgt_mint(
            dao=dao, party=ada, points_micro=MICRO, reason="commitment", ref=str(dao.rfm_ref),
            now=at(52),
        )  # fmt: skip
    return ada


@pytest.fixture
def owed(dao: Dao, ada: Party) -> Any:
    """An epoch that owes Ada five dollars, who wants to claim them by hand."""
    PayoutChoice.objects.create(party=ada, auto=False)
    now = clock.now()
    epoch = epochs.frozen(
        dao, starts_at=now - timedelta(hours=2), ends_at=now - timedelta(hours=1),
        revenue_micro=10 * MICRO, owed_micro={("custodian", ada.pid): 5 * MICRO},
    )  # fmt: skip
    assert closing.carry_on(epoch.id, now=now)
    return epoch


def test_a_keyed_wallet_pays_trades_stakes_proposes_converts_pledges_and_claims(
    dao: Dao, ada: Party, owed: Any, visit: Any, sign_in: Any
) -> None:
    author = party("Author of another", flai=500)
    code, visitor = dao.asset.code, visit()
    page = visitor.page
    sign_in(visitor)
    make_key(visitor)

    page.goto("/wallet/")
    form = page.get_by_role("region", name="Send", exact=True)
    form.get_by_label("To", exact=True).fill(author.pid)
    form.get_by_label("Amount").fill("2")
    form.get_by_label("Token").select_option("USDC")
    press(page, "Preview the payment")
    press(page, "Pay 2 USDC")
    assert "Pay 2.00 USDC" in in_dialog(page, "Sign")
    page.get_by_text("Paid $2.00 to").wait_for()

    page.goto(f"/pools/{code}/")
    page.get_by_role("button", name="Swap for at least").wait_for()  # the form begins with ten
    page.get_by_role("button", name="Swap for at least").click()
    assert "Swap 10.00 USDC for at least" in in_dialog(page, "Sign")
    page.get_by_text("Swapped $10.00 for").wait_for()

    page.goto(f"/vaults/{code}/")
    stake = page.get_by_role("region", name="Stake", exact=True)
    stake.get_by_label("Amount").fill("25")
    stake.get_by_role("button", name="Stake").click()
    assert f"Stake 25.00 {code}" in in_dialog(page, "Sign")
    page.get_by_text("Staked 25 SDT").wait_for()

    page.goto(f"/subdaos/{dao.slug}/propose/?kind=subdaos.set_emission")
    page.get_by_label("Of the reserve, released each epoch").fill("1.5")
    page.get_by_label("Title").fill("A slower release")
    press(page, "Preview the proposal")
    assert "1.50 %" in page.get_by_role("main").inner_text()
    press(page, "Propose it")
    assert "Propose subdaos.set_emission" in in_dialog(page, "Sign")
    page.wait_for_url("**/proposals/*/")  # its heading stands on the preview already
    assert Proposal.objects.get(title="A slower release").payload["emission"]["rate_bps"] == 150

    page.goto(f"/tokens/{code}/convert/")
    page.get_by_label("Points to give up").fill("0.1")
    press(page, "Preview the conversion")
    page.get_by_role("button", name="Give up").click()
    assert "Give up 0.10 points" in in_dialog(page, "Sign")
    page.get_by_text("You gave up 0.1 points for").wait_for()
    assert Conversion.objects.get().party == ada

    page.goto("/wallet/key/")
    page.get_by_label("At most, in all").fill("20")
    press(page, "Sign a mandate")
    assert "take up to 20.00 USDC in all" in in_dialog(page, "Sign")
    page.get_by_text("Predictions can be paid by this mandate now.").wait_for()
    assert Mandate.objects.get().limit_micro == 20 * MICRO
    press(page, "End it")
    page.get_by_text("Nothing more is paid by this mandate.").wait_for()

    clinic = Keyed(party("Clinic"))
    voted(dao, ada.pid)
    page.goto("/wallet/credentials/issued/")
    page.get_by_label("Who").fill(clinic.party.slug)
    page.get_by_label("Is", exact=True).fill("Accredited hospital")
    press(page, "Preview")
    assert "Clinic is “accredited-hospital”" in page.get_by_role("main").inner_text()
    press(page, "Sign and issue")
    assert "that it is “accredited-hospital” until" in in_dialog(page, "Sign")
    page.get_by_text("Clinic has the credential").wait_for()
    press(page, "Revoke accredited-hospital of Clinic")
    assert "Revoke the credential" in in_dialog(page, "Sign")
    page.get_by_text("of Clinic is revoked").wait_for()

    page.goto(f"/epochs/{owed.id}/")
    press(page, "Claim 2 parts")  # for work, and as one of the holders
    page.get_by_text("You were paid $").wait_for()
    paid = Transfer.objects.filter(kind="listings.payout", credit__owner=ada)
    assert paid.get(amount_micro=5 * MICRO) and paid.count() == 2

    rfm = approved(author, author, now=at(1))  # the first snapshot of FLAI was at 0
    Rfm.objects.filter(id=rfm.id).update(approved_at=clock.now())
    rfm.crowdfund.deadline_at = clock.now() + timedelta(hours=1)
    rfm.crowdfund.save()
    page.goto(f"/rfms/{rfm.slug}/")
    page.get_by_label("Your pledge").fill("3")
    press(page, "See what I get")
    press(page, "Pledge $3.00")
    assert "Pledge 3.00 USDC to the request" in in_dialog(page, "Sign")
    page.get_by_text("You pledged $3.00").wait_for()
    assert Pledge.objects.get(party=ada).amount_micro == 3 * MICRO

    state = replay(json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("id"))
    assert state.findings.unsigned == []
    assert state.keyring.parties[ada.pid].nonce == 9
    assert Transfer.objects.filter(kind="wallets.send", debit__owner=ada).count() == 1
    assert visitor.complaints == []
