"""Listings for holders of a credential: who may ask, what who may not is told, and the replay."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apps.accounts.models import Party, User
from apps.accounts.services import api_key_create
from apps.core.clock import now, unix_ms
from apps.core.errors import BadInput, DomainError
from apps.core.transactions import durable
from apps.explorer.access import standing_of
from apps.listings import mandates, plans
from apps.listings.access import admitted
from apps.listings.actions import SetAccess
from apps.listings.models import Query, Subscription
from apps.listings.quoting import quote_json
from apps.listings.selectors import listing_json
from apps.listings.services import query_create
from apps.protocol import consent
from apps.protocol import credentials as rules
from apps.protocol.plans import Renewal
from apps.subdaos.models import Dao
from apps.training.access import asked_by_nodes, demand_of
from apps.wallets import credentials
from apps.wallets.keys import SESSION, Consent, key_revoke
from apps.wallets.models import Credential
from apps.wallets.services import faucet
from tests.listings import test_plans
from tests.listings.test_plans import FUNDS, choose, errors, leaves, refused, replayed, settle
from tests.support.consents import bind, signed
from tests.support.credentials import KIND, Keyed, voted
from tests.support.shelf import PRICE, Shelf
from workers.client.earnings import Finding

shelf = test_plans.shelf  # whose end replays all of it, and looks at the ledger
TOLD = ("wallets.credential", "wallets.credential_revoked", "listings.mandate")


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_plans, "TOLD", (*test_plans.TOLD, *TOLD))


def vote(shelf: Shelf, *issuers: Keyed, kind: str = KIND) -> None:
    voted(shelf.listing.dao, *[one.party.pid for one in issuers], kind=kind)


def elsewhere(issuer: Keyed, buyer: Keyed, kind: str = KIND) -> Credential:
    """Another model asks for it."""
    issuer.asked(kind)
    return issuer.issue(buyer, kind)


def keyed(shelf: Shelf) -> Keyed:
    """With money, and a mandate for its predictions."""
    one = Keyed(shelf.buyer(FUNDS))
    asked = {"listing": "*", "limit_micro": FUNDS, "until_ms": unix_ms(now()) + 10**8}
    word = one.word(consent.MANDATE, consent.mandate_payload(**asked, api_key=""))
    mandates.mandate_give(party=one.party, consent=word, now=now(), **asked)
    return one


def ask(shelf: Shelf, buyer: Keyed) -> Query:
    party = Party.objects.get(pk=buyer.party.pk)
    return query_create(slug=shelf.dao.slug, buyer=party, upload=shelf.upload(), now=now())


def test_only_who_has_the_credential_asks_and_all_may_look(shelf: Shelf) -> None:
    issuer, buyer, other = Keyed(shelf.buyer()), keyed(shelf), keyed(shelf)
    settle(shelf, ask(shelf, other))
    vote(shelf, issuer)
    assert listing_json(shelf.listing)["access"] == {
        "credential": KIND, "issuers": [issuer.party.pid]
    }  # fmt: skip
    held = issuer.issue(buyer)
    settle(shelf, ask(shelf, buyer))
    assert quote_json(listing=shelf.listing, buyer=buyer.party, rows=1, now=now())
    asked = [row["body"] for row in leaves() if row["type"] == "listings.query_held"][-1]
    assert asked["credential"] == held.digest
    refused("credential_needed", lambda: ask(shelf, other))
    refused("credential_needed", lambda: choose(shelf, other.party, "basic"))
    vote(shelf)
    settle(shelf, ask(shelf, other))


def test_a_plan_that_begins_without_a_credential_is_found(shelf: Shelf) -> None:
    issuer, buyer = Keyed(shelf.buyer()), keyed(shelf)
    vote(shelf, issuer)
    issuer.issue(buyer)
    choose(shelf, buyer.party, "basic", word=lambda seen: buyer.word(consent.PLAN, seen.asked))
    said = leaves()
    assert errors(shelf, said) == []
    [begun] = [leaf["body"]["id"] for leaf in said if leaf["type"] == "listings.plan"]
    for leaf in said:  # the vote was long ago
        leaf["at"] -= 120_000 * (leaf["type"] == "subdaos.params")
    without = [leaf for leaf in said if leaf["type"] != "wallets.credential"]
    found = errors(shelf, without)
    assert found and f"plan {begun} was sold to who lacked the credential (none)" in found[0]


def expired(shelf: Shelf, issuer: Keyed, buyer: Keyed) -> None:
    row = issuer.issue(buyer, days=1)
    Credential.objects.filter(pk=row.pk).update(until=now() - timedelta(seconds=1))


def another_key(shelf: Shelf, issuer: Keyed, buyer: Keyed) -> None:
    issuer.issue(buyer)
    fresh = Ed25519PrivateKey.generate()
    nonce = Party.objects.get(pk=buyer.party.pk).nonce + 1
    bind(buyer.party, fresh, by=buyer.key, nonce=nonce, now=now())


WRONG: list[tuple[str, Callable[[Shelf, Keyed, Keyed], Any]]] = [
    ("none", lambda shelf, issuer, buyer: None),
    ("none", lambda shelf, issuer, buyer: elsewhere(issuer, buyer, "lab")),
    ("none", lambda shelf, issuer, buyer: issuer.issue(keyed(shelf))),
    ("none", lambda shelf, issuer, buyer: elsewhere(buyer, buyer)),
    ("none", lambda shelf, issuer, buyer: elsewhere(Keyed(shelf.buyer()), buyer)),
    ("revoked", lambda shelf, issuer, buyer: issuer.revoke(issuer.issue(buyer).digest)),
    ("expired", expired),
    ("other_key", another_key),
]


@pytest.mark.parametrize(("reason", "happen"), WRONG)
def test_no_other_credential_admits_and_the_refusal_says_why(
    shelf: Shelf, reason: str, happen: Callable[[Shelf, Keyed, Keyed], Any]
) -> None:
    issuer, buyer = Keyed(shelf.buyer()), keyed(shelf)
    vote(shelf, issuer)
    happen(shelf, issuer, buyer)
    party = Party.objects.get(pk=buyer.party.pk)
    with pytest.raises(DomainError) as caught:
        quote_json(listing=shelf.listing, buyer=party, rows=1, now=now())
    facts = caught.value.args_
    assert (caught.value.code, caught.value.status) == ("credential_needed", 403)
    assert facts["reason"] == reason and facts["credential"] == KIND
    assert facts["issuers"] == [{"pid": issuer.party.pid, "name": issuer.party.name}]
    refused("credential_needed", lambda: ask(shelf, buyer))
    assert not Query.objects.exists()


def test_a_new_one_admits_beside_an_old_one(shelf: Shelf) -> None:
    issuer, buyer = Keyed(shelf.buyer()), keyed(shelf)
    vote(shelf, issuer)
    issuer.issue(buyer)
    issuer.revoke(issuer.issue(buyer).digest)
    settle(shelf, ask(shelf, buyer))  # by the first


def test_what_is_issued_is_signed_by_its_issuer_and_of_a_bound_key(shelf: Shelf) -> None:
    issuer, buyer, plain = Keyed(shelf.buyer()), keyed(shelf), shelf.buyer()
    vote(shelf, issuer)
    until_ms = unix_ms(now()) + 1000

    def issue(word: Any, by: Any = issuer.party, about: Any = buyer.party, **changes: Any) -> Any:
        said = {"kind": KIND, "key": buyer.public, "until_ms": until_ms} | changes
        return lambda: credentials.credential_issue(
            issuer=by, subject=about, consent=word, now=now(), **said
        )

    asked = rules.issue_payload(
        credential=KIND, subject=buyer.party.pid, key=buyer.public, until_ms=until_ms
    )
    refused("signature_required", issue(SESSION))
    refused("credential_not_asked", issue(SESSION, by=plain))
    for bent in ({"credential": "lab"}, {"subject": issuer.party.pid}, {"until_ms": "1"}):
        refused("bad_signature", issue(issuer.word(rules.ISSUE, asked | bent)))
    stranger = Ed25519PrivateKey.generate()
    said = signed(issuer.party, stranger, rules.ISSUE, asked, nonce=9, now=now())
    refused("unknown_key", issue(Consent("session", said)))
    for code, changes in (
        ("bad_kind", {"kind": "A b"}),
        ("bad_until", {"until_ms": 1}),
        ("bad_until", {"until_ms": until_ms + rules.LIFETIME_MS_MAX}),
    ):
        refused(code, issue(issuer.word(rules.ISSUE, asked), **changes))
    for code, about, key in (
        ("subject_has_no_key", plain, buyer.public),
        ("bad_subject", shelf.dao.party, buyer.public),
        ("other_key", buyer.party, issuer.public),
    ):
        word = issuer.word(rules.ISSUE, asked | {"subject": about.pid, "key": key})
        refused(code, issue(word, about=about, key=key))
    assert not Credential.objects.exists()
    row = issuer.issue(buyer)
    refused("credential_not_found", lambda: buyer.revoke(row.digest))
    issuer.revoke(row.digest)
    assert issuer.revoke(row.digest).revoked_at is not None
    assert [leaf["type"] for leaf in leaves()].count("wallets.credential_revoked") == 1


def test_terms_name_parties_that_can_issue(shelf: Shelf) -> None:
    dao, issuer = shelf.listing.dao, Keyed(shelf.buyer())
    for wrong in (
        {},
        {"access": {}},
        {"access": {"credential": "X", "issuers": [issuer.party.pid]}},
        {"access": {"credential": KIND, "issuers": [dao.party.pid]}},
        {"access": {"credential": KIND, "issuers": ["00" * 16]}},
        {"access": {"credential": KIND, "issuers": [issuer.party.pid]}, "more": 1},
    ):
        with pytest.raises(BadInput):
            SetAccess().validate(wrong, dao)
    payload = {"access": {"credential": KIND, "issuers": [issuer.party.pid]}}
    [change] = SetAccess().describe(payload, dao)
    assert change["before"] == "everybody" and issuer.party.name in change["after"]


def test_only_what_a_vote_names_is_said_of_others(shelf: Shelf) -> None:
    """A kind stays in the log for ever, beside the pseudonym of whom it is said."""
    issuer, other, buyer = Keyed(shelf.buyer()), Keyed(shelf.buyer()), keyed(shelf)
    slander = "convicted-of-fraud"
    refused("credential_not_asked", lambda: issuer.issue(buyer))
    vote(shelf, issuer)
    held = issuer.issue(buyer)
    refused("credential_not_asked", lambda: issuer.issue(buyer, slander))
    refused("credential_not_asked", lambda: other.issue(buyer))
    assert credentials.kinds_of(issuer.party) == [KIND] and not credentials.kinds_of(other.party)
    vote(shelf)
    refused("credential_not_asked", lambda: issuer.issue(buyer))
    assert issuer.revoke(held.digest).revoked_at  # what was issued is taken back at any time
    assert Credential.objects.count() == 1
    said = leaves()
    issued = [leaf["type"] for leaf in said].index("wallets.credential")
    unasked = [leaf for leaf in said[:issued] if leaf["type"] != "subdaos.params"]
    assert "no vote asks of its issuer" in str(errors(shelf, [*unasked, said[issued]]))
    others = [leaf for leaf in copy.deepcopy(said) if leaf["type"] not in TOLD]
    for leaf in others:
        leaf["at"] -= 120_000  # long after the second vote
    assert "no vote asks of its issuer" in str(errors(shelf, [*others, said[issued]]))


def test_who_is_trusted_has_a_key_when_proposed_and_when_carried_out(shelf: Shelf) -> None:
    """In the name of one without, whoever runs the server could bind the first."""
    dao, issuer, plain = shelf.listing.dao, Keyed(shelf.buyer()), shelf.buyer()
    pids = tuple(sorted((issuer.party.pid, plain.pid)))
    payload = {"access": rules.Access(KIND, pids).params}

    def carry_out() -> None:
        with durable():
            SetAccess().execute(payload, dao=dao, proposal_id=uuid.uuid4(), now=now())

    for do in (lambda: SetAccess().validate(payload, dao), carry_out):
        with pytest.raises(BadInput) as caught:
            do()
        assert caught.value.code == "issuer_has_no_key"
        assert caught.value.text.endswith(f" first: {plain.name}.")  # the other has one
    late = Keyed(plain)
    assert SetAccess().validate(payload, dao) == payload
    word = late.word(consent.REVOKE, consent.key_payload(purpose="wallet", public_key=late.public))
    key_revoke(party=plain, purpose="wallet", consent=word)
    refused("issuer_has_no_key", carry_out)
    vote(shelf, issuer)
    said = [leaf for leaf in leaves() if leaf["body"].get("pid") != issuer.party.pid]
    with pytest.raises(Finding, match="who had no key"):
        errors(shelf, said)


def test_every_forgery_is_found(shelf: Shelf) -> None:
    """What a server could write that wants somebody else to be admitted."""
    issuer, buyer, other = Keyed(shelf.buyer()), keyed(shelf), Keyed(shelf.buyer())
    vote(shelf, issuer)
    held, lab = issuer.issue(buyer), elsewhere(issuer, buyer, "lab")
    foreign, theirs = elsewhere(other, buyer), issuer.issue(other)
    settle(shelf, ask(shelf, buyer))
    issuer.revoke(held.digest)
    said = leaves()
    assert errors(shelf, said) == []
    kinds = [leaf["type"] for leaf in said]
    issued, revoked = kinds.index("wallets.credential"), kinds.index("wallets.credential_revoked")
    asked, voted = kinds.index("listings.query_held"), kinds.index("subdaos.params")
    long_ago = said[revoked]["at"] - 10 * 60_000
    forgeries: list[tuple[int, Callable[[dict[str, Any]], Any]]] = [
        (issued, lambda leaf: leaf["body"].update(issuer=other.party.pid)),
        (issued, lambda leaf: leaf["body"].update(id="00" * 32)),
        (issued, lambda leaf: leaf["body"].update(signed=None)),
        (issued, lambda leaf: leaf["body"]["payload"].update(subject=other.party.pid)),
        (issued, lambda leaf: leaf["body"]["payload"].update(until_ms="1")),
        (issued, lambda leaf: leaf["body"]["signed"].update(signature="00" * 64)),
        (revoked, lambda leaf: leaf["body"].update(issuer=buyer.party.pid)),
        (revoked, lambda leaf: leaf["body"].update(signed=None)),
        (revoked, lambda leaf: leaf["body"].update(id=lab.digest)),
        (asked, lambda leaf: leaf["body"].pop("credential")),
        *[
            (asked, lambda leaf, row=row: leaf["body"].update(credential=row.digest))
            for row in (lab, foreign, theirs)
        ],
        (voted, lambda leaf: leaf["body"]["value"].update(issuers=[other.party.pid])),
    ]
    for number, (index, forge) in enumerate(forgeries):
        forged = copy.deepcopy(said)
        forged[voted]["at"] = long_ago
        forge(forged[index])
        found = errors(shelf, forged)
        assert any("redential" in one for one in found), (number, found)
    # asked again long after the revocation, or after the end
    again = [said[asked - 1], said[asked]]
    for later_ms, code in ((120_000, "revoked"), (366 * 86_400_000, "expired")):
        forged = copy.deepcopy(said if code == "revoked" else said[:revoked])
        late = copy.deepcopy(again)
        for leaf in late:
            leaf["at"] = said[-1]["at"] + later_ms
        late[1]["body"]["query"] = uuid.uuid4().hex
        assert code in str(errors(shelf, [*forged, *late]))


def test_the_api_issues_lists_revokes_and_says_the_way(
    shelf: Shelf, django_assert_num_queries: Any
) -> None:
    issuer, buyer = Keyed(shelf.buyer()), keyed(shelf)
    vote(shelf, issuer)

    def client(one: Keyed) -> APIClient:
        user = User.objects.create_user(f"{one.party.pid}@example.org", "x")
        _, key = api_key_create(user=user, party=one.party)
        return APIClient(headers={"Authorization": f"Bearer {key}"})

    issuing, asking = client(issuer), client(buyer)
    quote = f"/api/v1/listings/{shelf.dao.slug}/quote/"
    no = asking.post(quote, {"rows": 1}, format="json")
    assert no.status_code == 403 and no["Content-Type"] == "application/problem+json"
    body = no.json()
    assert (body["code"], body["credential"], body["reason"]) == ("credential_needed", KIND, "none")
    assert body["issuers"][0]["pid"] == issuer.party.pid and body["page"] == "/wallet/credentials/"
    assert asking.get(f"/api/v1/listings/{shelf.dao.slug}/").json()["access"]["credential"] == KIND
    until_ms = unix_ms(now()) + 10**8
    payload = rules.issue_payload(
        credential=KIND, subject=buyer.party.pid, key=buyer.public, until_ms=until_ms
    )
    asked = {
        "credential": KIND, "subject": buyer.party.slug, "key": buyer.public, "until_ms": until_ms,
    }  # fmt: skip
    url = "/api/v1/credentials/"
    assert issuing.post(url, asked, format="json").json()["code"] == "signature_required"
    said = issuer.word(rules.ISSUE, payload).signed
    made = issuing.post(url, asked | {"signed": said}, format="json")
    assert made.status_code == 201 and made.json()["state"] == "in_force"
    assert asking.get(url).json()["results"] == [made.json()]
    assert issuing.get(url).json()["results"] == []
    assert issuing.get(f"{url}?role=issued").json()["results"] == [made.json()]
    assert issuing.get(f"{url}?role=x").status_code == 400
    assert asking.post(quote, {"rows": 1}, format="json").json()["price_micro"] == str(PRICE)
    with CaptureQueriesContext(connection) as one:
        issuing.get(f"{url}?role=issued")
    for kind in ("lab", "clinic"):
        elsewhere(issuer, buyer, kind)
    with django_assert_num_queries(len(one)):
        assert len(issuing.get(f"{url}?role=issued").json()["results"]) == 3
    id_ = made.json()["id"]
    said = issuer.word(rules.REVOKE, rules.revoke_payload(id=id_)).signed
    gone = issuing.post(f"{url}{id_}/revoke/", {"signed": said}, format="json")
    assert gone.json()["state"] == "revoked"
    again = asking.post(quote, {"rows": 1}, format="json").json()
    assert again["reason"] == "revoked"


def test_asking_costs_no_query_more_where_all_may(
    shelf: Shelf, django_assert_num_queries: Any
) -> None:
    buyer = shelf.buyer()
    faucet(party=buyer, asset="USDC", amount_micro=1)
    listing = shelf.listing
    with django_assert_num_queries(0):
        assert admitted(buyer, listing, now=now()) == ""


def test_a_plan_keeps_the_terms_it_began_with_until_its_end(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bought by anybody, then by holders of one issuer's credential, then another's is asked
    for: its rows go on, and nothing else does."""
    monkeypatch.setattr(test_plans, "TOLD", (*test_plans.TOLD, "listings.plan_renewal"))
    plain, issuer, other = shelf.buyer(FUNDS), Keyed(shelf.buyer()), Keyed(shelf.buyer())
    first = choose(shelf, plain, "basic")
    agreed = Renewal(10, 30, FUNDS)
    plans.renewal_set(listing=shelf.listing, buyer=plain, agreed=agreed, consent=SESSION, now=now())
    vote(shelf, issuer)
    settle(shelf, test_plans.ask(shelf, plain, 4))
    refused("credential_needed", lambda: test_plans.ask(shelf, plain, 7))  # six are left of it
    upload = shelf.upload(2)  # at the price of the list, so from the balance
    refused(
        "credential_needed",
        lambda: query_create(slug=shelf.dao.slug, buyer=plain, upload=upload, now=now()),
    )
    refused("credential_needed", lambda: choose(shelf, plain, "pro"))
    shown = standing_of(shelf.listing.dao, plain, plan=first)
    assert shown and (shown["held"], shown["kept"]) == (False, True)
    stranger = standing_of(shelf.listing.dao, shelf.buyer())
    assert stranger and (stranger["held"], stranger["kept"]) == (False, False)

    holder = keyed(shelf)
    held = issuer.issue(holder)
    choose(shelf, holder.party, "basic", word=lambda seen: holder.word(consent.PLAN, seen.asked))
    vote(shelf, other)
    settle(shelf, test_plans.ask(shelf, plain), test_plans.ask(shelf, holder.party))
    refused("credential_needed", lambda: ask(shelf, holder))
    asked = [leaf["body"] for leaf in leaves() if leaf["type"] == "listings.query_held"]
    assert [one.get("credential") for one in asked] == [None, None, held.digest]
    issuer.revoke(held.digest)
    refused("credential_needed", lambda: test_plans.ask(shelf, holder.party))

    said = leaves()
    assert errors(shelf, said) == []
    votes = [at for at, leaf in enumerate(said) if leaf["type"] == "subdaos.params"]
    queries = [at for at, leaf in enumerate(said) if leaf["type"] == "listings.query_held"]
    begun = next(at for at, leaf in enumerate(said) if leaf["type"] == "listings.plan")
    for number, (broken, forge) in enumerate(
        (
            (queries[2], lambda leaf: leaf["body"].pop("credential")),
            (queries[1], lambda leaf: leaf["body"].pop("plan")),
            (begun, lambda leaf: leaf["body"].update(id=uuid.uuid4().hex)),
        )
    ):
        forged = copy.deepcopy(said)
        for at in votes:
            forged[at]["at"] -= 10 * 60_000  # long ago, for what comes after
        forge(forged[broken])
        assert "lacked the credential" in str(errors(shelf, forged)), number

    # The next period takes what is asked for then.
    end = first.ends_at + timedelta(seconds=1)
    plans.subscriptions_end(now=end)
    ended = Subscription.objects.get(pk=first.pk)
    assert ended.unrenewed == "credential_needed"
    assert not Subscription.objects.filter(buyer=plain, ended_at=None).exists()


def test_nodes_ask_from_the_next_round_on_for_what_was_voted_and_once_plans_of_before_are_over(
    shelf: Shelf,
) -> None:
    plain, issuer, other = shelf.buyer(FUNDS), Keyed(shelf.buyer()), Keyed(shelf.buyer())

    def asked(at: datetime | None = None) -> dict[str, Any]:
        return asked_by_nodes(Dao.objects.get(pk=shelf.listing.dao_id), now=at or now())

    first = choose(shelf, plain, "basic")
    assert asked() == {}
    vote(shelf, issuer, other)
    assert asked() == {}
    after = asked(first.ends_at)
    pairs = sorted((one.party.pid, one.public) for one in (issuer, other))
    assert after == {
        "credential": KIND, "issuers": [pid for pid, _ in pairs], "keys": [key for _, key in pairs]
    }  # fmt: skip
    held = shelf.listing.version.round
    held.access = after
    demand = demand_of(held)
    assert demand and demand.keys == tuple(sorted(key for _, key in pairs))

    state = replayed(shelf, leaves())
    round_ = {"round": "r", "dao": shelf.listing.dao.party.pid}
    at = state.latest_ms
    for nothing in ({}, {"access": None}):
        state.credentials.round_opened(round_ | nothing, at)  # the plan runs
    over = unix_ms(first.ends_at) + 120_000
    with pytest.raises(Finding, match="answer who lacks the credential"):
        state.credentials.round_opened(round_, over)
    with pytest.raises(Finding, match="answer who lacks the credential"):
        state.credentials.round_opened(round_ | {"access": None}, over)
    state.credentials.round_opened(round_ | {"access": after}, at)
    for changes in (
        {"credential": "lab"},
        {"issuers": [plain.pid, other.party.pid]},
        {"keys": [pairs[0][1]] * 2},
        {"keys": [pairs[0][1], "00" * 32]},
    ):
        with pytest.raises(Finding):
            state.credentials.round_opened(round_ | {"access": after | changes}, at)
    choose(shelf, plain, "")
    assert asked() == after
    state = replayed(shelf, leaves())
    state.credentials.round_opened(round_, state.latest_ms)  # may have been opened before
    with pytest.raises(Finding, match="answer who lacks the credential"):
        state.credentials.round_opened(round_, state.latest_ms + 120_000)
    holder = keyed(shelf)  # whose plan begins by the terms of now
    issuer.issue(holder)
    choose(shelf, holder.party, "basic", word=lambda seen: holder.word(consent.PLAN, seen.asked))
    assert asked() == after
    said = leaves()
    for leaf in said:
        if leaf["type"] == "subdaos.params":
            leaf["at"] -= 10 * 60_000
    state = replayed(shelf, said)
    with pytest.raises(Finding, match="answer who lacks the credential"):
        state.credentials.round_opened(round_, state.latest_ms + 120_000)
    for one in (issuer, other):  # issuers without a key: nobody could show what they issued
        state.keyring.parties[one.party.pid].active.clear()
    state.credentials.round_opened(round_, state.latest_ms + 120_000)
    vote(shelf)
    assert asked(first.ends_at) == {}
    state = replayed(shelf, leaves())
    with pytest.raises(Finding, match="no vote asks for"):
        state.credentials.round_opened(round_ | {"access": after}, state.latest_ms + 120_000)


def test_plans_of_before_are_given_the_terms_that_the_log_tells(shelf: Shelf) -> None:
    """The migration of a site that sold plans before they kept their terms."""
    plain, issuer, holder = shelf.buyer(FUNDS), Keyed(shelf.buyer()), keyed(shelf)
    choose(shelf, plain, "basic")
    vote(shelf, issuer)
    issuer.issue(holder)
    choose(shelf, holder.party, "basic", word=lambda seen: holder.word(consent.PLAN, seen.asked))
    terms = dict(Subscription.objects.values_list("buyer", "access"))
    assert terms == {plain.id: None, holder.party.id: shelf.listing.dao.params["access"]}
    Subscription.objects.update(access={"credential": "x", "issuers": []})
    statement = import_module("apps.listings.migrations.0014_plan_access").BEGAN_WITH
    with connection.cursor() as cursor:
        cursor.execute(statement)
    assert dict(Subscription.objects.values_list("buyer", "access")) == terms
