"""Plans that are paid ahead: previewed, paid, drawn on, changed, cancelled, ended; and replayed."""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import close_old_connections
from rest_framework.test import APIClient

from apps.accounts.models import User
from apps.accounts.services import api_key_create
from apps.core.clock import from_unix_ms, now
from apps.core.errors import DomainError
from apps.core.transactions import durable
from apps.listings import plans, running
from apps.listings.actions import SetOnSale
from apps.listings.invoicing import invoice_of
from apps.listings.models import Query, Subscription
from apps.listings.plans import left_rows, plan_set, preview
from apps.listings.quoting import quote_json
from apps.listings.selectors import listing_json
from apps.listings.services import listing_open, query_create
from apps.listings.spending import month_of, usage
from apps.protocol import consent
from apps.protocol.plans import DAY_MS, plans_of
from apps.protocol.tally import payload_hash
from apps.subdaos.actions import SetPlans
from apps.subdaos.models import Dao
from apps.subdaos.services import param_set
from apps.training.models import ModelVersion
from apps.wallets.invariants import violations
from apps.wallets.keys import SESSION, Consent
from apps.wallets.models import Account, LogLeaf
from tests.support.consents import bind, signed
from tests.support.shelf import PRICE, Shelf
from workers.client.earnings import Made
from workers.client.parameters import VOTED
from workers.client.replay import Replay

OFFER = [
    {"name": "basic", "rows": 10, "days": 30, "off_bps": 1_000},
    {"name": "pro", "rows": 100, "days": 30, "off_bps": 2_000},
]
BASIC, PRO = PRICE * 9 // 10, PRICE * 8 // 10
FUNDS = 1_000 * PRICE
TOLD = (
    "accounts.key_bound",
    "wallets.transfer",
    "listings.opened",
    "listings.plan",
    "listings.query_held",
)


@pytest.fixture
def shelf(transactional_db):
    made = Shelf()
    Dao.objects.filter(pk=made.dao.pk).update(params={**made.dao.params, "plans": OFFER})
    yield made
    assert {k: v for k, v in violations().items() if v} == {}
    assert errors(made, leaves()) == []


def leaves() -> list[dict[str, Any]]:
    return [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]


def errors(shelf: Shelf, said: list[dict[str, Any]]) -> list[str]:
    """What a replay finds in the leaves about plans; how the SubDAO came to its offer and its
    version aside."""
    state = replayed(shelf, said)
    return state.findings.errors + state.plans.end(state.latest_ms)


def replayed(shelf: Shelf, said: list[dict[str, Any]]) -> Replay:
    state = Replay()
    state.parameters.plans[shelf.dao.party.pid] = plans_of(OFFER)
    for index, leaf in enumerate(said):
        if leaf["type"] == "subdaos.params":
            _voted(state, leaf)
        elif leaf["type"] in TOLD:
            if leaf["type"] == "listings.opened":
                _accepted(state, leaf["body"])
            state.leaf(index, leaf)
    return state


def _voted(state: Replay, leaf: dict[str, Any]) -> None:
    """As if there had been the vote that the leaf names."""
    body, at = leaf["body"], leaf["at"]
    about = {"dao": body["dao"], "kind": VOTED[body["key"]][0]}
    hash_ = payload_hash(payload={body["key"]: body["value"]}, **about)
    vote = about | {"house": VOTED[body["key"]][1], "payload_hash": hash_}
    state.parameters.changed({"proposal": ""} | body, at, vote)
    state.credentials.voted({"proposal": ""} | body)


def _accepted(state: Replay, body: dict[str, Any]) -> None:
    """As if a round had made the version that is sold, and a vote accepted it."""
    name = body["dao"], str(body["version"])
    state.earnings.versions[name] = Made({}, {"model": body["model"]})
    state.accepted.add(name)


def choose(shelf: Shelf, buyer: Any, name: str, *, word: Any = None, at: Any = None) -> Any:
    at = at or now()
    seen = preview(listing=shelf.listing, buyer=buyer, plan=name, now=at)
    return plan_set(
        listing=shelf.listing, buyer=buyer, plan=name, at_ms=seen.at_ms, rows=seen.rows,
        due_micro=seen.change.due_micro, refund_micro=seen.change.refund_micro,
        consent=word(seen) if word else SESSION, now=at,
    )  # fmt: skip


def draw(shelf: Shelf, buyer: Any, upload: Any, quote: Any) -> Query:
    return query_create(
        slug=shelf.dao.slug, buyer=buyer, upload=upload, quote=quote["quote"], now=now()
    )


def at_once(*works: Callable[[], Any]) -> list[str]:
    """Each in its own thread: "done", or the code of the refusal, of each."""
    outcomes: list[str] = []
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=60)
            work()
            outcomes.append("done")
        except DomainError as error:
            outcomes.append(error.code)
        finally:
            close_old_connections()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def ask(shelf: Shelf, buyer: Any, rows: int = 1, *, paid_from: str = "plan") -> Query:
    quote = quote_json(listing=shelf.listing, buyer=buyer, rows=rows, now=now())
    assert quote["paid_from"] == paid_from
    return draw(shelf, buyer, shelf.upload(rows, price_micro=quote["price_micro"]), quote)


def settle(shelf: Shelf, *queries: Query) -> None:
    claimed = running._claim_all([query.id for query in queries])
    running._settle([(query, shelf.outcome(query)) for query in claimed])


def main_of(buyer: Any) -> tuple[int, int]:
    row = Account.objects.get(owner=buyer, asset__code="USDC", purpose="main")
    return row.posted_micro, row.held_micro


def treasury(shelf: Shelf, purpose: str = "treasury") -> int:
    found = Account.objects.filter(owner=shelf.dao.party, asset__code="USDC", purpose=purpose)
    return sum(row.posted_micro for row in found)


def refused(code: str, work: Callable[[], Any]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        work()
    assert caught.value.code == code
    return caught.value


def test_a_plan_is_paid_ahead_and_its_quota_pays_for_rows(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    seen = preview(listing=shelf.listing, buyer=buyer, plan="basic", now=now())
    assert (seen.change.due_micro, main_of(buyer)) == (10 * BASIC, (FUNDS, 0))
    row = choose(shelf, buyer, "basic")
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0)
    held = ask(shelf, buyer, 4)
    assert held.price_micro == 4 * BASIC and held.subscription_id == row.id
    assert left_rows(Subscription.objects.get(), now=now()) == 6
    assert treasury(shelf, "revenue") == 0  # nothing is earned before it is answered
    settle(shelf, held)
    assert treasury(shelf, "revenue") == 4 * BASIC
    cancelled = ask(shelf, buyer, 6)
    running.query_cancel(query_id=cancelled.id, now=now())
    assert left_rows(Subscription.objects.get(), now=now()) == 6
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0)
    # what needs more than is left is paid from the balance, as a whole
    settle(shelf, ask(shelf, buyer, 7, paid_from="balance"))
    assert main_of(buyer) == (FUNDS - 10 * BASIC - 7 * PRICE, 0)
    start, end = month_of(now())
    [used] = usage(buyer, since=start, until=end)
    assert (used["rows"], used["plan_rows"], used["price_micro"]) == (11, 4, str(7 * PRICE))
    invoice = invoice_of(buyer, start=start, end=end, now=end)
    assert [
        (line.what.split(" on ")[0], line.rows, line.amount_micro) for line in invoice.lines
    ] == [
        ("Plan, paid ahead", 0, 10 * BASIC),
        ("Predictions", 7, 7 * PRICE),
        ("Predictions, of a plan", 4, 0),
    ]
    assert invoice.total_micro == FUNDS - main_of(buyer)[0]


def test_a_quota_is_never_overdrawn_by_many_at_once(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    quotes = [quote_json(listing=shelf.listing, buyer=buyer, rows=3, now=now()) for _ in range(8)]
    uploads = [shelf.upload(3, price_micro=quote["price_micro"]) for quote in quotes]
    outcomes = at_once(*(partial(draw, shelf, buyer, *pair) for pair in zip(uploads, quotes)))
    assert sorted(outcomes) == ["done"] * 3 + ["quota_used_up"] * 5
    settle(shelf, *Query.objects.all())
    assert left_rows(Subscription.objects.get(), now=now()) == 1
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0)


def test_a_change_and_a_hold_at_once_charge_by_one_plan_or_the_other(shelf: Shelf) -> None:
    """Whoever comes second sees the other: the hold is refused, or the change is."""
    for _ in range(4):
        buyer = shelf.buyer(FUNDS)
        choose(shelf, buyer, "basic")
        quote = quote_json(listing=shelf.listing, buyer=buyer, rows=3, now=now())
        upload = shelf.upload(3, price_micro=quote["price_micro"])
        outcomes = at_once(
            partial(draw, shelf, buyer, upload, quote), partial(choose, shelf, buyer, "pro")
        )
        assert sorted(outcomes) in (["done", "plan_changed"], ["done", "plan_in_use"])


def test_changes_and_cancelling_move_what_their_preview_said(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    begun = choose(shelf, buyer, "basic")
    settle(shelf, ask(shelf, buyer, 5))
    half = from_unix_ms(begun.term.starts_ms + 15 * DAY_MS)
    refused(
        "no_change", lambda: preview(listing=shelf.listing, buyer=buyer, plan="basic", now=half)
    )
    up = preview(listing=shelf.listing, buyer=buyer, plan="pro", now=half).change
    assert (up.credit_micro, up.lapsed_micro) == (5 * BASIC, 0)
    assert up.due_micro == 50 * PRO - 5 * BASIC
    waiting = ask(shelf, buyer, 1)
    refused("plan_in_use", lambda: choose(shelf, buyer, "pro", at=now()))
    running.query_cancel(query_id=waiting.id, now=now())
    stale = preview(listing=shelf.listing, buyer=buyer, plan="pro", now=now())
    settle(shelf, ask(shelf, buyer, 1))

    def late() -> Any:
        return plan_set(
            listing=shelf.listing, buyer=buyer, plan="pro", at_ms=stale.at_ms, rows=stale.rows,
            due_micro=stale.change.due_micro, refund_micro=0, consent=SESSION, now=now(),
        )  # fmt: skip

    refused("plan_changed", late)
    before = main_of(buyer)[0]
    changed = choose(shelf, buyer, "pro")
    assert changed.id == begun.id and changed.began_at == begun.began_at
    assert changed.ends_at == begun.ends_at and changed.row_micro == PRO
    paid = before - main_of(buyer)[0]
    assert paid == changed.rows * PRO - 4 * BASIC
    settle(shelf, ask(shelf, buyer, 9))
    before = main_of(buyer)[0]
    ended = choose(shelf, buyer, "")
    # 15 rows for 6·BASIC + 9·PRO: cancelled, they cost their price
    least = 15 * PRICE - 6 * BASIC - 9 * PRO
    left = (changed.rows - 9) * PRO
    assert ended.ended_at is not None and main_of(buyer)[0] - before <= left - least
    assert FUNDS - main_of(buyer)[0] >= 15 * PRICE
    assert Account.objects.get(purpose="prepaid").posted_micro == 0
    refused("no_plan", lambda: choose(shelf, buyer, ""))
    again = choose(shelf, buyer, "basic")
    assert again.id != begun.id and again.account_id == begun.account_id


@pytest.mark.parametrize("voted", [PRICE // 10, PRICE * 10])
def test_rows_used_before_a_vote_on_the_price_keep_theirs(shelf: Shelf, voted: int) -> None:
    buyer = shelf.buyer(100 * FUNDS)
    choose(shelf, buyer, "basic")
    settle(shelf, ask(shelf, buyer, 4))
    with durable():
        param_set(
            dao=shelf.dao, key="price_micro", value=str(voted), proposal_id=uuid.uuid4(), now=now()
        )
    changed = choose(shelf, buyer, "pro")
    assert changed.price_micro == max(voted, PRICE)
    settle(shelf, ask(shelf, buyer, 5))
    choose(shelf, buyer, "basic")
    told = [[4, PRICE], [5, voted]] if voted > PRICE else [[9, PRICE]]
    assert Subscription.objects.get().earlier == told
    choose(shelf, buyer, "")
    kept = 100 * FUNDS - main_of(buyer)[0]
    assert kept >= 4 * PRICE + 5 * max(voted, PRICE)


def test_what_nobody_used_by_the_end_goes_to_the_treasury(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    row = choose(shelf, buyer, "basic")
    settle(shelf, ask(shelf, buyer, 4))
    waiting = ask(shelf, buyer, 1)
    assert plans.subscriptions_end(now=now()) == 0
    over = row.ends_at
    assert plans.running(buyer, shelf.listing, now=over) is None
    assert plans.subscriptions_end(now=over) == 0  # an answer is on its way
    running.query_cancel(query_id=waiting.id, now=now())
    assert plans.subscriptions_end(now=over - timedelta(milliseconds=1)) == 0
    told = len(leaves())
    assert plans.subscriptions_end(now=over) == 1
    assert plans.subscriptions_end(now=over) == 0
    assert len(leaves()) == told + 2  # the transfer and its reason
    assert (treasury(shelf), treasury(shelf, "revenue")) == (6 * BASIC, 4 * BASIC)
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0)


def test_a_change_previewed_before_the_end_is_not_done_after_it(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    over = choose(shelf, buyer, "basic").ends_at
    late = over - timedelta(milliseconds=1)
    seen = preview(listing=shelf.listing, buyer=buyer, plan="", now=late)

    def cancel() -> Any:
        return plan_set(
            listing=shelf.listing, buyer=buyer, plan="", at_ms=seen.at_ms, rows=0, due_micro=0,
            refund_micro=seen.change.refund_micro, consent=SESSION, now=over,
        )  # fmt: skip

    refused("plan_changed", cancel)
    assert plans.subscriptions_end(now=over) == 1
    assert treasury(shelf) == 10 * BASIC


def test_the_ticket_says_what_pays(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")

    def bare(rows: int, row: int) -> Query:
        upload = shelf.upload(rows, price_micro=str(rows * row))
        return query_create(slug=shelf.dao.slug, buyer=buyer, upload=upload, now=now())

    assert bare(2, BASIC).subscription_id is not None
    refused("plan_covers", lambda: bare(2, PRICE))  # paid ahead already
    refused("ticket_mismatch", lambda: bare(2, PRO))
    quote = quote_json(listing=shelf.listing, buyer=buyer, rows=8, now=now())
    bare(2, BASIC)
    upload = shelf.upload(8, price_micro=quote["price_micro"])
    refused(
        "quota_used_up",
        lambda: query_create(
            slug=shelf.dao.slug, buyer=buyer, upload=upload, quote=quote["quote"], now=now()
        ),
    )
    assert bare(8, PRICE).subscription_id is None


def test_a_vote_that_takes_plans_away_leaves_those_that_run(shelf: Shelf) -> None:
    dao, action, buyer = Dao.objects.get(pk=shelf.dao.pk), SetPlans(), shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    most = settings.ROWS_PER_EPOCH // 2 * 30
    for raw, code in (
        ({"plans": OFFER}, "no_change"),
        ({"plans": OFFER[::-1]}, "bad_plans"),
        ({"plans": [], "more": 1}, "bad_payload"),
        ({"plans": [OFFER[0] | {"rows": most + 1}]}, "bad_plans"),  # more than one buyer gets
    ):
        refused(code, lambda raw=raw: action.validate(raw, dao))
    assert action.validate({"plans": [OFFER[0] | {"rows": most}]}, dao)
    asked = action.validate({"plans": OFFER[1:]}, dao)
    text = "10 rows for 30 days, 10.00 % off each"
    assert action.describe(asked, dao) == [{"label": "Plan “basic”", "before": text, "after": ""}]
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "plans": []})
    assert listing_json(shelf.listing)["plans"] == []
    refused("plan_not_found", lambda: choose(shelf, buyer, "pro"))
    settle(shelf, ask(shelf, buyer, 3))
    choose(shelf, buyer, "")
    assert main_of(buyer)[0] == FUNDS - 3 * PRICE
    assert treasury(shelf) == 3 * (PRICE - BASIC)  # what the plan took off the rows asked


def test_who_may_not_ask_yet_can_begin_no_plan_and_end_one(shelf: Shelf) -> None:
    early, late = shelf.buyer(FUNDS), shelf.buyer(FUNDS)
    choose(shelf, early, "basic")
    dao = Dao.objects.get(pk=shelf.dao.pk)
    unlocks = {"early_access_s": 3_600, "stake_bps": 1_000}
    Dao.objects.filter(pk=dao.pk).update(params={**dao.params, "unlocks": unlocks})
    for buyer, name in ((late, "basic"), (early, "pro")):
        refused("early_access", lambda buyer=buyer, name=name: choose(shelf, buyer, name))
    assert main_of(late) == (FUNDS, 0)
    assert choose(shelf, early, "").ended_at is not None


def test_a_bound_key_signs_the_plan_and_then_its_rows_need_no_mandate(shelf: Shelf) -> None:
    buyer, key, nonces = shelf.buyer(FUNDS), Ed25519PrivateKey.generate(), iter(range(1, 9))
    bind(buyer, key, now=now())

    def word(seen: plans.Preview) -> Consent:
        said = signed(buyer, key, consent.PLAN, seen.asked, nonce=next(nonces), now=now())
        return Consent("session", said)

    refused("signature_required", lambda: choose(shelf, buyer, "basic"))
    choose(shelf, buyer, "basic", word=word)
    settle(shelf, ask(shelf, buyer, 2))
    choose(shelf, buyer, "pro", word=word)
    settle(shelf, ask(shelf, buyer, 2))
    choose(shelf, buyer, "", word=word)
    said = leaves()
    [at] = [i for i, leaf in enumerate(said) if leaf["body"].get("step") == "changed"]
    forged = copy.deepcopy(said)
    forged[at]["body"].update(signed=None, auth="session")
    assert any("lacks the signature" in error for error in errors(shelf, forged))
    forged = copy.deepcopy(said)
    forged[at]["body"]["asked"]["plan"] = "basic"
    assert errors(shelf, forged)


def test_every_forgery_of_a_plan_is_found(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    settle(shelf, ask(shelf, buyer, 4))
    choose(shelf, buyer, "")
    said = leaves()
    begun, ended = [i for i, leaf in enumerate(said) if leaf["type"] == "listings.plan"]
    moves = {
        leaf["body"]["kind"]: i for i, leaf in enumerate(said) if leaf["type"] == "wallets.transfer"
    }
    refund = moves["listings.plan_refund"]
    [held] = [i for i, leaf in enumerate(said) if leaf["type"] == "listings.query_held"]
    [pend] = [i for i, leaf in enumerate(said) if leaf["body"].get("phase") == "pend"]
    other = uuid.uuid4().hex
    forgeries: list[tuple[int, Callable[[dict[str, Any]], Any]]] = [
        (begun, lambda b: b["term"].update(row_micro=str(BASIC - 1))),
        (begun, lambda b: b["term"].update(ends_ms="9")),
        (begun, lambda b: b.update(listing="another")),
        (begun, lambda b: b.update(moved={})),
        (begun, lambda b: b["asked"].update(at_ms="1")),
        (begun, lambda b: b["asked"].update(plan="pro")),
        (ended, lambda b: b.update(buyer=other)),
        (ended, lambda b: b.update(step="changed")),
        (ended, lambda b: b.update(step="ended")),
        (ended, lambda b: b.update(moved={})),
        (ended, lambda b: b["asked"].update(refund_micro="1")),
        (refund, lambda b: b.update(credit=f"{other}/main/USDC")),
        (refund, lambda b: b.update(amount_micro=str(int(b["amount_micro"]) - 1))),
        (refund, lambda b: b.update(kind="wallets.send")),
        (held, lambda b: b.update(buyer=other)),
        (held, lambda b: b.update(listing="another")),
        (held, lambda b: b.pop("plan")),
        (pend, lambda b: b.update(amount_micro=str(int(b["amount_micro"]) - 1))),
        (pend, lambda b: b.update(credit=f"{other}/revenue/USDC")),
        (pend, lambda b: b.update(kind="wallets.send")),
    ]
    for number, (index, forge) in enumerate(forgeries):
        forged = copy.deepcopy(said)
        forge(forged[index]["body"])
        assert errors(shelf, forged), number
    for index in (begun, ended, refund):
        assert errors(shelf, said[:index] + said[index + 1 :])


@pytest.mark.parametrize("phases", [("single",), ("pend", "post")])
def test_a_plans_kind_takes_nothing_from_a_keyed_wallet_elsewhere(
    shelf: Shelf, phases: tuple[str, ...]
) -> None:
    """Its signature is in the plan's leaf: without a plan's account there is no such leaf."""
    buyer, thief = shelf.buyer(FUNDS), shelf.buyer()
    bind(buyer, Ed25519PrivateKey.generate(), now=now())
    said, before = leaves(), ""
    for phase in phases:
        body = {
            "id": str(uuid.uuid4()), "debit": f"{buyer.pid}/main/USDC",
            "credit": f"{thief.pid}/main/USDC", "amount_micro": "1", "phase": phase,
            "kind": consent.PLAN, "ref": None, "pending": before,
        }  # fmt: skip
        before = body["id"]
        said.append({"v": 1, "type": "wallets.transfer", "at": said[-1]["at"], "body": body})
    assert any("on no plan's account" in error for error in errors(shelf, said))


def test_the_api_previews_then_does_it_once(shelf: Shelf) -> None:
    buyer = shelf.buyer(FUNDS)
    user = User.objects.create_user("ada@example.org", "x")
    _, key = api_key_create(user=user, party=buyer)
    client = APIClient(headers={"Authorization": f"Bearer {key}"})
    url = f"/api/v1/listings/{shelf.dao.slug}/plan/"
    assert client.get(url).json()["code"] == "no_plan"
    assert client.post(f"{url}preview/", {"plan": "gold"}).json()["code"] == "plan_not_found"
    seen = client.post(f"{url}preview/", {"plan": "basic"}).json()
    assert (seen["due_micro"], seen["rows"], seen["before"]) == (str(10 * BASIC), 10, "")
    names = ("plan", "at_ms", "rows", "due_micro", "refund_micro")
    body = {name: seen[name] for name in names}
    headers = {"Idempotency-Key": "one"}
    dear = client.post(url, body | {"due_micro": "1"}, headers={"Idempotency-Key": "x"})
    assert (dear.status_code, dear.json()["code"]) == (409, "plan_changed")
    old = client.post(url, body | {"at_ms": 1}, headers={"Idempotency-Key": "y"})
    assert old.json()["code"] == "preview_expired"
    first = client.post(url, body, headers=headers)
    assert first.status_code == 200 and first.json()["left_rows"] == 10
    assert client.post(url, body, headers=headers).json() == first.json()
    assert main_of(buyer) == (FUNDS - 10 * BASIC, 0)
    [mine] = client.get("/api/v1/subscriptions/").json()["results"]
    assert mine == client.get(url).json() | {"answered_rows": 0}
    poor = shelf.buyer(PRICE)
    refused("insufficient_balance", lambda: choose(shelf, poor, "basic"))
    assert plans.running(poor, shelf.listing, now=now()) is None


def test_the_listing_says_what_plans_cost(shelf: Shelf) -> None:
    basic, pro = listing_json(shelf.listing)["plans"]
    assert (basic["row_micro"], basic["price_micro"]) == (str(BASIC), str(10 * BASIC))
    assert (pro["name"], pro["rows"], pro["price_micro"]) == ("pro", 100, str(100 * PRO))


def decide(shelf: Shelf, on_sale: bool) -> None:
    with durable():
        proposal = {"dao": shelf.listing.dao, "proposal_id": uuid.uuid4(), "now": now()}
        SetOnSale().execute({"on_sale": on_sale}, **proposal)


def test_a_retired_model_is_sold_by_no_version(shelf: Shelf) -> None:
    """The log's reader finds what was sold nevertheless."""
    buyer = shelf.buyer(FUNDS)
    choose(shelf, buyer, "basic")
    ask(shelf, buyer, 2)
    quote = quote_json(listing=shelf.listing, buyer=buyer, rows=1, now=now())
    sold = leaves()
    decide(shelf, False)
    assert shelf.listing.status == "closed"
    refused("listing_closed", lambda: draw(shelf, buyer, shelf.upload(), quote))
    refused("listing_closed", lambda: quote_json(
        listing=shelf.listing, buyer=buyer, rows=1, now=now()))  # fmt: skip
    refused("listing_closed", lambda: choose(shelf, buyer, "pro"))
    next_ = ModelVersion.objects.select_related("round").get(pk=shelf.listing.version_id)
    for row in (next_.round, next_):
        row.pk, row.number, row._state.adding = uuid.uuid4(), 2, True
        row.round, row.model = next_.round, "77" * 32
        row.save()
    listing_open(version_id=next_.pk, now=now())
    assert (shelf.listing.version.number, shelf.listing.status) == (2, "closed")
    decide(shelf, True)
    assert (shelf.listing.status, shelf.listing.retired_at) == ("open", None)
    choose(shelf, shelf.buyer(FUNDS), "pro")
    retired = {"type": "subdaos.params", "at": 0, "body": {"dao": shelf.dao.party.pid}}
    retired["body"] |= {"key": "on_sale", "value": False}
    assert any("was sold of a model that is retired" in e for e in errors(shelf, [retired, *sold]))
