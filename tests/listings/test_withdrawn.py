"""A model that is voted off sale pays its plans back by itself; the buyer is told; replayed."""

from __future__ import annotations

import copy
import json
import uuid
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.test import Client

from apps.accounts.services import sign_up
from apps.core.clock import from_unix_ms, now, unix_ms
from apps.core.transactions import durable
from apps.listings import plans, running
from apps.listings.actions import SetOnSale
from apps.listings.models import Listing, Subscription
from apps.notify.models import Delivery, Endpoint
from apps.protocol import consent
from apps.protocol.plans import DAY_MS
from apps.wallets.keys import Consent
from apps.wallets.services import faucet
from tests.listings import test_plans
from tests.listings.test_plans import (
    BASIC,
    FUNDS,
    ask,
    at_once,
    choose,
    decide,
    errors,
    leaves,
    main_of,
    refused,
    settle,
    treasury,
)
from tests.listings.test_renewals import agree
from tests.support.consents import bind, signed
from tests.support.shelf import Shelf

shelf = test_plans.shelf  # whose end replays all of it, and looks at the ledger
TEN = timedelta(days=10)


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_plans, "TOLD", (*test_plans.TOLD, "listings.plan_renewal", "else"))


def retire(shelf: Shelf, at: datetime, *, on_sale: bool = False) -> None:
    with durable():
        proposal = {"dao": shelf.listing.dao, "proposal_id": uuid.uuid4(), "now": at}
        SetOnSale().execute({"on_sale": on_sale}, **proposal)


def calls() -> list[Any]:
    return [json.loads(call.body) for call in Delivery.objects.order_by("pk")]


def test_the_unused_time_comes_back_once_without_a_step_of_the_buyer(shelf: Shelf) -> None:
    """Ten of thirty days are over, and four of ten rows asked: two thirds of what was paid are for
    the time to come, six tenths are unused."""
    buyer = shelf.buyer(FUNDS)
    Endpoint(
        party=buyer, url="https://example.org/", events=["plan.withdrawn"], created_at=now()
    ).save()
    row = choose(shelf, buyer, "basic")
    agree(shelf, buyer)
    settle(shelf, ask(shelf, buyer, 4))
    idle = shelf.buyer(FUNDS)
    unasked = choose(shelf, idle, "basic", at=row.starts_at)
    assert unasked.starts_at == row.starts_at
    retire(shelf, row.starts_at + TEN)
    late = row.starts_at + TEN + timedelta(hours=7)  # the sweep was away
    refused("plan_withdrawn", lambda: choose(shelf, buyer, "", at=late))
    at_once(*[partial(plans.subscriptions_end, now=late)] * 3)
    assert main_of(buyer) == (FUNDS - 4 * BASIC, 0)
    lapsed = 10 * BASIC - 10 * BASIC * 20 // 30
    assert main_of(idle) == (FUNDS - lapsed, 0) and treasury(shelf) == lapsed
    for one in (row, unasked):
        one.refresh_from_db()
        assert (one.ended_at, one.unrenewed) == (late, "plan_withdrawn")
    [told] = calls()
    assert told["type"] == "plan.withdrawn"
    assert told["data"] == {
        "listing": shelf.dao.slug,
        "plan": "basic",
        "refund_micro": str(6 * BASIC),
        "lapsed_micro": "0",
    }
    assert plans.subscriptions_end(now=row.ends_at) == 0 and Subscription.objects.count() == 2


def test_what_is_held_is_answered_first(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    row = choose(shelf, buyer, "basic")
    waits, cancelled = ask(shelf, buyer, 2), ask(shelf, buyer, 3)
    retire(shelf, row.starts_at + TEN)
    late = row.starts_at + TEN
    assert plans.subscriptions_end(now=late) == 0
    settle(shelf, waits)
    running.query_cancel(query_id=cancelled.id, now=now())
    assert plans.subscriptions_end(now=late) == 1
    assert main_of(buyer) == (FUNDS - 10 * BASIC + 10 * BASIC * 20 // 30, 0)


def test_a_plan_goes_on_that_its_model_is_sold_again_for(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    waits = ask(shelf, buyer, 2)
    decide(shelf, False)
    assert plans.subscriptions_end(now=now()) == 0
    decide(shelf, True)
    settle(shelf, waits)
    assert plans.subscriptions_end(now=now()) == 0
    row = plans.running(buyer, shelf.listing, now=now())
    assert plans.left_rows(row, now=now()) == 8
    settle(shelf, ask(shelf, buyer, 8))


def test_a_plan_that_was_over_before_has_lapsed(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    row = choose(shelf, buyer, "basic")
    retire(shelf, row.ends_at)
    assert plans.subscriptions_end(now=row.ends_at) == 1
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0) and treasury(shelf) == 10 * BASIC


def test_a_wallet_key_need_not_sign_what_it_is_given(shelf: Shelf) -> None:
    buyer, key = shelf.buyer(FUNDS), Ed25519PrivateKey.generate()
    bind(buyer, key, now=now())
    word = partial(signed, buyer, key, consent.PLAN, nonce=2, now=now())
    row = choose(shelf, buyer, "basic", word=lambda seen: Consent("session", word(seen.asked)))
    retire(shelf, row.starts_at)
    assert plans.subscriptions_end(now=row.starts_at + TEN) == 1
    assert main_of(buyer) == (FUNDS, 0)


def test_every_forgery_of_a_paying_back_is_found(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    row = choose(shelf, buyer, "basic")
    retire(shelf, row.starts_at + TEN)
    assert plans.subscriptions_end(now=row.starts_at + TEN) == 1
    said = leaves()
    assert errors(shelf, said) == []
    kinds = [leaf["body"].get("kind") for leaf in said]
    refund, lapsed = kinds.index("listings.plan_refund"), kinds.index("listings.plan_lapsed")
    [_, ended] = [i for i, leaf in enumerate(said) if leaf["type"] == "listings.plan"]
    [voted] = [i for i, leaf in enumerate(said) if leaf["type"] == "subdaos.params"]
    other = uuid.uuid4().hex
    forgeries: list[tuple[int, Any]] = [
        (refund, lambda leaf: leaf["body"].update(amount_micro="1")),
        (refund, lambda leaf: leaf["body"].update(credit=f"{other}/main/USDC")),
        (lapsed, lambda leaf: leaf["body"].update(credit=f"{other}/treasury/USDC")),
        (ended, lambda leaf: leaf["body"].update(step="ended")),
        (ended, lambda leaf: leaf["body"].update(buyer=other)),
        (ended, lambda leaf: leaf["body"].update(moved={})),
        (voted, lambda leaf: leaf.update(at=leaf["at"] + 1000)),
    ]
    for number, (index, forge) in enumerate(forgeries):
        forged = copy.deepcopy(said)
        forge(forged[index])
        assert errors(shelf, forged), number
    for index in (refund, lapsed, ended, voted):
        assert errors(shelf, said[:index] + said[index + 1 :]), index
    # it may lapse no more, and not be kept
    over = copy.deepcopy(said[ended])
    over["body"] |= {"step": "ended", "moved": {"lapsed": said[lapsed]["body"]["id"]}}
    over["at"] = unix_ms(row.ends_at)
    whole = copy.deepcopy(said[lapsed])
    whole["body"]["amount_micro"] = str(10 * BASIC)
    kept = said[: min(refund, lapsed)]
    assert errors(shelf, [*kept, whole, over]) == []  # as in earlier releases
    assert errors(shelf, kept) == []
    later = {"v": 1, "type": "else", "at": said[voted]["at"] + DAY_MS + 60_001, "body": {}}
    assert errors(shelf, [*kept, later | {"at": later["at"] - 1}]) == []
    assert "was not paid back" in str(errors(shelf, [*kept, later]))


def test_plans_of_a_model_that_an_earlier_release_retired(shelf: Shelf) -> None:
    """One ran out, one runs on until the log has told since when it is off sale."""
    early, late = shelf.buyer(FUNDS), shelf.buyer(FUNDS)
    row = choose(shelf, early, "basic")
    choose(shelf, late, "basic", at=row.starts_at + 2 * TEN)
    for days, on_sale in ((22, False), (23, True), (25, False)):
        retire(shelf, row.starts_at + timedelta(days=days), on_sale=on_sale)
    Listing.objects.update(retired_at=None)
    before = len(leaves())
    assert plans.subscriptions_end(now=row.ends_at) == 1
    lapsed = len(leaves())
    with connection.cursor() as cursor:
        cursor.execute(import_module("apps.listings.migrations.0011_retired_before").RETIRED)
    voted = row.starts_at + timedelta(days=25)
    assert Listing.objects.get().retired_at == from_unix_ms(unix_ms(voted))
    assert plans.subscriptions_end(now=row.ends_at) == 1
    assert main_of(early) == (FUNDS - 10 * BASIC, 0)
    assert main_of(late) == (FUNDS - 10 * BASIC + 10 * BASIC * 25 // 30, 0)
    said = leaves()
    assert errors(shelf, said) == []
    after = said[:before] + said[lapsed:] + said[before:lapsed]
    assert "off sale before its end" in str(errors(shelf, after))


def test_the_pages_say_it(shelf: Shelf) -> None:
    user, buyer = sign_up(
        email="ada@example.org", password="correct horse 9", name="Ada", kind="person"
    )
    faucet(party=buyer, asset="USDC", amount_micro=FUNDS)
    choose(shelf, buyer, "basic")
    decide(shelf, False)
    client = Client()
    client.force_login(user)
    page = client.get(f"/models/{Listing.objects.get().slug}/plan/").content.decode()
    assert "took this model off sale" in page and "ends by itself" in page
    assert plans.subscriptions_end(now=now()) == 1
    assert "Its SubDAO took the model off sale" in client.get("/wallet/plans/").content.decode()
    assert f"Your plan at {shelf.dao.name}" in client.get("/").content.decode()
