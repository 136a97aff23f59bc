"""Sign-up, keys and parties through the API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.cache import cache
from django.urls import get_resolver
from rest_framework.test import APIClient

from apps.accounts.models import SCOPES, ApiKey, Party, PartyKey, User
from apps.accounts.permissions import SCOPE_OF_APP
from apps.accounts.selectors import system_party
from apps.core.clock import now, unix_ms
from apps.core.models import IdempotentCall
from apps.protocol import consent, wire
from apps.protocol.consent import KEY_DOMAIN
from apps.wallets.models import LogLeaf

pytestmark = pytest.mark.django_db
GOOD = {
    "email": "Ada@Example.org",
    "password": "correct horse battery",
    "name": "Ada  Lovelace",
    "kind": "person",
}


@pytest.fixture(autouse=True)
def _no_throttle_history():
    cache.clear()


@pytest.fixture
def api():
    return APIClient()


def signed_up(api, **changes):
    answer = api.post("/api/v1/accounts/", GOOD | changes)
    assert answer.status_code == 201, answer.data
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {answer.data['api_key']}")
    return answer.data


def test_sign_up_gives_a_party_and_a_key_that_works(api):
    data = signed_up(api)
    assert data["party"]["slug"] == "ada-lovelace" and data["party"]["name"] == "Ada Lovelace"
    assert data["api_key"].startswith("flai_") and len(data["party"]["pid"]) == 32
    me = api.get("/api/v1/me/").data
    assert me == {"email": "ada@example.org", "party": data["party"]}
    public = APIClient().get("/api/v1/parties/ada-lovelace/").data
    assert public == data["party"]
    assert User.objects.get().check_password(GOOD["password"])


def test_the_key_itself_is_not_stored(api):
    key = signed_up(api)["api_key"]
    row = ApiKey.objects.values().get()
    assert key not in str(row) and row["prefix"] == key[:12]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"email": "nowhere"}, 400, "invalid"),
        ({"email": ""}, 400, "invalid"),
        ({"password": "12345678"}, 400, "weak_password"),
        ({"password": "short"}, 400, "weak_password"),
        ({"password": "ada@example.org"}, 400, "weak_password"),
        ({"name": "   "}, 400, "invalid"),
        ({"kind": "system"}, 400, "invalid"),
        ({"kind": "dao"}, 400, "invalid"),
    ],
)
def test_sign_up_refuses_what_it_cannot_use(api, change, status, code):
    answer = api.post("/api/v1/accounts/", GOOD | change)
    assert (answer.status_code, answer.data["code"]) == (status, code)
    assert answer["Content-Type"] == "application/problem+json"
    assert not User.objects.exists()


def test_an_email_signs_up_once_whatever_its_case(api):
    signed_up(api)
    answer = APIClient().post("/api/v1/accounts/", GOOD | {"email": "ADA@example.ORG"})
    assert (answer.status_code, answer.data["code"]) == (409, "email_taken")


def test_two_parties_of_one_name_and_a_reserved_name_get_slugs_of_their_own(api):
    signed_up(api)
    other = signed_up(APIClient(), email="b@example.org")["party"]["slug"]
    assert other.startswith("ada-lovelace-")
    slug = signed_up(APIClient(), email="c@example.org", name="SuperDAO")["party"]["slug"]
    assert slug != "superdao"


def test_sign_up_is_slowed_down_where_there_is_no_faucet(api, settings):
    settings.FAUCET = False
    answers = [api.post("/api/v1/accounts/", {}).status_code for _ in range(21)]
    assert answers == [400] * 20 + [429]


def test_a_header_that_anybody_may_send_does_not_make_another_address(api, settings):
    settings.FAUCET = False
    answers = [
        api.post("/api/v1/accounts/", {}, HTTP_X_FORWARDED_FOR=f"10.0.0.{number}").status_code
        for number in range(21)
    ]
    assert answers == [400] * 20 + [429]


def test_a_retry_makes_no_second_key_and_its_secret_is_kept_nowhere(api):
    signed_up(api)
    once = {"HTTP_IDEMPOTENCY_KEY": "laptop-1"}
    first = api.post("/api/v1/keys/", {"label": "laptop"}, **once).data
    again = api.post("/api/v1/keys/", {"label": "laptop"}, **once).data
    assert again["id"] == first["id"] and again["api_key"] != first["api_key"]
    assert ApiKey.objects.filter(label="laptop").count() == 1
    assert not IdempotentCall.objects.exists()
    for key, status in ((first["api_key"], 401), (again["api_key"], 200)):
        bearer = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
        assert APIClient().get("/api/v1/me/", **bearer).status_code == status
    other = api.post("/api/v1/keys/", {"label": "phone"}, **once)
    assert (other.status_code, other.data["code"]) == (409, "idempotency_conflict")
    api.delete(f"/api/v1/keys/{first['id']}/")
    assert api.post("/api/v1/keys/", {"label": "laptop"}, **once).status_code == 409
    assert api.post("/api/v1/keys/", {"label": "laptop"}).status_code == 201


def test_keys_are_listed_without_themselves_made_and_revoked(api):
    signed_up(api)
    new = api.post("/api/v1/keys/", {"label": "laptop"}).data
    assert [k["label"] for k in api.get("/api/v1/keys/").data["results"]] == ["laptop", "sign-up"]
    assert new["api_key"] not in str(api.get("/api/v1/keys/").content)
    laptop = APIClient()
    laptop.credentials(HTTP_AUTHORIZATION=f"Bearer {new['api_key']}")
    assert laptop.get("/api/v1/me/").status_code == 200
    assert api.delete(f"/api/v1/keys/{new['id']}/").status_code == 204
    refused = laptop.get("/api/v1/me/")
    assert (refused.status_code, refused.data["code"]) == (401, "bad_api_key")
    assert api.delete(f"/api/v1/keys/{new['id']}/").status_code == 404


def test_another_partys_key_cannot_be_revoked(api):
    signed_up(api)
    other = APIClient()
    signed_up(other, email="b@example.org")
    key_id = api.get("/api/v1/keys/").data["results"][0]["id"]
    assert other.delete(f"/api/v1/keys/{key_id}/").status_code == 404


@pytest.mark.parametrize("header", ["Bearer flai_nope", "Bearer x", "Bearer", "Bearer \u00e9"])
def test_a_bad_key_is_refused_even_for_public_reads(api, header):
    api.credentials(HTTP_AUTHORIZATION=header)
    assert api.get("/api/v1/parties/superdao/").status_code == 401


def test_without_credentials_private_reads_ask_for_them(api):
    answer = api.get("/api/v1/me/")
    assert (answer.status_code, answer.data["code"]) == (401, "not_authenticated")
    assert answer["WWW-Authenticate"].startswith("Bearer")


def test_a_signing_key_is_bound_by_its_own_signature(api):
    pid = signed_up(api)["party"]["pid"]
    key = Ed25519PrivateKey.generate()

    def bind(client, pid_, key_=key, signed=None):
        public = wire.public_hex(key_)
        signature = wire.sign(key_, KEY_DOMAIN, {"pid": pid_, "public_key": public})
        body = {"public_key": public, "signature": signature, "signed": signed}
        return client.put("/api/v1/me/signing-key/", body, format="json")

    assert bind(api, "0" * 32).data["code"] == "bad_signature"
    assert bind(api, pid).data == {"public_key": wire.public_hex(key)}
    assert bind(api, pid).status_code == 200 and PartyKey.objects.count() == 1
    assert api.get("/api/v1/me/").data["party"]["public_key"] == wire.public_hex(key)
    assert LogLeaf.objects.filter(type="accounts.key_bound").count() == 1

    other = APIClient()
    other_pid = signed_up(other, email="b@example.org")["party"]["pid"]
    assert bind(other, other_pid).data["code"] == "key_taken"

    second = Ed25519PrivateKey.generate()
    refused = bind(api, pid, second)  # the API key alone changes no key
    assert (refused.status_code, refused.data["code"]) == (403, "signature_required")
    fields = {
        "key": wire.public_hex(key),
        "nonce": 1,
        "expires_at": unix_ms(now()) + 60_000,
    }
    change = consent.key_payload(purpose="agent", public_key=wire.public_hex(second))
    said = consent.message(pid=pid, kind=consent.BIND, payload=change, **fields)
    signed = fields | {"signature": wire.sign(key, consent.ACTION_DOMAIN, said)}
    assert bind(api, pid, second, signed).status_code == 200
    assert list(PartyKey.objects.filter(active=True).values_list("public_key", flat=True)) == [
        wire.public_hex(second)
    ]
    assert Party.objects.get(pid=pid).signing_key == wire.public_hex(second)


def test_a_browser_session_acts_for_its_party_but_needs_the_csrf_token(api):
    signed_up(api)
    browser = APIClient(enforce_csrf_checks=True)
    assert browser.login(username="ADA@example.org", password=GOOD["password"])
    assert browser.get("/api/v1/me/").data["party"]["slug"] == "ada-lovelace"
    answer = browser.post("/api/v1/keys/", {"label": "x"})
    assert (answer.status_code, answer.data["code"]) == (403, "permission_denied")


def test_the_systems_own_parties_are_there():
    assert [system_party(c).kind for c in ("protocol", "faucet", "superdao")] == [
        "system",
        "system",
        "dao",
    ]
    with pytest.raises(KeyError):
        system_party("ada-lovelace")


def bearer(key: str) -> APIClient:
    return APIClient(headers={"Authorization": f"Bearer {key}"})


def test_a_key_writes_within_its_scopes_and_reads_within_them(api):
    signed_up(api)
    buyer = api.post("/api/v1/keys/", {"label": "shop", "scopes": ["inferences"]}).data
    assert buyer["scopes"] == ["inferences"]
    shop = bearer(buyer["api_key"])
    assert shop.get("/api/v1/me/").status_code == 200
    assert shop.get("/api/v1/inferences/").status_code == 200
    trainer = bearer(api.post("/api/v1/keys/", {"scopes": ["training"]}).data["api_key"])
    for shown in ("listings/", "listing-facets/"):  # as to a stranger
        assert trainer.get(f"/api/v1/{shown}").status_code == 200
    assert trainer.get("/api/v1/listings/none/").status_code == 404
    money = {"asset": "USDC", "amount_micro": "5"}
    for answer in (
        shop.get("/api/v1/wallet/"),
        shop.post("/api/v1/wallet/faucet/", money, headers={"Idempotency-Key": "f"}),
        shop.post("/api/v1/keys/", {}),
        shop.delete(f"/api/v1/keys/{buyer['id']}/"),
    ):
        assert (answer.status_code, answer.data["code"]) == (403, "wrong_scope")
    reader = bearer(api.post("/api/v1/keys/", {"scopes": ["read"]}).data["api_key"])
    assert reader.get("/api/v1/wallet/").status_code == 200
    assert reader.post("/api/v1/wallet/faucet/", money).status_code == 403


def test_a_key_hands_on_no_more_than_it_has(api):
    signed_up(api)
    narrow = api.post("/api/v1/keys/", {"scopes": ["account", "read"]}).data
    wide = [row for row in api.get("/api/v1/keys/").data["results"] if row["label"] == "sign-up"]
    by = bearer(narrow["api_key"])
    assert by.post("/api/v1/keys/", {"scopes": ["read"]}).status_code == 201
    for answer in (
        by.post("/api/v1/keys/", {"scopes": ["read", "wallet"]}),
        by.post("/api/v1/keys/", {}),
        by.post(f"/api/v1/keys/{wide[0]['id']}/rotate/"),
    ):
        assert (answer.status_code, answer.data["code"]) == (403, "scope_not_yours")
    for scopes in (["everything"], []):
        assert by.post("/api/v1/keys/", {"scopes": scopes}).status_code == 400


def test_an_expired_key_is_refused_and_its_children_expire_with_it(api):
    signed_up(api)
    soon = now() + timedelta(hours=1)
    key = api.post("/api/v1/keys/", {"expires_at": soon.isoformat()}).data
    child = bearer(key["api_key"]).post("/api/v1/keys/", {}).data
    assert child["expires_at"] == key["expires_at"] is not None
    by, lasting = bearer(key["api_key"]), ApiKey.objects.get(label="sign-up")
    renewed = by.post(f"/api/v1/keys/{lasting.id}/rotate/")
    assert (renewed.status_code, renewed.data["code"]) == (403, "expiring_key")
    assert by.post(f"/api/v1/keys/{child['id']}/rotate/").status_code == 200
    again = {"Idempotency-Key": "lost"}
    assert api.post("/api/v1/keys/", {}, headers=again).status_code == 201
    assert by.post("/api/v1/keys/", {}, headers=again).data["code"] == "idempotency_conflict"
    ApiKey.objects.filter(id=key["id"]).update(expires_at=now())
    answer = bearer(key["api_key"]).get("/api/v1/me/")
    assert (answer.status_code, answer.data["code"]) == (401, "api_key_expired")
    past = api.post("/api/v1/keys/", {"expires_at": now().isoformat()})
    assert (past.status_code, past.data["code"]) == (400, "bad_expiry")


def test_a_rotated_key_works_on_under_its_old_secret_for_the_overlap_only(api):
    signed_up(api)
    old = api.post("/api/v1/keys/", {"label": "laptop"}).data
    url = f"/api/v1/keys/{old['id']}/rotate/"
    new = api.post(url, {"overlap_s": 60}).data
    assert new["id"] == old["id"] and new["previous_until"] is not None
    assert [bearer(k["api_key"]).get("/api/v1/me/").status_code for k in (old, new)] == [200, 200]
    ApiKey.objects.filter(id=old["id"]).update(previous_until=now())
    assert bearer(old["api_key"]).get("/api/v1/me/").status_code == 401
    newest = api.post(url).data
    assert [bearer(k["api_key"]).get("/api/v1/me/").status_code for k in (new, newest)] == [
        401,
        200,
    ]
    api.delete(f"/api/v1/keys/{old['id']}/")
    assert bearer(newest["api_key"]).get("/api/v1/me/").status_code == 401


def test_a_keys_last_use_is_known_to_the_minute(api):
    signed_up(api)
    key = api.post("/api/v1/keys/", {}).data
    assert key["last_used_at"] is None
    bearer(key["api_key"]).get("/api/v1/me/")
    first = ApiKey.objects.get(id=key["id"]).last_used_at
    bearer(key["api_key"]).get("/api/v1/me/")
    assert first is not None and ApiKey.objects.get(id=key["id"]).last_used_at == first


def test_each_key_has_its_own_rate_and_every_answer_says_it(api, settings):
    settings.RATE_PER_MINUTE = 3
    signed_up(api)
    other = bearer(api.post("/api/v1/keys/", {}).data["api_key"])
    answers = [other.get("/api/v1/me/") for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a["RateLimit-Remaining"] for a in answers] == ["2", "1", "0", "0"]
    assert {a["RateLimit-Limit"] for a in answers} == {"3"}
    assert answers[0]["RateLimit-Policy"] == "3;w=60"
    assert 0 < int(answers[3]["Retry-After"]) <= 60
    assert answers[3]["Content-Type"] == "application/problem+json"
    assert api.get("/api/v1/me/").status_code == 200


def test_every_view_says_which_scope_it_needs():
    """An app that nobody listed would ask for the widest scope, silently."""
    apps = {type_.__module__.split(".")[1] for type_ in views()}
    assert apps <= set(SCOPE_OF_APP) and set(SCOPE_OF_APP.values()) <= set(SCOPES)


def views() -> set[type]:
    found = set()
    for pattern in get_resolver().url_patterns:
        for inner in getattr(pattern, "url_patterns", ()):
            view = getattr(inner.callback, "cls", None) if hasattr(inner, "callback") else None
            if view is not None:
                found.add(view)
    return found
