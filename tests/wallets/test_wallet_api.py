"""Paying, staking and the faucet through the API; what a retry gets."""

from __future__ import annotations

import uuid

import pytest
from django.db import transaction
from rest_framework.test import APIClient

from apps.accounts.models import Party
from apps.accounts.services import api_key_create, sign_up
from apps.core.models import IdempotentCall
from apps.wallets import selectors, services
from apps.wallets.models import Transfer
from tests.wallets.ledger_helpers import at, funded

pytestmark = pytest.mark.django_db


def member(name):
    user, party = sign_up(
        email=f"{name}@example.org", password="correct horse battery", name=name, kind="person"
    )
    _, key = api_key_create(user=user, party=party)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client, party


def post(client, path, body, key=None):
    return client.post(
        f"/api/v1/wallet/{path}/", body, HTTP_IDEMPOTENCY_KEY=key or str(uuid.uuid4())
    )


def usdc(client, purpose="main", asset="USDC"):
    for line in client.get("/api/v1/wallet/").data["accounts"]:
        if (line["asset"], line["purpose"]) == (asset, purpose):
            return line["posted_micro"]
    return None


def test_tokens_from_the_faucet_are_paid_on_and_both_see_it():
    (ada, ada_party), (bob, _) = member("ada"), member("bob")
    assert post(ada, "faucet", {"asset": "USDC", "amount_micro": "5000000"}).status_code == 201
    sent = post(
        ada, "transfers", {"to": "bob", "asset": "USDC", "amount_micro": "2000000", "memo": "tea"}
    )
    assert sent.status_code == 201
    assert (usdc(ada), usdc(bob)) == ("3000000", "2000000")
    [theirs] = bob.get("/api/v1/wallet/transfers/").data["results"]
    assert theirs == sent.data
    assert theirs["memo"] == "tea" and theirs["debit"]["party"]["pid"] == ada_party.pid
    page = ada.get("/api/v1/wallet/transfers/?limit=1").data
    assert len(page["results"]) == 1 and page["next"]
    rest = ada.get(page["next"]).data
    assert [t["kind"] for t in rest["results"]] == ["wallets.faucet"] and rest["next"] is None


def test_a_retry_gets_the_first_answer_and_pays_once():
    ada, _ = member("ada")
    member("bob")
    post(ada, "faucet", {"asset": "USDC", "amount_micro": "5000000"})
    body = {"to": "bob", "asset": "USDC", "amount_micro": "2000000"}
    first = post(ada, "transfers", body, "k1")
    again = post(ada, "transfers", dict(reversed(body.items())), "k1")
    assert again.status_code == 201 and again.json() == first.json()
    assert again["Idempotency-Replayed"] == "true" and usdc(ada) == "3000000"
    for other in (body | {"amount_micro": "1"}, body | {"memo": "x"}):
        refused = post(ada, "transfers", other, "k1")
        assert (refused.status_code, refused.data["code"]) == (409, "idempotency_conflict")
    # Another path with the same key is another request.
    elsewhere = post(ada, "faucet", {"asset": "USDC", "amount_micro": "1"}, "k1")
    assert elsewhere.data["code"] == "idempotency_conflict"
    # Another party's keys are its own.
    bob, _ = member("bob2")
    assert post(bob, "faucet", {"asset": "USDC", "amount_micro": "1"}, "k1").status_code == 201


def test_a_refusal_writes_nothing_and_its_key_may_try_again():
    ada, _ = member("ada")
    member("bob")
    body = {"to": "bob", "asset": "USDC", "amount_micro": "7"}
    refused = post(ada, "transfers", body, "k1")
    assert (refused.status_code, refused.data["code"]) == (402, "insufficient_balance")
    assert "short by 0.000007 USDC" in refused.data["detail"]
    assert not Transfer.objects.exists() and not IdempotentCall.objects.exists()
    post(ada, "faucet", {"asset": "USDC", "amount_micro": "7"})
    assert post(ada, "transfers", body, "k1").status_code == 201


@pytest.mark.parametrize("kind", ["system", "dao"])
def test_money_is_not_sent_where_nobody_can_take_it(kind):
    ada, _ = member("ada")
    Party.objects.create(kind=kind, name="Nobody", slug="nobody")
    post(ada, "faucet", {"asset": "USDC", "amount_micro": "5"})
    for slug in ("nobody", "superdao", "protocol"):
        refused = post(ada, "transfers", {"to": slug, "asset": "USDC", "amount_micro": "5"})
        assert (refused.status_code, refused.data["code"]) == (422, "not_a_payee")
    assert usdc(ada) == "5"


@pytest.mark.parametrize("key", [None, "", "x" * 201, "line\tbreak"])
def test_moving_money_needs_a_usable_idempotency_key(key):
    ada, _ = member("ada")
    headers = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    answer = ada.post("/api/v1/wallet/faucet/", {"asset": "USDC", "amount_micro": "1"}, **headers)
    assert answer.status_code == 400 and answer.data["code"].startswith("idempotency_key_")
    assert not Transfer.objects.exists()


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("transfers", {"to": "nobody", "asset": "USDC", "amount_micro": "1"}, 404,
         "party_not_found"),
        ("transfers", {"to": "ada", "asset": "USDC", "amount_micro": "1"}, 400, "same_account"),
        ("transfers", {"to": "bob", "asset": "EUR", "amount_micro": "1"}, 404, "asset_not_found"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": "0"}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": "-1"}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": "1.5"}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": 1.5}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": True}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC", "amount_micro": str(2**63)}, 400, "invalid"),
        ("transfers", {"to": "bob", "asset": "USDC"}, 400, "invalid"),
        ("faucet", {"asset": "FLAI", "amount_micro": "100000000001"}, 400, "faucet_limit"),
        ("faucet", {"asset": "SDT-x", "amount_micro": "1"}, 400, "faucet_asset"),
        ("stakes", {"asset": "USDC", "amount_micro": "1"}, 400, "not_stakeable"),
        ("stakes", {"asset": "FLAI", "amount_micro": "1"}, 402, "insufficient_balance"),
    ],
)  # fmt: skip
def test_bad_requests_are_named_and_write_nothing(path, body, status, code):
    ada, _ = member("ada")
    member("bob")
    answer = post(ada, path, body)
    assert (answer.status_code, answer.data["code"]) == (status, code), answer.data
    assert answer.data["detail"] and not Transfer.objects.exists()


def test_the_faucet_is_closed_where_it_is_off(settings):
    settings.FAUCET = False
    ada, _ = member("ada")
    answer = post(ada, "faucet", {"asset": "USDC", "amount_micro": "1"})
    assert (answer.status_code, answer.data["code"]) == (403, "faucet_off")


def test_staked_tokens_are_apart_and_on_their_way_out_for_a_while():
    ada, _ = member("ada")
    post(ada, "faucet", {"asset": "FLAI", "amount_micro": "10"})
    assert post(ada, "stakes", {"asset": "FLAI", "amount_micro": "7"}).status_code == 201
    assert (usdc(ada, "main", "FLAI"), usdc(ada, "staked", "FLAI")) == ("3", "7")
    assert post(ada, "unstakes", {"asset": "FLAI", "amount_micro": "8"}).status_code == 402
    assert post(ada, "unstakes", {"asset": "FLAI", "amount_micro": "7"}).status_code == 201
    assert (usdc(ada, "main", "FLAI"), usdc(ada, "staked", "FLAI")) == ("3", "0")
    assert usdc(ada, "unstaking", "FLAI") == "7"


def test_wallets_are_private():
    for path in ("wallet/", "wallet/transfers/"):
        assert APIClient().get(f"/api/v1/{path}").status_code == 401
    assert post(APIClient(), "faucet", {"asset": "USDC", "amount_micro": "1"}).status_code == 401


def test_a_history_is_filtered_by_what_it_is_of_which_token_and_when():
    ada, bob = funded("ada", 100, now=at(0)), funded("bob", 0)
    with transaction.atomic():
        services.mint("FLAI", services.account(ada.owner, "FLAI"), 9, None, at(86_400))
    services.send(party=ada.owner, to=bob.owner, asset="USDC", amount_micro=1, now=at(2 * 86_400))

    def found(**wanted):
        return [t.kind for t in selectors.transfers_of(ada.owner, **wanted)]

    days = [at(n * 86_400).date() for n in range(3)]
    assert found() == ["wallets.send", "wallets.mint", "wallets.mint"]
    assert found(asset="FLAI") == found(since=days[1], until=days[1]) == ["wallets.mint"]
    assert found(kind="wallets.send") == found(since=days[2]) == ["wallets.send"]
    assert found(until=days[0], kind="wallets.send") == []
