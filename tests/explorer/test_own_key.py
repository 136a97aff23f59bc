"""A key of one's own in the snippets: kept in the tab, filled in by the page, never sent."""

from __future__ import annotations

import re
from typing import Any

from django.urls import reverse

from tests.explorer import pages
from tests.explorer.test_try_it import Sent
from tests.support.browser import misfits

CODES = ("call-shell", "call-python", "call-javascript", "call-curl")


def kept(page: Any) -> Any:
    return page.evaluate("sessionStorage.getItem('flai-own-key')")


def texts(page: Any) -> dict[str, str]:
    return {name: page.locator(f"#{name}").inner_text() for name in CODES}


def test_a_key_stays_in_its_tab_and_is_filled_in_there(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    visitor = visit()
    sign_in(visitor)
    page, model = visitor.page, pages.public(world)["model"]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(model)
    plain = texts(page)
    assert '"Authorization: Bearer $FLAI_API_KEY"' in plain["call-curl"]
    assert 'os.environ["FLAI_API_KEY"]' in plain["call-python"]

    # One that is none is not kept.
    field = page.get_by_label("Fill in your API key")
    for wrong in (
        "",
        "flai_abc…",
        "sk-0123456789012345678901234567",
        'flai_"; rm -rf ~;' + "a" * 30,
    ):
        field.fill(wrong)
        page.get_by_role("button", name="Keep it in this tab").click()
        assert "This is no whole API key" in page.locator("#own-key-error").inner_text()
    assert kept(page) is None and texts(page) == plain
    assert field.get_attribute("type") == "password" and field.get_attribute("name") is None

    # A new one is offered to be kept where it is shown once.
    page.goto(reverse("explorer:account"))
    page.get_by_label("What is it for?").fill("my program")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("#fresh-key").inner_text()
    assert re.fullmatch(r"flai_[\w-]{43}", key)
    sent = Sent(page)
    assert kept(page) is None  # nobody chose it yet
    page.get_by_role("button", name="Keep it in this tab for the snippets").click()
    page.get_by_text("Kept: the snippets on models' pages").wait_for()

    page.goto(model)
    masked = f"{key[:12]}••••••••"
    for name, text in texts(page).items():
        assert masked in text and key not in text and "FLAI_API_KEY" not in text, name
    assert f'api_key="{masked}"' in texts(page)["call-python"]
    assert f'const key = "{masked}";' in texts(page)["call-javascript"]
    assert f'echo "{masked}" |' in texts(page)["call-shell"]
    assert key not in page.content()
    page.get_by_role("button", name="Copy: What a query must carry, as JSON").click()
    page.locator(".copy.done").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == plain["call-curl"].strip().replace("$FLAI_API_KEY", key)

    show = page.get_by_role("button", name="Show it")
    show.click()
    assert all(key in text for text in texts(page).values())
    page.get_by_role("button", name="Mask it").click()
    assert key not in page.content() and misfits(page) == []

    # It outlives a reload of the tab, is in no other tab, and was sent nowhere.
    page.reload()
    assert masked in texts(page)["call-curl"]
    other = page.context.new_page()
    other.goto(model)
    assert texts(other) == plain
    other.close()
    assert key.encode() not in sent.bytes() and key[13:].encode() not in sent.bytes()
    assert key not in page.evaluate("JSON.stringify(localStorage) + document.cookie")

    page.get_by_role("button", name="Forget it").click()
    assert texts(page) == plain and kept(page) is None

    # One that is pasted is kept too, until somebody signs out; another's is not shown to anybody.
    field.fill(f" {key} ")
    field.press("Enter")
    assert masked in texts(page)["call-curl"] and field.input_value() == ""
    page.evaluate("""() => {
      const kept = JSON.parse(sessionStorage.getItem("flai-own-key"));
      sessionStorage.setItem("flai-own-key", JSON.stringify({ ...kept, party: "00".repeat(16) }));
    }""")
    page.reload()
    assert texts(page) == plain and kept(page) is None
    field.fill(key)
    field.press("Enter")
    other = page.context.new_page()
    other.goto(model)
    other.get_by_label("Fill in your API key").fill(key)
    other.get_by_label("Fill in your API key").press("Enter")
    other.get_by_role("button", name="Show it").click()
    page.get_by_role("button", name="Sign out").first.click()
    page.wait_for_load_state()
    assert kept(page) is None
    other.wait_for_function("sessionStorage.getItem('flai-own-key') === null")
    assert texts(other) == plain and key not in other.content()  # in no other tab either
    other.close()
    page.goto(model)
    assert texts(page) == plain and page.get_by_label("Fill in your API key").count() == 0
    assert visitor.complaints == []
