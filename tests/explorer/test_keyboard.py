"""Tab, Enter and Space alone: sign in, vote, buy a prediction; always seen where one is."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from apps.governance.models import Vote
from apps.listings.models import Query
from apps.training.models import Phase
from tests.explorer import pages, second
from tests.explorer import world as worlds
from tests.explorer.test_try_it import answered, asker, sale  # noqa: F401 - fixtures
from tests.support.market import drain_until

STOPS_MAX = 120
HERE = """() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  const label = at.labels && at.labels.length ? at.labels[0].innerText : "";
  return {
    name: (at.getAttribute("aria-label") || label || at.innerText || at.value || "").trim(),
    outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
    body: at === document.body,
  };
}"""


BELOW = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  return { name: at.innerText, bottom: box.bottom, within: Boolean(at.closest(".compare-bar")) };
}"""


def tab_to(page: Page, name: str) -> None:
    """Tab until what is so named has the focus; each stop on the way is visible and outlined."""
    passed = []
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        here = page.evaluate(HERE)
        if here["body"]:  # the end of the page: around once more
            continue
        passed.append(here["name"])
        assert here["seen"] and here["outline"] >= 2, here
        if here["name"].startswith(name):
            return
    raise AssertionError(f"{name!r} is not among {passed}")


def test_sign_in_and_vote_by_keyboard(site: str, world: Any, visit: Any) -> None:
    page = visit().page
    address = pages.public(world)["open proposal"]
    page.goto(address)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    assert page.evaluate("document.activeElement.id") == "content"
    tab_to(page, "Sign in")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sign-in/**")
    tab_to(page, "E-mail")
    page.keyboard.type("buyer@example.org")
    tab_to(page, "Password")
    page.keyboard.type(worlds.PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "sign-in" not in url)
    page.goto(address)
    tab_to(page, "Vote for, with weight 6.9 %")
    page.keyboard.press("Space")
    expect(page.get_by_role("heading", name="You voted for")).to_be_visible()
    assert Vote.objects.filter(proposal=world.open_vote, voter=world.party).count() == 1


def test_buy_a_prediction_by_keyboard(sale: Any, asker: Any) -> None:  # noqa: F811
    page = asker(2_000_000).page
    tab_to(page, "Pay $0.50 and predict")
    page.keyboard.press("Enter")
    drain_until(answered)
    answer = page.locator("#try-answer")
    answer.wait_for()
    expect(answer).to_be_focused()
    assert Query.objects.get().state == "settled"
    assert sale.listing.version.round.phase == Phase.DONE


def test_what_has_the_focus_is_not_under_the_bar_that_sticks(
    site: str, world: Any, visit: Any
) -> None:
    """Models are ticked for comparison, and the bar with the button lies over the page's end."""
    second.add(world)
    page = visit().page
    page.set_viewport_size({"width": 360, "height": 420})
    page.goto("/models/")
    page.locator(".pick input").first.check()
    page.get_by_role("main").get_by_role("link").first.focus()
    bar = page.locator(".compare-bar")
    for _ in range(STOPS_MAX):
        here = page.evaluate(BELOW)
        if here["within"]:
            return
        assert here["bottom"] <= bar.bounding_box()["y"] + 1, here
        page.keyboard.press("Tab")
    raise AssertionError("the bar's own button was not reached")


def test_a_refused_form_takes_the_focus_to_its_errors(site: str, visit: Any) -> None:
    """With scripts and without: the summary has the focus, and its links lead to the fields."""
    for scripts in (True, False):
        page = visit(java_script_enabled=scripts).page
        page.goto("/sign-up/")
        tab_to(page, "Public name") if scripts else page.get_by_label("Public name").focus()
        page.keyboard.type("Ada Example")
        page.get_by_label("E-mail").fill("ada@example.org")
        page.get_by_label("Password").fill("short")
        page.keyboard.press("Enter")
        errors = page.locator("#errors")
        expect(errors).to_be_focused()
        expect(errors).to_contain_text("Password")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Password")).to_be_focused()
