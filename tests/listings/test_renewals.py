"""Plans that renew themselves: as agreed, once, or not at all and the buyer is told; replayed."""

from __future__ import annotations

import copy
import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.core.clock import now, unix_ms
from apps.core.transactions import durable
from apps.listings import plans
from apps.listings.models import Subscription
from apps.notify.models import Delivery, Endpoint
from apps.protocol.plans import DAY_MS, Plan, Renewal, begin, renewed
from apps.subdaos.models import Dao
from apps.subdaos.services import param_set
from apps.wallets.keys import SESSION
from apps.wallets.services import send
from tests.listings import test_plans
from tests.listings.test_plans import (
    BASIC,
    FUNDS,
    OFFER,
    ask,
    at_once,
    choose,
    leaves,
    main_of,
    refused,
    settle,
    treasury,
)
from tests.support.consents import bind
from tests.support.shelf import PRICE, Shelf

shelf = test_plans.shelf  # whose end replays all of it
AGREED = Renewal(10, 30, 10 * BASIC)


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_plans, "TOLD", (*test_plans.TOLD, "listings.plan_renewal"))


def agree(shelf: Shelf, buyer: Any, agreed: Renewal | None = AGREED) -> Subscription:
    return plans.renewal_set(
        listing=shelf.listing, buyer=buyer, agreed=agreed, consent=SESSION, now=now()
    )


def hooked(shelf: Shelf) -> Any:
    """A buyer with a plan, who is called."""
    buyer = shelf.buyer(FUNDS)
    Endpoint(
        party=buyer, url="https://example.org/", events=["plan.renewed", "plan.not_renewed"],
        created_at=now(),
    ).save()  # fmt: skip
    choose(shelf, buyer, "basic")
    return buyer


def calls() -> list[str]:
    return [call.event for call in Delivery.objects.order_by("pk")]


def test_what_was_agreed_to_is_renewed_and_nothing_else() -> None:
    plan = Plan("basic", 10, 30, 1_000)
    agreed = Renewal(10, 30, 10 * 450_000)
    assert renewed(agreed, plan, price_micro=500_000, at_ms=7) == begin(
        plan, price_micro=500_000, at_ms=7
    )
    assert renewed(agreed, plan, price_micro=400_000, at_ms=7).row_micro == 360_000
    assert renewed(agreed, plan, price_micro=500_001, at_ms=7) is None
    for other in (Plan("basic", 11, 30, 2_000), Plan("basic", 10, 29, 2_000)):
        assert renewed(agreed, other, price_micro=500_000, at_ms=7) is None
    for bad in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError):
            Renewal(*bad)


def test_a_plan_renews_itself_at_its_end_once_and_goes_on(shelf: Shelf) -> None:
    buyer = hooked(shelf)
    first = agree(shelf, buyer)
    settle(shelf, ask(shelf, buyer, 4))
    assert plans.subscriptions_end(now=first.ends_at - timedelta(milliseconds=1)) == 0
    over = first.ends_at + timedelta(seconds=3)  # the sweep comes a little later
    at_once(*[partial(plans.subscriptions_end, now=over)] * 3)
    second = plans.running(buyer, shelf.listing, now=over)
    assert second is not None and second.account_id == first.account_id
    assert (second.rows, second.row_micro, second.renewal) == (10, BASIC, first.renewal)
    assert unix_ms(second.ends_at) == unix_ms(over) + 30 * DAY_MS
    assert plans.left_rows(second, now=over) == 10
    assert main_of(buyer) == (FUNDS - 20 * BASIC, 0) and treasury(shelf) == 6 * BASIC
    assert Subscription.objects.count() == 2 and calls() == ["plan.renewed"]
    # and once more, cheaper by then; after that no more
    price(shelf, PRICE // 2, at=over)
    over = second.ends_at
    assert plans.subscriptions_end(now=over) == 1
    third = plans.running(buyer, shelf.listing, now=over)
    assert third is not None and third.row_micro == BASIC // 2
    assert main_of(buyer) == (FUNDS - 25 * BASIC, 0)
    Subscription.objects.filter(pk=third.pk).update(renewal=None)
    assert plans.subscriptions_end(now=third.ends_at) == 1
    assert plans.running(buyer, shelf.listing, now=third.ends_at) is None
    assert calls() == ["plan.renewed"] * 2


def price(shelf: Shelf, micro: int, at: Any = None) -> None:
    with durable():
        param_set(
            dao=shelf.dao,
            key="price_micro",
            value=str(micro),
            proposal_id=uuid.uuid4(),
            now=at or now(),
        )


def offer(shelf: Shelf, listed: Any) -> None:
    params = Dao.objects.get(pk=shelf.dao.pk).params | {"plans": listed}
    Dao.objects.filter(pk=shelf.dao.pk).update(params=params)


def empty(shelf: Shelf, buyer: Any) -> None:
    rest = main_of(buyer)[0] - 10 * BASIC + 1
    send(party=buyer, to=shelf.buyer(), asset="USDC", amount_micro=rest)


AGAINST = [
    ("insufficient_balance", empty),
    ("wallet_key_bound", lambda _, buyer: bind(buyer, Ed25519PrivateKey.generate(), now=now())),
    ("not_as_agreed", lambda shelf, _: price(shelf, PRICE + 2)),
    ("not_as_agreed", lambda shelf, _: offer(shelf, [OFFER[0] | {"rows": 9}, OFFER[1]])),
    ("plan_not_found", lambda shelf, _: offer(shelf, OFFER[1:])),
]


@pytest.mark.parametrize(("code", "happen"), AGAINST)
def test_what_stands_against_it_ends_the_plan_and_its_buyer_is_told(
    shelf: Shelf, code: str, happen: Any
) -> None:
    buyer = hooked(shelf)
    row = agree(shelf, buyer)
    happen(shelf, buyer)
    before = main_of(buyer)
    assert plans.subscriptions_end(now=row.ends_at) == 1
    row.refresh_from_db()
    assert row.ended_at is not None and row.unrenewed == code and plans.UNRENEWED[code]
    assert plans.running(buyer, shelf.listing, now=row.ends_at) is None
    assert main_of(buyer) == before and calls() == ["plan.not_renewed"]


def test_who_may_agree_to_what(shelf: Shelf) -> None:
    buyer, key = shelf.buyer(FUNDS), Ed25519PrivateKey.generate()
    refused("no_plan", lambda: agree(shelf, buyer))
    row = choose(shelf, buyer, "basic")
    for other in (Renewal(11, 30, FUNDS), Renewal(10, 31, FUNDS), Renewal(10, 30, 10 * BASIC - 1)):
        refused("plan_changed", lambda other=other: agree(shelf, buyer, other))
    agree(shelf, buyer)
    assert choose(shelf, buyer, "pro").renewal is None  # it was agreed to of the other plan
    agree(shelf, buyer, Renewal(100, 30, FUNDS))
    bind(buyer, key, now=now())
    refused("wallet_key_bound", lambda: agree(shelf, buyer, Renewal(100, 30, FUNDS)))
    assert agree(shelf, buyer, None).renewal is None  # taking away needs no key
    assert plans.subscriptions_end(now=row.ends_at) == 1
    assert Subscription.objects.get().unrenewed == ""


def test_every_forgery_of_a_renewal_is_found(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    row = choose(shelf, buyer, "basic")
    agree(shelf, buyer)
    assert plans.subscriptions_end(now=row.ends_at) == 1
    said = leaves()
    [agreed] = [i for i, leaf in enumerate(said) if leaf["type"] == "listings.plan_renewal"]
    begun, ended, again = [i for i, leaf in enumerate(said) if leaf["type"] == "listings.plan"]
    paid = max(i for i, leaf in enumerate(said) if leaf["type"] == "wallets.transfer")
    assert [said[i]["body"]["step"] for i in (begun, ended, again)] == ["begun", "ended", "renewed"]
    other = uuid.uuid4().hex
    forgeries: list[tuple[int, Any]] = [
        (agreed, lambda leaf: leaf["body"]["agreed"].update(max_micro=str(10 * BASIC - 1))),
        (agreed, lambda leaf: leaf["body"]["agreed"].update(rows="11")),
        (agreed, lambda leaf: leaf["body"].update(agreed=None)),
        (agreed, lambda leaf: leaf["body"].update(buyer=other)),
        (agreed, lambda leaf: leaf["body"].update(plan="pro")),
        (again, lambda leaf: leaf["body"].update(renews=other)),
        (again, lambda leaf: leaf["body"].update(buyer=other)),
        (again, lambda leaf: leaf["body"].update(plan="pro")),
        (again, lambda leaf: leaf["body"]["term"].update(row_micro="1")),
        (again, lambda leaf: leaf.update(at=leaf["at"] + 1)),
        (paid, lambda leaf: leaf["body"].update(amount_micro=str(10 * BASIC + 1))),
    ]
    for number, (index, forge) in enumerate(forgeries):
        forged = copy.deepcopy(said)
        forge(forged[index])
        assert test_plans.errors(shelf, forged), number
    for index in (agreed, ended, again, paid):
        assert test_plans.errors(shelf, said[:index] + said[index + 1 :]), index
    # a key that was bound before: it would have had to sign
    bind(buyer, Ed25519PrivateKey.generate(), now=row.ends_at)
    bound = leaves()[-1]
    assert bound["type"] == "accounts.key_bound"
    for index in (agreed, again):
        keyed = [*said[:index], bound | {"at": said[index]["at"]}, *said[index:]]
        assert any("lacks the signature" in e for e in test_plans.errors(shelf, keyed)), index


def test_the_api_switches_it_on_and_off(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    user = User.objects.create_user("ada@example.org", "x")
    _, key = api_key_create(user=user, party=buyer)
    client = APIClient(headers={"Authorization": f"Bearer {key}"})
    url = f"/api/v1/listings/{shelf.dao.slug}/plan/renewal/"
    agreed = {"rows": 10, "days": 30, "max_micro": str(10 * BASIC)}
    on = client.post(url, {"renewal": agreed}, format="json").json()
    assert on["renewal"] == agreed and on["unrenewed"] == ""
    dear = client.post(url, {"renewal": agreed | {"max_micro": "1"}}, format="json")
    assert (dear.status_code, dear.json()["code"]) == (409, "plan_changed")
    assert client.post(url, {"renewal": agreed | {"rows": 0}}, format="json").status_code == 400
    assert client.post(url, {}, format="json").status_code == 400
    assert client.get(url.removesuffix("renewal/")).json()["renewal"] == agreed
    assert client.post(url, {"renewal": None}, format="json").json()["renewal"] is None
