"""A plan in the browser: compared, previewed, paid, seen with its quota, cancelled."""

from __future__ import annotations

from typing import Any

from apps.core import clock
from apps.listings import plans
from apps.subdaos.models import Dao
from tests.support.browser import misfits

OFFER = [
    {"name": "basic", "rows": 10, "days": 30, "off_bps": 1_000},
    {"name": "pro", "rows": 40, "days": 30, "off_bps": 2_000},
]
TIERS = [{"from_rows": 1_000, "off_bps": 1_000}]


def test_from_the_models_page_to_a_plan_and_back(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    dao = Dao.objects.get(pk=world.dao.pk)
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "plans": OFFER, "tiers": TIERS})
    visitor = visit()
    sign_in(visitor)
    page, found = visitor.page, {}

    def look(name: str) -> None:
        if problems := misfits(page):
            found[name] = problems

    page.goto(f"/models/{world.listing.slug}/")
    assert "after 1,000 rows a month" in page.locator("aside").inner_text()
    look("model")
    page.get_by_role("link", name="Choose basic").click()
    assert page.get_by_role("heading", name="You pay $4.50").is_visible()
    look("preview")
    page.get_by_role("button", name="Pay $4.50").click()
    assert "You have the plan “basic”." in page.get_by_role("status").first.inner_text()
    assert page.get_by_text("0 of 10 rows").is_visible()
    look("offers")
    assert plans.running(world.party, world.listing, now=clock.now()) is not None
    page.get_by_role("button", name="Renew it at its end").click()
    assert "It renews itself." in page.get_by_role("status").first.inner_text()
    assert page.get_by_text("never more than $4.50").is_visible()
    look("renews")
    page.get_by_role("button", name="Don't renew it").click()
    assert page.get_by_role("button", name="Renew it at its end").is_visible()
    page.get_by_role("link", name="Change to pro").click()
    assert page.get_by_text("Still counts").is_visible()
    look("change")
    page.goto("/wallet/plans/")
    assert page.get_by_text("0 of 10 rows").is_visible()
    look("own")
    page.get_by_role("link", name="Change or cancel").click()
    page.get_by_role("link", name="Cancel it").click()
    page.get_by_role("button", name="Cancel the plan").click()
    assert "You have no plan here any more." in page.get_by_role("status").first.inner_text()
    page.goto("/wallet/plans/")
    assert page.get_by_text("It is over.").is_visible()
    assert found == {}
    assert visitor.complaints == []
