"""The pages in a real Chromium: the first times of a voter, and what the console says meanwhile."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

from apps.core import clock
from apps.governance.executing import sweep_due
from apps.governance.models import Proposal
from apps.wallets import log
from tests.explorer import pages
from tests.support.browser import axe_violations

FORM = {
    "Title": "Sepsis in the next six hours",
    "Objective": "Warn the ward before a patient becomes septic.",
    "Features, one a line": "heart rate, 1/min, 20, 250\nlactate, mmol/l, 0, 30",
    "Label column": "septic",
    "Voting period": "1 h",
}


def test_from_a_new_account_to_a_counted_vote(site: str, visit: Any) -> None:
    visitor = visit()
    page = visitor.page
    page.goto("/")
    page.get_by_role("link", name="Create account").click()
    page.get_by_label("Public name").fill("Ada Example")
    page.get_by_label("E-mail").fill("ada@example.org")
    page.get_by_label("Password").fill("correct horse battery 9")
    page.get_by_role("button", name="Create account").click()
    page.wait_for_url("**/wallet/")

    faucet = page.get_by_role("region", name="Get test money")
    faucet.get_by_label("Amount").fill("800")
    faucet.get_by_label("Token").select_option("FLAI")
    faucet.get_by_role("button").click()
    stake = page.get_by_role("region", name="Stake", exact=True)
    stake.get_by_label("Amount").first.fill("600")
    stake.get_by_role("button", name="Stake", exact=True).click()
    assert "Staked 600 FLAI" in page.get_by_role("status").first.inner_text()

    page.get_by_role("link", name="Requests").first.click()
    page.get_by_role("link", name="Write a request").first.click()
    for label, text in FORM.items():
        page.get_by_label(label).fill(text)
    page.get_by_role("button", name="Save and preview").click()
    page.get_by_role("button", name="Send to the SuperDAO's vote").click()
    page.get_by_role("link", name="Read and vote").click()
    page.get_by_role("button", name="Vote for, with weight 100 %").click()

    assert page.get_by_role("heading", name="You voted for").is_visible()
    assert "100 %" in page.locator("#tally").inner_text()
    assert visitor.complaints == []


def test_a_vote_in_one_window_moves_the_tally_in_another(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    voter, watcher = visit(), visit()
    address = pages.public(world)["open proposal"]
    watcher.page.goto(address)
    assert "16,000 FLAI" in watcher.page.locator("#tally").inner_text()
    sign_in(voter)
    voter.page.goto(address)
    voter.page.get_by_role("button", name="Vote for, with weight 6.9 %").click()
    watcher.page.get_by_text("19,000 FLAI").wait_for()
    assert voter.complaints == watcher.complaints == []


def test_a_vote_is_final_and_says_so(site: str, world: Any, visit: Any, sign_in: Any) -> None:
    visitor = visit(java_script_enabled=False)
    sign_in(visitor)
    visitor.page.goto(pages.public(world)["open proposal"])
    visitor.page.get_by_role("button", name="Vote against").click()
    assert visitor.page.get_by_role("heading", name="You voted against").is_visible()
    assert visitor.page.get_by_role("button", name="Vote for").count() == 0


def test_an_ended_vote_shows_its_outcome(site: str, world: Any, visit: Any) -> None:
    later = clock.now()
    Proposal.objects.filter(id=world.open_vote.id).update(
        voting_ends_at=later - timedelta(seconds=1), quorum_bps=9_000
    )
    sweep_due(later)
    visitor = visit()
    visitor.page.goto(pages.public(world)["open proposal"])
    assert visitor.page.get_by_role("heading", name="Not adopted").is_visible()
    assert visitor.page.get_by_text("The quorum was missed").is_visible()


def test_a_log_entry_opens_into_its_proof(site: str, world: Any, visit: Any) -> None:
    log.sequence(now=clock.now())
    visitor = visit()
    visitor.page.goto("/log/")
    visitor.page.get_by_role("region", name="Entries").get_by_role("link").first.click()
    assert visitor.page.get_by_text("Proof checks").is_visible()
    visitor.page.get_by_text("Show the path").click()
    assert visitor.page.locator("details.more li").first.is_visible()
    assert visitor.complaints == []


def test_pages_are_accessible_and_fit(site: str, world: Any, visit: Any, sign_in: Any) -> None:
    """axe-core finds nothing, nothing is wider than the screen, the console is silent.

    Each page is loaded once and shown in both widths and themes; a theme can break contrast only.
    """
    visitor = visit(color_scheme="light", reduced_motion="reduce")
    sign_in(visitor)
    page = visitor.page
    addresses = pages.public(world) | pages.own(world)
    found = {}
    for name, address in addresses.items():
        page.goto(address)
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                problems = axe_violations(
                    page, only=[] if scheme == "light" else ["color-contrast"]
                )
                wide = page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                if wide > 0:
                    problems.append(f"{wide} px too wide")
                if problems:
                    found[name, width, scheme] = problems
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1280, "height": 900})
    assert found == {}
    assert visitor.complaints == []


def test_the_keyboard_reaches_the_content_first(site: str, world: Any, visit: Any) -> None:
    visitor = visit()
    visitor.page.goto("/")
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.className") == "skip"
    visitor.page.keyboard.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "content"


def test_pages_are_light(site: str, world: Any, visit: Any, sign_in: Any) -> None:
    """All that a first visit loads: at most 200 kB compressed, and nothing from elsewhere."""
    visitor = visit()
    sign_in(visitor)
    debugger = visitor.context.new_cdp_session(visitor.page)
    debugger.send("Network.setCacheDisabled", {"cacheDisabled": True})
    asked: set[str] = set()
    visitor.page.on("response", lambda answer: asked.add(answer.url))
    addresses = pages.public(world) | pages.own(world)
    for name in ("open proposal", "model", "dashboard", "design", "wallet"):
        asked.clear()
        visitor.page.goto(addresses[name])
        visitor.page.wait_for_load_state("networkidle")
        assert any("htmx" in url for url in asked)
        assert all(url.startswith(site) for url in asked)
        bodies = [visitor.page.request.get(url).body() for url in asked]
        sent = sum(min(len(body), len(zlib.compress(body))) for body in bodies)
        assert sent <= 200_000, name
