"""`listings_hold` against the rule in plain Python, one after the other and all at once.

A machine draws what happens to two buyers of one model: money comes, queries are asked, cancelled
and forgotten, prices change, the listing closes, a key's limit and mandates come and go. `expected`
is the rule. What it refuses the function must refuse by that name, and write nothing.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import close_old_connections, connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck
from hypothesis import settings as drawn
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from rest_framework.test import APIClient

from apps.accounts.models import ApiKey, Party, User
from apps.accounts.services import api_key_create
from apps.compute.models import Job
from apps.compute.services import LEASE_MARGIN_S
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.errors import DomainError
from apps.core.idempotency import Call
from apps.core.models import IdempotentCall
from apps.core.transactions import joinable
from apps.exchange.vaults import stake
from apps.listings import mandates, services
from apps.listings.models import Listing, Mandate, Query
from apps.listings.running import query_cancel
from apps.listings.services import JOB_DEADLINE_S, query_create
from apps.protocol import consent
from apps.wallets.invariants import violations
from apps.wallets.keys import Consent
from apps.wallets.models import Account, Hold, LogLeaf
from apps.wallets.services import account, faucet, mint
from tests.support.consents import bind, signed
from tests.support.shelf import PRICE, Shelf

WAITING_MAX, WAITING_ROWS_MAX = 6, 9
PORTION = 8  # rows that one buyer may ask: half of what the nodes answer
EARLY_S = 100
EXAMPLES, STEPS = 12, 25
ASKS = st.tuples(
    st.integers(0, 1),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([14, 20, 600]),
    st.sampled_from([None, None, PRICE, 3 * PRICE]),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([None, None, "k", "l"]),
    st.booleans(),
)


@dataclass
class Held:
    """A query as the rule remembers it."""

    id: uuid.UUID
    rows: int
    price: int
    key: uuid.UUID | None
    mandate: uuid.UUID | None
    until: float
    released: bool = False


@dataclass
class Buyer:
    party: Party
    key: ApiKey
    balance: int = 0
    limit: int | None = None
    keyed: bool = False
    staked: bool = False
    held: list[Held] = field(default_factory=list)
    mandates: list[Mandate] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)


class Holding(RuleBasedStateMachine):
    """Rows on one side, `buyers` on the other."""

    @initialize(early=st.booleans(), micro=st.sampled_from([0, 3 * PRICE, 20 * PRICE]))
    def begin(self, early: bool, micro: int) -> None:
        self.outer = joinable()
        self.outer.__enter__()
        self.began, self.price, self.open = clock_now(), PRICE, True
        self.clock = 0.0 if early else EARLY_S + 1
        self.shelf = Shelf()
        self.shelf.dao.params["unlocks"] = {"early_access_s": EARLY_S, "stake_bps": 1_000}
        self.shelf.reprice(PRICE)
        self.opened = self.shelf.listing.opened_at
        user = User.objects.create_user(f"{uuid.uuid4().hex}@example.org", "x")
        self.buyers = []
        for staked in (True, False):
            who = self.shelf.buyer()
            key, _ = api_key_create(user=user, party=who)
            self.buyers.append(Buyer(who, key, staked=staked))
        asset = self.shelf.dao.asset
        mint(asset, account(self.buyers[0].party, asset), 1_000, None, self.now)
        stake(party=self.buyers[0].party, asset=asset.code, amount_micro=100, now=self.now)
        self.uploads: list[dict[str, Any]] = []
        self.nonces = itertools.count(1)
        self.keys = [Ed25519PrivateKey.generate() for _ in self.buyers]
        if micro:
            self.money_comes(0, micro)
            self.money_comes(1, micro)

    def teardown(self) -> None:
        if hasattr(self, "outer"):
            connection.check_constraints()
            breaches = {name: found for name, found in violations().items() if found}
            transaction.set_rollback(True)
            self.outer.__exit__(None, None, None)
            assert breaches == {}

    @property
    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.clock)

    # ---- what happens ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 5, 40, 150]))
    def time_passes(self, seconds: int) -> None:
        self.clock += seconds

    @rule(which=st.integers(0, 1), micro=st.integers(1, 4 * PRICE))
    def money_comes(self, which: int, micro: int) -> None:
        faucet(party=self.buyers[which].party, asset="USDC", amount_micro=micro, now=self.now)
        self.buyers[which].balance += micro

    @rule(price=st.sampled_from([1, PRICE, 2 * PRICE]))
    def the_price_changes(self, price: int) -> None:
        self.price = price
        self.shelf.reprice(price)

    @rule()
    def the_listing_closes_or_opens(self) -> None:
        self.open = not self.open
        Listing.objects.update(status="open" if self.open else "closed")

    @rule(which=st.integers(0, 1), limit=st.none() | st.integers(1, 6 * PRICE))
    def a_key_is_limited(self, which: int, limit: int | None) -> None:
        self.buyers[which].limit = limit
        ApiKey.objects.filter(pk=self.buyers[which].key.pk).update(spend_limit_micro=limit)

    @rule(which=st.integers(0, 1))
    def a_wallet_key_is_bound(self, which: int) -> None:
        buyer = self.buyers[which]
        if not buyer.keyed:
            bind(buyer.party, self.keys[which], now=self.now)
            buyer.keyed = True

    @rule(
        which=st.integers(0, 1),
        limit=st.integers(1, 6 * PRICE),
        life=st.sampled_from([3, 60, 600]),
        here=st.booleans(),
        keyed=st.booleans(),
    )
    def a_mandate_is_given(
        self, which: int, limit: int, life: int, here: bool, keyed: bool
    ) -> None:
        buyer = self.buyers[which]
        if not buyer.keyed:
            return
        asked = {
            "listing": self.shelf.dao.slug if here else consent.ANY_LISTING,
            "limit_micro": limit,
            "until_ms": unix_ms(self.now) + 1000 * life,
            "api_key": buyer.key.prefix if keyed else "",
        }
        payload = consent.mandate_payload(**asked)
        word = signed(
            buyer.party, self.keys[which], consent.MANDATE, payload,
            nonce=next(self.nonces), now=self.now,
        )  # fmt: skip
        buyer.mandates.append(
            mandates.mandate_give(
                party=buyer.party, consent=Consent("session", word), now=self.now, **asked
            )
        )

    @rule(which=st.integers(0, 1), place=st.integers(0, 9))
    def a_mandate_is_ended(self, which: int, place: int) -> None:
        buyer = self.buyers[which]
        if buyer.mandates:
            ended = buyer.mandates.pop(place % len(buyer.mandates))
            mandates.mandate_end(party=buyer.party, mandate_id=ended.id, now=self.now)

    @rule(which=st.integers(0, 1), place=st.integers(0, 9))
    def a_query_is_cancelled(self, which: int, place: int) -> None:
        waiting = [held for held in self.buyers[which].held if not held.released]
        if waiting:
            held = waiting[place % len(waiting)]
            query_cancel(query_id=held.id, now=self.now)
            held.released = True

    @rule(asks=st.lists(ASKS, min_size=1, max_size=4))
    def queries_are_asked(self, asks: list[tuple[Any, ...]]) -> None:
        for asked in asks:
            self.ask(*asked)

    def ask(
        self, which: int, rows: int, keyed: bool, life: int, most: int | None, again: int | None,
        call: str | None, other_body: bool,
    ) -> str:  # fmt: skip
        """A new share, or one that was sent before; under a key of the call, or none."""
        buyer = self.buyers[which]
        if again is not None and self.uploads:
            upload = self.uploads[again % len(self.uploads)]
        else:
            end = int(self.now.timestamp()) + life
            upload = self.shelf.upload(rows, now=self.now, expires_at=end)
            self.uploads.append(upload)
        key = buyer.key if keyed else None
        digest = ("a" if other_body else "b") * 64
        wanted = self.expected(buyer, upload["ticket"], key, most, call)
        before = self.written()
        try:
            query = query_create(
                slug=self.shelf.dao.slug,
                buyer=buyer.party,
                upload=upload,
                max_price_micro=most,
                key=key,
                call=Call(buyer.party.id, call, digest) if call else None,
                now=self.now,
            )
        except DomainError as refused:
            said = (refused.code, int(refused.args_.get("short_micro", 0)))
            assert said == wanted
            assert self.written() == before
            return refused.code
        assert wanted[0] == "held", wanted
        query.refresh_from_db()
        assert query.mandate_id == wanted[1]
        until = Hold.objects.get(transfer_id=query.hold_id).expires_at
        price, end = query.price_micro, (until - self.began).total_seconds()
        assert until - query.expires_at == timedelta(seconds=JOB_DEADLINE_S + LEASE_MARGIN_S)
        by = (key and key.pk, query.mandate_id)
        buyer.held.append(Held(query.id, query.rows, price, *by, end))
        if call:
            buyer.calls[call] = digest
            stored = IdempotentCall.objects.get(actor_id=buyer.party.id, key=call)
            assert (stored.digest, stored.status) == (digest, 202)
            assert stored.response == f'{{"id": "{query.id}"}}'
        return "held"

    # ---- the rule ----------------------------------------------------------------------------

    def expected(
        self, buyer: Buyer, ticket: dict[str, Any], key: ApiKey | None, most: int | None,
        call: str | None,
    ) -> tuple[str, Any]:  # fmt: skip
        """("held", the mandate) or the first thing that is wrong, with what is short."""
        rows, price = ticket["shape"][0], ticket["shape"][0] * self.price
        month = self.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        stands = [held for held in buyer.held if not held.released]
        asked = rows + sum(held.rows for held in stands)
        spent = sum(h.price for h in stands if key and h.key == key.pk) if month < self.began else 0
        free = buyer.balance - sum(h.price for h in stands if h.until > self.clock)
        covering = [
            m.id
            for m in sorted(buyer.mandates, key=lambda m: (m.until, m.id))
            if m.until > self.now
            and m.api_key_id == (key and key.pk)
            and sum(h.price for h in stands if h.mandate == m.id) + price <= m.limit_micro
        ]
        early = unix_ms(self.now) < unix_ms(self.opened) + 1000 * EARLY_S
        limit = buyer.limit if key else None
        took = {query.share_id for query in Query.objects.only("share_id")}
        for code, wrong, short in (
            ("expired", ticket["expires_at"] <= int(self.now.timestamp()), 0),
            ("listing_closed", not self.open, 0),
            ("early_access", early and not buyer.staked, 0),
            ("price_changed", most is not None and price > most, 0),
            ("ticket_mismatch", ticket["price_micro"] != str(price), 0),
            ("expired", ticket["expires_at"] - int(self.now.timestamp()) < JOB_DEADLINE_S, 0),
            ("idempotency_conflict", call in buyer.calls, 0),
            ("too_many_waiting", len(stands) >= WAITING_MAX or asked > WAITING_ROWS_MAX, 0),
            ("buyer_rows_used_up", asked > PORTION, 0),
            ("spend_limit_reached", limit is not None and spent + price > limit,
             spent + price - (limit or 0)),
            ("mandate_needed", buyer.keyed and not covering, 0),
            ("insufficient_balance", price > free, price - free),
            ("share_id_taken", ticket["share_id"] in took, 0),
        ):  # fmt: skip
            if wrong:
                return code, short
        assert rows
        return "held", covering[0] if buyer.keyed else None

    def written(self) -> list[int]:
        """Whatever a hold writes; expired holds may be freed by a refusal, with a transfer each."""
        freed = Hold.objects.filter(expires_at__lte=self.now).count()
        counts = [model.objects.count() for model in (Query, Job, IdempotentCall)]
        return [*counts, Hold.objects.count() - freed]


@pytest.fixture
def small(monkeypatch, settings):
    """Limits that a few queries reach."""
    monkeypatch.setattr(services, "WAITING_MAX", WAITING_MAX)
    monkeypatch.setattr(services, "WAITING_ROWS_MAX", WAITING_ROWS_MAX)
    settings.ROWS_PER_EPOCH = 2 * PORTION
    settings.ROWS_EPOCH_DAYS = 100_000  # no midnight while it runs


@pytest.mark.django_db
def test_the_function_holds_what_the_rule_allows_and_refuses_by_its_names(small) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    run_state_machine_as_test(
        Holding,
        settings=drawn(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=checks,
            derandomize=True,
        ),
    )


@pytest.mark.django_db
def test_every_refusal_in_turn(small) -> None:
    """The same machine, led by hand through whatever the draw may miss."""
    machine = Holding()
    machine.begin(early=True, micro=3 * PRICE)

    def ask(
        rows: int = 1, *, who: int = 1, keyed: bool = False, life: int = 600,
        most: int | None = None, again: int | None = None, call: str | None = None,
    ) -> str:  # fmt: skip
        return machine.ask(who, rows, keyed, life, most, again, call, False)

    try:
        assert ask() == "early_access"
        assert ask(who=0) == "held"
        machine.time_passes(150)
        assert ask(call="k") == "held"
        assert ask(call="k") == "idempotency_conflict"
        assert ask(2, most=PRICE) == "price_changed"
        assert ask(again=2) == "share_id_taken"
        assert ask(3) == "insufficient_balance"
        machine.a_key_is_limited(1, PRICE)
        assert ask(2, keyed=True) == "spend_limit_reached"
        assert ask(keyed=True, life=20) == "held"
        assert ask(2) == "insufficient_balance"
        machine.time_passes(54)
        assert ask(2) == "insufficient_balance"  # the nodes may have taken it at the last moment
        machine.time_passes(1)
        assert ask(2, life=14) == "expired"
        assert ask(2) == "held"  # what the one before held is free again
        machine.a_query_is_cancelled(1, 0)
        machine.a_wallet_key_is_bound(1)
        assert ask() == "mandate_needed"
        for limit, life, here, keyed in (
            (PRICE, 600, True, True),
            (PRICE - 1, 60, True, False),
            (PRICE, 60, False, False),
            (PRICE, 600, True, False),
        ):
            machine.a_mandate_is_given(1, limit, life, here, keyed)
        assert ask() == "held"
        machine.the_price_changes(2 * PRICE)
        assert ask(again=0) == "ticket_mismatch"
        machine.the_listing_closes_or_opens()
        assert ask(who=0) == "listing_closed"
        machine.the_listing_closes_or_opens()
        machine.money_comes(0, 20 * PRICE)
        for _ in range(WAITING_MAX - 1):
            assert ask(who=0) == "held"
        assert ask(who=0) == "too_many_waiting"
        for _ in range(2):
            machine.a_query_is_cancelled(0, 0)
        assert [ask(3, who=0), ask(3, who=0)] == ["held", "too_many_waiting"]
        assert ask(2, who=0) == "buyer_rows_used_up"
        machine.a_query_is_cancelled(0, 0)
        assert ask(2, who=0) == "held"  # what is released can be asked again
        machine.time_passes(600)
        assert ask(again=0) == "expired"
    finally:
        machine.teardown()


@pytest.fixture
def shelf(transactional_db):
    yield Shelf()
    assert {k: v for k, v in violations().items() if v} == {}


def at_once(count: int, ask: Callable[[int], Any]) -> Counter[str]:
    """What each of so many threads got, by name."""
    said: list[str] = []
    barrier = threading.Barrier(count)

    def work(place: int) -> None:
        try:
            barrier.wait(timeout=60)
            ask(place)
            said.append("held")
        except DomainError as refused:
            said.append(refused.code)
        finally:
            close_old_connections()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(said)


def test_a_hold_is_one_round_trip(shelf, monkeypatch) -> None:
    buyer, asked = shelf.buyer(2 * PRICE), []
    prepared = services.prepared

    def counted(*args: Any) -> Any:
        asked.append(args)
        return prepared(*args)

    query_create(slug=shelf.dao.slug, buyer=buyer, upload=shelf.upload(), now=clock_now())
    monkeypatch.setattr(services, "prepared", counted)
    upload = shelf.upload()
    with CaptureQueriesContext(connection) as others:
        query_create(slug=shelf.dao.slug, buyer=buyer, upload=upload, now=clock_now())
    assert len(asked) == 1 and len(others) == 0
    assert LogLeaf.objects.filter(type="listings.query_held").count() == 2


@pytest.mark.parametrize("bound", ["balance", "limit", "mandate", "waiting"])
def test_requests_at_once_never_go_beyond_what_a_buyer_may(shelf, monkeypatch, bound) -> None:
    """Three of eight fit into it; the others are told which of them it was."""
    may, count = 3, 8
    buyer = shelf.buyer((may if bound == "balance" else count) * PRICE)
    user = User.objects.create_user("b@example.org", "x")
    limit = may * PRICE if bound == "limit" else None
    key, _ = api_key_create(user=user, party=buyer, spend_limit_micro=limit)
    if bound == "waiting":
        monkeypatch.setattr(services, "WAITING_MAX", may)
    if bound == "mandate":
        at, wallet_key = clock_now(), Ed25519PrivateKey.generate()
        bind(buyer, wallet_key, now=at)
        asked = {
            "listing": shelf.dao.slug,
            "limit_micro": may * PRICE,
            "until_ms": unix_ms(at) + 60_000,
            "api_key": key.prefix,
        }
        payload = consent.mandate_payload(**asked)
        word = signed(buyer, wallet_key, consent.MANDATE, payload, nonce=1, now=at)
        mandates.mandate_give(party=buyer, consent=Consent("session", word), now=at, **asked)
    uploads = [shelf.upload() for _ in range(count)]
    said = at_once(
        count,
        lambda place: query_create(
            slug=shelf.dao.slug, buyer=buyer, upload=uploads[place], key=key, now=clock_now()
        ),
    )
    code = {
        "balance": "insufficient_balance",
        "limit": "spend_limit_reached",
        "mandate": "mandate_needed",
        "waiting": "too_many_waiting",
    }[bound]
    assert said == {"held": may, code: count - may}
    assert Account.objects.get(owner=buyer).held_micro == may * PRICE
    assert Query.objects.count() == Job.objects.count() == may


def test_one_call_at_once_is_one_query(shelf) -> None:
    buyer = shelf.buyer(8 * PRICE)
    uploads = [shelf.upload() for _ in range(4)]
    call = Call(buyer.id, "k", "ab" * 32)
    said = at_once(
        4,
        lambda place: query_create(
            slug=shelf.dao.slug, buyer=buyer, upload=uploads[place], call=call, now=clock_now()
        ),
    )
    assert said == {"held": 1, "idempotency_conflict": 3}
    assert Query.objects.count() == IdempotentCall.objects.count() == 1


@pytest.mark.parametrize("same", ["share_id", "scope"])
def test_a_share_that_somebody_else_is_posting_is_waited_for_and_refused(shelf, same) -> None:
    upload, begun, go_on = shelf.upload(), threading.Event(), threading.Event()
    other = shelf.upload(**{same: upload["ticket"][same]})
    first, second = shelf.buyer(PRICE), shelf.buyer(PRICE)

    def ask_first() -> None:
        try:
            with joinable():
                query_create(slug=shelf.dao.slug, buyer=first, upload=upload, now=clock_now())
                begun.set()
                go_on.wait(60)
        finally:
            close_old_connections()

    def ask_second() -> Counter[str]:
        return at_once(
            1,
            lambda place: query_create(
                slug=shelf.dao.slug, buyer=second, upload=other, now=clock_now()
            ),
        )

    thread = threading.Thread(target=ask_first)
    thread.start()
    assert begun.wait(60)
    threading.Timer(0.3, go_on.set).start()
    assert ask_second() == {f"{same}_taken": 1}
    thread.join()
    assert Query.objects.get().buyer == first
    assert Account.objects.get(owner=second).held_micro == 0


def test_a_call_that_was_answered_is_answered_again_whatever_has_changed_since(
    shelf, monkeypatch
) -> None:
    """The ticket is too old now, the listing closed, the money gone: the retry gets its query."""
    buyer = shelf.buyer(PRICE)
    user = User.objects.create_user("b@example.org", "x")
    _, secret = api_key_create(user=user, party=buyer)
    client = APIClient(headers={"Authorization": f"Bearer {secret}"})
    url = f"/api/v1/listings/{shelf.dao.slug}/inferences/"
    body = {"input": shelf.upload()}
    headers = {"Idempotency-Key": "k"}
    first = client.post(url, body, headers=headers)
    assert first.status_code == 202, first.json()
    later = clock_now() + timedelta(hours=1)
    monkeypatch.setattr("apps.listings.apis.now", lambda: later)
    late = client.post(url, body, headers={"Idempotency-Key": "l"})
    assert (late.status_code, late.json()["code"]) == (422, "expired")
    Listing.objects.update(status="closed")
    again = client.post(url, body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    for other in ({"input": shelf.upload()}, {"input": 5}):
        refused = client.post(url, other, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    assert Query.objects.count() == IdempotentCall.objects.count() == 1
