"""The pages in a real Chromium: the first times of a voter, and what the console says meanwhile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from secrets import token_hex
from typing import Any
from uuid import uuid4

from apps.accounts.models import User
from apps.compute.services import job_create
from apps.core import clock
from apps.core.transactions import durable
from apps.governance.executing import sweep_due
from apps.governance.models import Proposal
from apps.wallets import log
from tests.explorer import pages, second
from tests.explorer.world import PASSWORD
from tests.support.browser import FRAME, LOOKS, Look, misfits, with_axe
from tests.support.steps import fill

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
    fill(page, FORM)
    page.get_by_role("button", name="Save and preview").click()
    page.get_by_role("button", name="Send to the SuperDAO's vote").click()
    page.get_by_role("link", name="Read and vote").click()
    page.get_by_role("button", name=re.compile("^Vote for")).click()

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


def test_a_new_job_appears_on_the_open_page_of_the_nodes(site: str, world: Any, visit: Any) -> None:
    visitor, now = visit(), clock.now()
    visitor.page.goto("/nodes/")
    visitor.page.locator("html[data-watching]").wait_for()
    with durable():
        job = job_create(
            kind="query",
            circuit="logistic_infer@1",
            engine="ring",
            circuits_hash="c1" * 32,
            nodes=world.round.nodes,
            scope=f"query:{uuid4().hex}",
            roster=None,
            inputs={"x": [token_hex(16)]},
            model=world.listing.version.model,
            deadline_s=60,
            expires_at=now + timedelta(minutes=5),
            now=now,
        )
    visitor.page.locator(f"#job-{job.pk}").get_by_text("queued").wait_for()
    assert visitor.complaints == []


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


def open_the_search_list(page: Any) -> None:
    page.goto("/log/")
    page.get_by_role("combobox").fill("mass")
    page.get_by_role("option").first.wait_for()


def preview_a_payment(page: Any) -> None:
    page.goto("/wallet/")
    form = page.locator("form[action$='/wallet/send/']")
    form.get_by_label("To", exact=True).fill("superdao")
    form.get_by_label("Amount").fill("12")
    form.get_by_role("button").click()
    page.get_by_text("Nothing has moved yet.").wait_for()


def preview_a_pledge(page: Any) -> None:
    page.goto("/rfms/diabetic-retinopathy-from-routine-labs/")
    form = page.locator("form[action*='/pledge/']")
    form.get_by_label("Your pledge").fill("400")
    form.get_by_role("button").click()
    page.get_by_text("You pay into escrow").wait_for()


def send_an_unfinished_request(page: Any) -> None:
    page.goto("/rfms/new/")
    page.get_by_role("button", name="Next: data").click()
    page.locator("[aria-invalid=true]").first.wait_for()


def write_a_request(page: Any) -> None:
    page.goto("/rfms/new/")
    fill(page, FORM)


def sign_in_with_a_wrong_password(page: Any) -> None:
    page.goto("/sign-in/")
    page.get_by_label("E-mail").fill("buyer@example.org")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.get_by_text("don't belong together").wait_for()


def ask_for_a_page_that_is_not(page: Any) -> None:
    page.goto("/there/is/nothing/")


# What one gets by doing something first.
STRANGERS_DEEDS = {
    "sign-in refused": sign_in_with_a_wrong_password,
    "no such page": ask_for_a_page_that_is_not,
}
OWN_DEEDS = {
    "search list": open_the_search_list,
    "payment's preview": preview_a_payment,
    "pledge's preview": preview_a_pledge,
    "request with errors": send_an_unfinished_request,
    "request's review": write_a_request,
}
# {address: bytes as sent, compressed}, of the page and all that it has asked for, also where the
# browser still had it; 0 where it asked only whether that is still good.
SENT = """Object.fromEntries(performance.getEntries().filter(e => "encodedBodySize" in e)
    .map(e => [e.name, e.encodedBodySize]))"""
SENT_BYTES_MAX = 200_000
LOADED = {"inter-latin.woff2", "flai.css", "live.js", "try-it.js", "wallet-key.js"}  # a sample


def problems(page: Any, sizes: dict[str, int], looks: Sequence[Look] = LOOKS) -> list[str]:
    """Of the page as it stands: misfits, and its weight; `sizes` keeps each address's."""
    found = misfits(page, looks)
    sent = page.evaluate(SENT)
    for address, size in sent.items():
        sizes[address] = max(size, sizes.get(address, 0))
    whole = {address: sizes[address] for address in sent}
    if sum(whole.values()) > SENT_BYTES_MAX:
        found.append(f"{sum(whole.values())} bytes: {whole}")
    return found


def test_pages_are_accessible_fit_and_are_light(
    site: str, world: Any, visit: Any, sign_in: Any
) -> None:
    """axe-core finds nothing, nothing is wider than the screen, nothing comes from elsewhere, at
    most 200 kB come in all, and the console is silent. Each page is loaded once.
    """
    beside = pages.beside(world, second.add(world))
    User.objects.create_user(email="nobody@example.org", password=PASSWORD)
    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for email, addresses, deeds in (
        (None, pages.strangers(world), STRANGERS_DEEDS),
        ("nobody@example.org", pages.of_nobody(), {}),
        ("buyer@example.org", pages.public(world) | pages.own(world) | beside, OWN_DEEDS),
    ):
        visitor = with_axe(visit(reduced_motion="reduce"))
        if email:
            sign_in(visitor, email)
        looks = LOOKS + FRAME  # of the first page
        for name, address in addresses.items():
            visitor.page.goto(address)
            found[name] = problems(visitor.page, sizes, looks)
            looks = LOOKS
        assert visitor.complaints == []
        for name, deed in deeds.items():
            deed(visitor.page)
            found[name] = problems(visitor.page, sizes)
        # All that the console has to say then: that there is no such page, or a form was refused.
        assert all("status of 4" in said for said in visitor.complaints), visitor.complaints
    assert {name: those for name, those in found.items() if those} == {}
    assert [address for address in sizes if not address.startswith(site)] == []
    assert {address.rpartition("/")[2] for address, size in sizes.items() if size} >= LOADED


def test_the_keyboard_reaches_the_content_first(site: str, world: Any, visit: Any) -> None:
    visitor = visit()
    visitor.page.goto("/")
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.className") == "skip"
    visitor.page.keyboard.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "content"
