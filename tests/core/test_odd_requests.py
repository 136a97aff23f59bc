"""Whatever is asked, the API answers in problem details, and the pages in pages."""

from __future__ import annotations

import base64
import uuid

import psycopg
import pytest
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient

from apps.accounts import selectors
from tests.explorer import world as worlds
from tests.governance.helpers import SPEC
from tests.rfms.test_api import Member

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "path",
    [
        "proposals/?dao=%00",
        "proposals/?kind=%00",
        "proposals/?kind=a\0b",
        "rfms/?status=%00",
        "rfms/%00/",
        "parties/%00/",
        "jobs/%00/",
        "log/inclusion/?ref=x:%00",
        f"rounds/{uuid.UUID(int=0)}/shares/%00/",
    ],
)
def test_a_nul_in_an_address_is_a_bad_request(path) -> None:
    answer = Client(raise_request_exception=False).get(f"/api/v1/{path}")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["code"] == "bad_input" and "Content-Security-Policy" in answer.headers


def test_a_nul_in_a_pages_address_is_a_page() -> None:
    answer = Client(raise_request_exception=False).get("/models/?page=%00")
    assert answer.status_code == 400
    assert "could not be understood" in answer.content.decode()


def test_a_nul_in_a_json_value_is_a_bad_request() -> None:
    who = Member("author")
    for body in (
        {"title": "x", "spec": {**SPEC, "objective": "a\0b"}},
        {"title": "x\0", "spec": SPEC},
        {"title": "x", "spec": {**SPEC, "label": {"name": "a\0b"}}},
    ):
        answer = who.client.post("/api/v1/rfms/", body)
        assert answer.status_code in (400, 422), answer.content
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.django_db(transaction=True)
def test_who_waits_too_long_for_a_lock_is_told_to_ask_again_and_can() -> None:
    made = {"email": "late@example.org", "password": "correct horse 9", "name": "Late"}
    made["kind"] = "person"
    client = Client(raise_request_exception=False)
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("LOCK TABLE accounts_party IN EXCLUSIVE MODE")
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '20ms'")
        answer = client.post("/api/v1/accounts/", made, content_type="application/json")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert answer.json()["code"] == "busy" and answer["Retry-After"] == "1"
    again = client.post("/api/v1/accounts/", made, content_type="application/json")
    assert again.status_code == 201
    connection.close()  # and its lock_timeout


def test_a_fault_that_nobody_foresaw_is_told_without_its_text(monkeypatch) -> None:
    def broken(slug: str) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(selectors, "party_by_slug", broken)
    answer = APIClient(raise_request_exception=False).get("/api/v1/parties/ada/")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    told = answer.json()
    assert (told["status"], told["code"]) == (500, "internal_error")
    assert b"secret" not in answer.content and b"RuntimeError" not in answer.content


def test_an_unknown_api_address_is_told_in_problem_details() -> None:
    answer = Client().get("/api/v1/nothing/here/")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("rfms/", {"title": 5, "spec": {}}, "title: Give a string."),
        ("rfms/", {"title": True, "spec": {}}, "title: Give a string."),
        ("keys/", {"scopes": [1]}, "scopes: Give a string."),
        ("payouts/", {"auto": "yes"}, "auto: Give true or false."),
        ("wallet/stakes/", {"asset": "FLAI", "amount_micro": "1", "lock_s": "60"}, "lock_s: Give"),
        ("wallet/stakes/", {"asset": "FLAI", "amount_micro": "1", "lock_s": True}, "lock_s: Give"),
        ("rfms/", ["title"], "Invalid data"),
    ],
)
def test_one_type_of_json_is_not_taken_for_another(path, body, said) -> None:
    client = Member("author").client
    ask = client.put if path == "payouts/" else client.post
    answer = ask(f"/api/v1/{path}", body, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), answer.content
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "1.5", "²", "", "9" * 5000])
def test_a_limit_that_is_none_is_refused(limit) -> None:
    answer = Client().get("/api/v1/rfms/", {"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_limit")


@pytest.mark.parametrize("path", ["rfms/", "log/heads/", "listings/?sort=cheapest"])
@pytest.mark.parametrize("place", ["p=x", "p=99999999999999999999999", "p=%00", "p=2026"])
def test_a_cursor_that_leads_nowhere_is_told_so(path, place) -> None:
    cursor = base64.b64encode(place.encode()).decode()
    join = "&" if "?" in path else "?"
    answer = Client(raise_request_exception=False).get(f"/api/v1/{path}{join}cursor={cursor}")
    assert answer.status_code in (200, 400, 404), answer.content
    if answer.status_code != 200:
        assert answer["Content-Type"] == "application/problem+json"


def test_a_history_that_ends_before_it_starts_is_refused() -> None:
    code = worlds.build().dao.asset.code
    for query in (
        "start=2026-02-01T00:00:00Z&end=2026-01-01T00:00:00Z",
        "start=2100-01-01T00:00:00Z",
    ):
        answer = Client().get(f"/api/v1/pools/{code}/history/?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_period")
