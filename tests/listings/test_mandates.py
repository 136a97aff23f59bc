"""What a bound wallet key lets predictions take: held to by the service, added up by the replay."""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.test import Client

from apps.accounts.services import api_key_create, sign_up
from apps.core import clock
from apps.core.clock import unix_ms
from apps.core.errors import DomainError
from apps.listings import mandates
from apps.listings.models import Mandate, Query
from apps.listings.running import query_cancel
from apps.listings.services import query_create
from apps.protocol import consent
from apps.rfms import services as rfms
from apps.wallets.keys import Consent
from apps.wallets.models import LogLeaf
from apps.wallets.services import faucet
from tests.governance.helpers import MICRO, approved, at, party
from tests.support.consents import bind, signed
from tests.support.shelf import Shelf
from workers.client.replay import replay

pytestmark = pytest.mark.django_db
LIMIT = 100


class Buyer:
    """A party with a bound key, and a model that costs one micro-unit a row."""

    def __init__(self) -> None:
        self.user, self.party = sign_up(
            email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
        )
        faucet(party=self.party, asset="USDC", amount_micro=10 * MICRO, now=at(0))
        self.key, self.nonce = Ed25519PrivateKey.generate(), 0
        bind(self.party, self.key, now=at(1))
        self.shelf = Shelf(opened_at=at(0))
        self.shelf.reprice(1)

    def word(self, kind: str, payload: Any, now: Any = None) -> Consent:
        self.nonce += 1
        said = signed(self.party, self.key, kind, payload, nonce=self.nonce, now=now or at(2))
        return Consent("session", said)

    def give(self, **changes: Any) -> Mandate:
        asked = {
            "listing": consent.ANY_LISTING,
            "limit_micro": LIMIT,
            "until_ms": unix_ms(at(1000)),
            "api_key": "",
        } | changes
        word = self.word(consent.MANDATE, consent.mandate_payload(**asked))
        return mandates.mandate_give(party=self.party, consent=word, now=at(2), **asked)

    def hold(self, micro: int, *, seconds: float = 3, buyer: Any = None, key: Any = None) -> Query:
        now = at(seconds)
        return query_create(
            slug=self.shelf.dao.slug,
            buyer=buyer or self.party,
            upload=self.shelf.upload(micro, now=now),
            key=key,
            now=now,
        )


@pytest.fixture
def ada() -> Buyer:
    return Buyer()


def leaves() -> list[dict[str, Any]]:
    return [json.loads(bytes(row.data)) for row in LogLeaf.objects.order_by("pk")]


def unsigned(said: Any = None) -> list[str]:
    return replay(said if said is not None else leaves()).findings.unsigned


def test_without_a_key_nothing_is_needed_and_with_one_a_mandate_is(ada: Buyer) -> None:
    stranger = party("No key", usdc=1)
    ada.hold(1, buyer=stranger)
    with pytest.raises(mandates.MandateNeeded):
        ada.hold(1)
    with pytest.raises(DomainError, match="no_wallet_key"):
        mandates.mandate_give(
            party=stranger, listing="*", limit_micro=1, until_ms=unix_ms(at(9)),
            consent=Consent(), now=at(2),
        )  # fmt: skip
    with pytest.raises(DomainError, match="signature_required"):
        mandates.mandate_give(
            party=ada.party, listing="*", limit_micro=1, until_ms=unix_ms(at(9)),
            consent=Consent(), now=at(2),
        )  # fmt: skip
    ada.give()
    ada.hold(LIMIT)
    assert unsigned() == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"until_ms": unix_ms(at(2))}, "bad_until"),
    ({"until_ms": unix_ms(at(2)) + consent.MANDATE_MS_MAX + 1}, "bad_until"),
    ({"listing": "no-such"}, "bad_listing"),
    ({"api_key": "flai_other"}, "bad_api_key"),
])  # fmt: skip
def test_a_mandate_for_nothing_is_refused(ada: Buyer, changes: Any, said: str) -> None:
    with pytest.raises(DomainError, match=said):
        ada.give(**changes)
    assert not Mandate.objects.exists()


def test_a_mandate_counts_until_its_end_for_its_key_only(ada: Buyer) -> None:
    key, _ = api_key_create(user=ada.user, party=ada.party)
    mandate = ada.give(api_key=key.prefix)
    with pytest.raises(mandates.MandateNeeded):
        ada.hold(1)  # the browser has none
    ada.hold(60, key=key)
    with pytest.raises(mandates.MandateNeeded):
        ada.hold(1, key=key, seconds=1000)
    mandates.mandate_end(party=ada.party, mandate_id=mandate.id, now=at(5))
    mandates.mandate_end(party=ada.party, mandate_id=mandate.id, now=at(6))
    with pytest.raises(mandates.MandateNeeded):
        ada.hold(1, key=key, seconds=7)
    with pytest.raises(DomainError, match="mandate_not_found"):
        mandates.mandate_end(party=ada.shelf.dao.party, mandate_id=mandate.id, now=at(8))
    assert unsigned() == []


def test_another_key_ends_the_mandates_of_the_one_before(ada: Buyer) -> None:
    ada.give()
    ada.nonce += 1
    fresh = Ed25519PrivateKey.generate()
    bind(ada.party, fresh, by=ada.key, nonce=ada.nonce, now=at(3))
    with pytest.raises(mandates.MandateNeeded):
        ada.hold(1, seconds=4)
    ada.key = fresh
    ada.give()
    ada.hold(1, seconds=5)
    assert unsigned() == []


def body_of(said: Any, type_: str) -> Any:
    return next(row["body"] for row in said if row["type"] == type_)


def held(said: Any) -> list[Any]:
    return [row["body"] for row in said if row["body"].get("kind") == consent.QUERY]


def drop(said: Any, type_: str) -> None:
    said[:] = [row for row in said if row["type"] != type_]


def end_early(said: Any) -> None:
    mandate = body_of(said, "listings.mandate")
    place = next(i for i, row in enumerate(said) if row["type"] == "listings.mandate") + 1
    body = {"id": mandate["id"], "pid": mandate["pid"]}
    said.insert(place, said[place] | {"type": "listings.mandate_ended", "body": body})


def test_a_server_that_spends_beyond_a_mandate_is_found(ada: Buyer) -> None:
    ada.give()
    ada.hold(40)
    query_cancel(query_id=ada.hold(50).id, now=at(4))
    ada.hold(60, seconds=5)
    honest = leaves()
    assert unsigned(honest) == []
    for forge, said in (
        (lambda x: held(x)[0].pop("mandate"), "has no mandate"),
        (lambda x: held(x)[0].update(mandate="ee"), "has no mandate"),
        (lambda x: held(x)[-1].update(amount_micro="61"), "beyond the limit"),
        (lambda x: x.remove(next(r for r in x if r["body"].get("phase") == "void")), "limit"),
        (lambda x: body_of(x, "listings.mandate")["payload"].update(limit_micro="101"),
         "bad_signature"),
        (lambda x: body_of(x, "listings.mandate")["payload"].update(listing="other"),
         "bad_signature"),
        (lambda x: body_of(x, "listings.mandate").update(signed=None), "is not signed"),
        (lambda x: drop(x, "listings.mandate"), "has no mandate"),
        (end_early, "has no mandate"),
        (lambda x: next(r for r in x if r["body"] is held(x)[-1]).update(at=unix_ms(at(9_999))),
         "after the end"),
    ):  # fmt: skip
        forged = copy.deepcopy(honest)
        forge(forged)
        assert any(said in line for line in unsigned(forged)), (said, unsigned(forged))


def test_a_mandate_for_one_listing_pays_for_no_other(ada: Buyer) -> None:
    mandate = ada.give()
    ada.hold(40)
    said, sold, seller_pid = leaves(), ada.shelf.dao.slug, ada.shelf.dao.party.pid
    for listing, seller, found in (
        ("other", seller_pid, True),
        (sold, "ee" * 16, True),
        (sold, seller_pid, False),
    ):
        # What a mandate is for can't be bent, since it is signed; here it is for one listing.
        state = replay(said[:-2])
        state.keyring.mandates[str(mandate.id)].listing = listing
        state.sales[sold] = (seller, 0)
        for index, row in enumerate(said[-2:]):
            state.leaf(index, row)
        assert found == any("pays for another listing" in e for e in state.findings.errors)


def test_a_pledge_of_a_keyed_backer_is_signed_and_replayed(ada: Buyer) -> None:
    author = party("Author", flai=100)
    rfm = approved(author, author)

    def pledge(asked: int, word: Consent) -> Any:
        return rfms.pledge(
            party=ada.party, slug=rfm.slug, amount_micro=asked, consent=word, now=at(15)
        )

    payload = consent.pledge_payload(rfm=str(rfm.id), amount_micro=5 * MICRO)
    with pytest.raises(DomainError, match="signature_required"):
        pledge(5 * MICRO, Consent())
    word = ada.word(consent.PLEDGE, payload, at(15))
    with pytest.raises(DomainError, match="bad_signature"):
        pledge(6 * MICRO, word)
    pledge(5 * MICRO, word)
    honest = leaves()
    assert unsigned(honest) == []
    for bent in ({"signed": None}, {"asked_micro": str(6 * MICRO)}, {"asked_micro": "1"}):
        forged = copy.deepcopy(honest)
        next(r["body"] for r in forged if r["body"].get("kind") == consent.PLEDGE).update(bent)
        assert unsigned(forged), bent


def test_by_api_a_mandate_is_given_listed_with_what_was_spent_and_ended(ada: Buyer) -> None:
    now = clock.now()
    asked = {
        "listing": consent.ANY_LISTING,
        "limit_micro": LIMIT,
        "until_ms": unix_ms(now) + 60_000,
        "api_key": "",
    }
    site = Client()
    site.force_login(ada.user)

    def post(path: str, body: Any = None) -> Any:
        return site.post(f"/api/v1/mandates/{path}", body or {}, content_type="application/json")

    body = asked | {"limit_micro": str(LIMIT)}
    assert post("", body).json()["code"] == "signature_required"
    word = ada.word(consent.MANDATE, consent.mandate_payload(**asked), now)
    made = post("", body | {"signed": word.signed})
    assert made.status_code == 201, made.content
    [told] = site.get("/api/v1/mandates/").json()["results"]
    assert told == made.json() | {"spent_micro": "0"} and told["limit_micro"] == str(LIMIT)
    assert post(f"{told['id']}/end/").json()["ended_at"]
    assert site.get("/api/v1/mandates/").json()["results"] == []
    assert post(f"{uuid.uuid4()}/end/").status_code == 404
    assert Client().get("/api/v1/mandates/").status_code in (401, 403)
