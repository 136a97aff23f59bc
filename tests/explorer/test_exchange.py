"""Trading and staking in a real browser: a preview first, limits kept, what happened said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apps.core import clock
from apps.exchange import pools, selectors
from apps.wallets.invariants import violations
from apps.wallets.models import LogLeaf
from apps.wallets.selectors import asset_by_code
from tests.explorer import pages
from tests.explorer.test_wallet_key import in_dialog, make_key
from tests.support.browser import axe_violations
from workers.client.replay import replay

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_swap_is_previewed_and_done_at_its_limit_or_not_at_all(
    site: str, world: Any, visit: Any, sign_in: Any, scripts: bool
) -> None:
    visitor = visit(java_script_enabled=scripts)
    page, code = visitor.page, world.dao.asset.code
    sign_in(visitor)
    page.goto(pages.public(world)["pool"])
    swap = page.get_by_role("region", name="Swap")
    swap.get_by_label("Amount").fill("5")
    if not scripts:
        swap.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Swap for at least 1,6").wait_for()
    if scripts:
        assert axe_violations(page) == []
    # Somebody else is quicker: the price moves beyond half a per cent.
    quicker = {"party": world.party, "base": code, "side": "quote", "amount_micro": 9_000_000}
    pools.swap(**quicker, now=clock.now())
    page.get_by_role("button", name="Swap for at least").click()
    said = page.locator(".messages").inner_text()
    assert "beyond your limit" in said and "Nothing was traded" in said
    before = selectors.pool_by_base(code).events_count
    swap.get_by_label("Amount").fill("5")
    if not scripts:
        swap.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Swap for at least 1,5").wait_for()
    page.get_by_role("button", name="Swap for at least").click()
    assert "Swapped $5.00 for 1,5" in page.locator(".messages").inner_text()
    assert selectors.pool_by_base(code).events_count == before + 1
    assert visitor.complaints == []


def test_staking_with_a_lock_says_when_it_ends(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    page, sdt = visitor.page, asset_by_code(world.dao.asset.code)
    sign_in(visitor)
    page.goto(pages.public(world)["token"])
    page.get_by_role("link", name="Stake SDT").click()
    unstake = page.get_by_role("region", name="Unstake")
    unstake.get_by_label("Amount").fill("1000")
    unstake.get_by_role("button", name="Unstake").click()
    assert "Unstaking 1,000 SDT" in page.locator(".messages").inner_text()
    assert page.get_by_role("region", name="On its way out").get_by_text("1,000").is_visible()
    stake = page.get_by_role("region", name="Stake", exact=True)
    stake.get_by_label("Amount").fill("2500")
    stake.get_by_label("Lock").select_option("30 days")
    stake.get_by_role("button", name="Stake").click()
    assert "Staked 2,500 SDT" in page.locator(".messages").inner_text()
    assert page.get_by_text("Locked: it can be taken out").is_visible()
    assert selectors.staked_of(world.party, sdt).principal_micro == 22_500_000_000
    assert {k: v for k, v in violations().items() if v} == {}
    assert visitor.complaints == []


def test_whoever_has_tokens_opens_a_pool(site: str, world: Any, visit: Any, sign_in: Any) -> None:
    visitor = visit()
    page = visitor.page
    sign_in(visitor)
    page.goto("/tokens/FLAI/")
    page.get_by_role("link", name="Open the pool").first.click()
    form = page.get_by_role("region", name="Open the pool")
    form.get_by_label("Token, at most").fill("400")
    form.get_by_label("USDC, at most").fill("100")
    form.get_by_role("button", name="Open the pool").click()
    assert "The pool is open with 400 FLAI and $100.00" in page.locator(".messages").inner_text()
    assert page.get_by_text("$0.25").first.is_visible()
    page.locator("summary", has_text="Take out").click()
    take = page.get_by_label("Part of your liquidity")
    take.fill("50")
    page.get_by_role("button", name="Take out").click()
    assert "Took out 199.9" in page.locator(".messages").inner_text()
    assert visitor.complaints == []


def test_a_bound_key_signs_a_swap_a_lock_and_what_leaves_the_pool(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    page, code = visitor.page, world.dao.asset.code
    sign_in(visitor)
    make_key(visitor)
    page.goto(pages.public(world)["pool"])
    page.get_by_role("button", name="Swap for at least").wait_for()
    page.get_by_role("button", name="Swap for at least").click()
    assert "Swap 10.00 USDC for at least 3,2" in in_dialog(page, "Sign")
    page.get_by_text("Swapped $10.00 for").wait_for()
    page.locator("summary", has_text="Add liquidity").click()
    page.get_by_label("Token, at most").fill("4000")
    page.get_by_label("USDC, at most").fill("10")
    page.get_by_role("button", name="Add", exact=True).click()
    assert f"Put at most 4,000.00 {code} and 10.00 USDC" in in_dialog(page, "Sign")
    page.get_by_text("Added 3").wait_for()
    page.locator("summary", has_text="Take out").click()
    page.get_by_label("Part of your liquidity").fill("12.5")
    page.get_by_role("button", name="Take out").click()
    assert "Take at least" in in_dialog(page, "Sign")
    page.get_by_text("Took out 3").wait_for()
    page.goto(pages.public(world)["vault"])
    stake = page.get_by_role("region", name="Stake", exact=True)
    stake.get_by_label("Amount").fill("7")
    stake.get_by_label("Lock").select_option("90 days")
    stake.get_by_role("button", name="Stake").click()
    assert f"Stake 7.00 {code}, locked for 90 days" in in_dialog(page, "Sign")
    page.get_by_text("Staked 7 SDT").wait_for()
    found = replay(json.loads(bytes(x.data)) for x in LogLeaf.objects.order_by("id"))
    assert found.findings.unsigned == [] and found.findings.signatures == 5
    assert visitor.complaints == []
