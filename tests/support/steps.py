"""Filling in a form that shows one step at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping

from playwright.sync_api import Locator, Page

STEPS_MAX = 12
MOVED = """step => {
  const button = document.querySelector("[data-move=next]");
  return button.hidden || button.textContent !== step;
}"""


def until_seen(page: Page, wanted: Locator) -> Locator:
    """Goes on by the form's own button until the step is there that shows what is wanted."""
    for _ in range(STEPS_MAX):
        if wanted.is_visible():
            return wanted
        button = page.get_by_role("button", name=re.compile("^Next: "))
        step = button.inner_text()
        button.click()
        # The page goes there when it hears of the address.
        page.wait_for_function(MOVED, arg=step)
    raise AssertionError(f"no step shows {wanted}")


def fill(page: Page, texts: Mapping[str, str]) -> None:
    """Fields in the order of their steps, then on to the last step."""
    for label, text in texts.items():
        until_seen(page, page.get_by_label(label)).fill(text)
    until_seen(page, page.get_by_role("button", name="Save and preview"))
