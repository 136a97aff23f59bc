"""Passwords can't be guessed by trying, nor accounts made without end."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from apps.accounts import services
from apps.accounts.models import User

EMAIL, PASSWORD = "ada@example.org", "long enough to keep"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ada() -> None:
    cache.clear()
    services.sign_up(email=EMAIL, password=PASSWORD, name="Ada", kind="person")


def attempt(password: str, *, email: str = EMAIL, address: str = "192.0.2.1") -> bool:
    """Whether these credentials sign in."""
    where = reverse("explorer:sign-in")
    form = {"username": email, "password": password}
    return Client(REMOTE_ADDR=address).post(where, form).status_code == 302


def test_after_ten_wrong_passwords_not_even_the_right_one_is_tried() -> None:
    assert attempt(PASSWORD)
    assert not any(attempt(f"guess {number}") for number in range(10))
    assert not attempt(PASSWORD)
    assert not attempt(PASSWORD, email=EMAIL.upper())


def test_nobody_can_lock_somebody_elses_account() -> None:
    assert not any(attempt(f"guess {number}") for number in range(10))
    assert attempt(PASSWORD, address="192.0.2.2")


def test_the_right_password_is_not_counted() -> None:
    assert all(attempt(PASSWORD) for _ in range(12))


def test_the_page_and_the_api_count_sign_ups_together(settings) -> None:
    settings.FAUCET = False
    client, json = Client(REMOTE_ADDR="192.0.2.7"), "application/json"
    page, api = reverse("explorer:sign-up"), "/api/v1/accounts/"
    form = {"email": "eve@example.org", "password": PASSWORD, "name": "Eve", "kind": "person"}
    for _ in range(10):
        assert client.post(page, {}).status_code == 422
        assert client.post(api, {}, json).status_code == 400
    refused = client.post(page, form)
    assert refused.status_code == 429
    assert "Too many accounts" in refused.content.decode()
    assert client.post(api, form, json).status_code == 429
    assert not User.objects.filter(email="eve@example.org").exists()
    assert client.get(page).status_code == 200
    assert Client(REMOTE_ADDR="192.0.2.8").post(page, form).status_code == 302
