"""Pages that move by themselves: real Chromium, the site under uvicorn, the real Valkey between.

One acts, the other watches; nobody reloads.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from playwright.sync_api import expect

from apps.core import clock
from apps.core.transactions import durable
from apps.governance.executing import advance
from apps.governance.services import vote
from apps.rfms.services import rfm_reject, rfm_submit
from apps.subdaos.services import param_set
from apps.training.models import Phase, Round
from apps.training.services import lock_round, note, phase_to
from apps.wallets import log
from apps.wallets.services import faucet
from flai_site.asgi import application
from tests.explorer import pages
from tests.explorer import world as worlds
from tests.support.browser import served

CONNECTED = "html[data-watching]"


def watch(visitor: Any, address: str) -> Any:
    """Opens the page and waits until its socket watches."""
    visitor.page.goto(address)
    visitor.page.locator(CONNECTED).wait_for(state="attached")
    return visitor.page


def open_round(world: worlds.World) -> Round:
    """The world's round, set back to waiting for sums."""
    Round.objects.filter(id=world.round.id).update(
        phase=Phase.MOMENTS, closed_at=None, reason="", normalisation=None, progress=[]
    )
    return world.round


def step(held: Round, phase: str, text: str) -> None:
    with durable():
        row = lock_round(held.id)
        phase_to(row, Phase(phase))
        note(row, text, clock.now())
        row.save()


def test_a_vote_moves_the_tally_of_who_watches_and_nothing_else(
    world: Any, visit: Any, sign_in: Any
) -> None:
    """Focus, scroll and an opened detail stay; a second reading has nothing to announce."""
    voter, watcher = visit(), visit()
    address = pages.public(world)["open proposal"]
    page = watch(watcher, address)
    expect(page.locator("#tally")).to_contain_text("16,000 FLAI")
    page.get_by_text("Show the payload").click()
    page.get_by_role("button", name="Quorum").focus()
    page.evaluate("window.scrollTo(0, 120)")
    before = page.evaluate("window.scrollY")
    sign_in(voter)
    voter.page.goto(address)
    voter.page.get_by_role("button", name="Vote for, with weight 6.9 %").click()
    expect(voter.page.get_by_text("Your vote for is counted.")).to_be_visible()
    expect(page.locator("#tally")).to_contain_text("19,000 FLAI")
    expect(page.get_by_role("region", name="Voters")).to_contain_text("Helvetia Pharma AG")
    assert page.evaluate("document.activeElement.textContent") == "Quorum"
    assert page.evaluate("window.scrollY") == before
    assert page.locator("details.more[open]").count() == 1
    assert page.get_by_text("is counted").count() == 0
    assert voter.complaints == watcher.complaints == []


def test_a_rounds_phases_move_live(world: Any, visit: Any) -> None:
    held, watcher = open_round(world), visit()
    page = watch(watcher, pages.public(world)["round"])
    now = page.locator("[aria-current=step] .phase")
    expect(now).to_have_text("Sum up")
    step(held, "normalising", "All sums are with the nodes.")
    expect(now).to_have_text("Normalise")
    step(held, "updates", "Mean and variance are known.")
    expect(now).to_have_text("Train")
    expect(page.locator("#round .timeline")).to_contain_text("Mean and variance are known.")
    assert watcher.complaints == []


def test_a_subdao_and_what_awaits_a_member_move_live(world: Any, visit: Any, sign_in: Any) -> None:
    """A parameter that was voted on stands on the SubDAO's page, a vote that begins on the
    dashboard of who has a voice in it, and leaves it once the vote is cast elsewhere; the
    request's own page tells how its vote ended."""
    member, reader = visit(), visit()
    sign_in(member)
    dashboard = watch(member, "/dashboard/")
    page = watch(reader, pages.public(world)["subdao"])
    with durable():
        param_set(
            dao=world.dao, key="quorum_bps", value=4_321, proposal_id=uuid4(), now=clock.now()
        )
    expect(page.locator("#course")).to_contain_text("43.21 %")
    made = rfm_submit(actor=world.draft.submitter, slug=world.draft.slug, now=clock.now())
    advance(proposal_id=made.proposal_id, now=clock.now())  # its snapshot, as a worker does
    asked = dashboard.locator("#needs").get_by_role("link", name=made.proposal.title, exact=True)
    expect(asked).to_be_visible()
    vote(actor=world.party, proposal_id=made.proposal_id, support="for", now=clock.now())
    expect(asked).to_be_hidden()
    watch(reader, f"/rfms/{made.slug}/")
    rfm_reject(rfm_id=made.id, proposal_id=made.proposal_id, now=clock.now())
    expect(page.get_by_role("heading", name="It was not approved")).to_be_visible()
    assert member.complaints == reader.complaints == []


def test_money_and_the_log_move_live(world: Any, visit: Any, sign_in: Any) -> None:
    owner, reader = visit(), visit()
    sign_in(owner)
    log.sequence(now=clock.now())
    wallet, entries = watch(owner, "/wallet/"), watch(reader, "/log/")
    before = int(entries.locator("#entries tbody tr").first.locator("a").inner_text())
    wallet.get_by_role("region", name="Stake", exact=True).get_by_label("Amount").first.fill("123")
    faucet(party=world.party, asset="USDC", amount_micro=41_000_000, now=clock.now())
    expect(wallet.locator("#money").get_by_text("$41.00").first).to_be_visible()
    assert wallet.locator("#stake_amount").input_value() == "123"
    log.sequence(now=clock.now())
    expect(entries.locator(f"#entry-{before + 1}")).to_be_visible()
    assert owner.complaints == reader.complaints == []


def test_a_page_hears_again_after_the_broker_dropped_it(world: Any, visit: Any) -> None:
    """Every subscription is cut; once the site has subscribed anew, wake-ups arrive."""
    held, watcher = open_round(world), visit()
    page = watch(watcher, pages.public(world)["round"])
    broker = redis.Redis.from_url(settings.VALKEY_URL)
    own = broker.connection_pool.connection_kwargs.get("db", 0)  # not another process's of the run
    cut = [one["id"] for one in broker.client_list(_type="pubsub") if int(one["db"]) == own]
    assert sum(broker.client_kill_filter(_id=one) for one in cut) >= 1
    step(held, "normalising", "All sums are with the nodes.")
    heard = time.monotonic() + 60
    while not broker.pubsub_channels(f"*live.round.{held.id}"):
        assert time.monotonic() < heard, "the site did not subscribe again"
    step(held, "updates", "Mean and variance are known.")
    expect(page.locator("[aria-current=step] .phase")).to_have_text("Train")


def test_a_page_catches_up_after_the_site_was_away(world: Any, browser: Any) -> None:
    """What happened while the site was down is on the page when it is back, without reloading."""
    held = open_round(world)
    with served(application) as first:
        port = urlsplit(first).port
        context = browser.new_context(base_url=first)
        page = context.new_page()
        page.goto(pages.public(world)["round"])
        page.locator(CONNECTED).wait_for(state="attached")
    page.locator(CONNECTED).wait_for(state="detached")
    step(held, "normalising", "All sums are with the nodes.")
    with served(application, port=port):
        expect(page.locator("[aria-current=step] .phase")).to_have_text("Normalise", timeout=30_000)
        context.close()


def test_pages_read_well_without_javascript(world: Any, visit: Any) -> None:
    visitor = visit(java_script_enabled=False)
    visitor.page.goto(pages.public(world)["open proposal"])
    expect(visitor.page.locator("#tally")).to_contain_text("16,000 FLAI")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_motion_is_short_and_none_for_who_wants_none(world: Any, visit: Any, motion: str) -> None:
    visitor = visit(reduced_motion=motion)
    visitor.page.goto(pages.public(world)["open proposal"])
    seconds = visitor.page.locator("#tally .fill").first.evaluate(
        "node => parseFloat(getComputedStyle(node).transitionDuration)"
    )
    assert seconds == 0 if motion == "reduce" else 0 < seconds <= 0.2
