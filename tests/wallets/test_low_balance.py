"""A low balance is told of once each time it falls below the party's own threshold."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import close_old_connections, connection, transaction
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Party
from apps.accounts.services import sign_up
from apps.core import clock
from apps.notify.models import Delivery, Endpoint
from apps.wallets.low_balance import balances_watch, settings_of, settings_set
from apps.wallets.models import PaymentSettings
from apps.wallets.services import faucet, send

pytestmark = pytest.mark.django_db
MICRO = 1_000_000


@pytest.fixture
def ada() -> tuple[Party, Client]:
    user, party = sign_up(
        email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
    )
    hook = Endpoint(party=party, url="https://example.org/", events=["balance.low"])
    hook.save()
    faucet(party=party, asset="USDC", amount_micro=20 * MICRO)
    page = Client()
    page.force_login(user)
    return party, page


@pytest.fixture
def bob() -> Party:
    return sign_up(
        email="bob@example.org", password="a long pass phrase 7", name="Bob", kind="person"
    )[1]


def warned(party: Party, low: int | None) -> None:
    settings_set(party=party, low_micro=low, billing="", now=clock.now())


def pay(party: Party, to: Party, micro: int) -> None:
    send(party=party, to=to, asset="USDC", amount_micro=micro)


def calls() -> Iterator[dict[str, Any]]:
    for row in Delivery.objects.order_by("created_at"):
        yield json.loads(row.body)["data"]


def watch() -> int:
    return balances_watch(now=clock.now())


def test_each_crossing_is_told_once(ada: Any, bob: Party) -> None:
    party, _ = ada
    assert watch() == 0  # nobody has asked
    warned(party, 10 * MICRO)
    assert watch() == 0
    pay(party, bob, 10 * MICRO)
    assert watch() == 0  # exactly the threshold is not below it
    pay(party, bob, 1)
    assert (watch(), watch()) == (1, 0)
    assert settings_of(party).low_since is not None
    pay(party, bob, MICRO)
    assert watch() == 0  # lower still is no other crossing
    pay(bob, party, 5 * MICRO)
    assert watch() == 0 and settings_of(party).low_since is None
    pay(party, bob, 5 * MICRO)
    assert watch() == 1
    assert [c["available_micro"] for c in calls()] == ["9999999", "8999999"]
    assert {c["threshold_micro"] for c in calls()} == {str(10 * MICRO)}


def test_a_new_threshold_above_the_balance_is_a_crossing_and_none_is_silence(ada: Any) -> None:
    party, _ = ada
    warned(party, 30 * MICRO)
    assert (watch(), watch()) == (1, 0)
    warned(party, 30 * MICRO)
    assert watch() == 0  # the same again is no news
    warned(party, 25 * MICRO)
    assert watch() == 1
    warned(party, None)
    assert watch() == 0 and settings_of(party).low_since is None


def test_who_has_no_account_has_nothing(bob: Party) -> None:
    warned(bob, 1)
    assert watch() == 1


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_tell_once(ada: Any) -> None:
    party, _ = ada
    warned(party, 30 * MICRO)
    told: list[int] = []
    barrier = threading.Barrier(4)

    def sweep() -> None:
        try:
            barrier.wait(timeout=60)
            told.append(watch())
        finally:
            close_old_connections()

    threads = [threading.Thread(target=sweep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == [0, 0, 0, 1]
    assert Delivery.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("low", [10 * MICRO, None])
def test_a_threshold_set_during_a_sweep_is_not_judged_by_the_one_before(
    ada: Any, low: int | None
) -> None:
    party, _ = ada
    warned(party, 30 * MICRO)
    told: list[int] = []

    def sweep() -> None:
        try:
            told.append(watch())
        finally:
            close_old_connections()

    thread = threading.Thread(target=sweep)
    with transaction.atomic(), connection.cursor() as cursor:
        PaymentSettings.objects.filter(party=party).update(low_micro=low)
        thread.start()
        for _ in range(500):  # until the sweep waits for this very row
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                break
            time.sleep(0.02)
        else:
            pytest.fail("the sweep did not wait")
    thread.join()
    assert told == [0] and settings_of(party).low_since is None
    assert watch() == 0 and not Delivery.objects.exists()


def test_it_is_set_in_the_wallet_and_by_the_api_and_shown_on_the_dashboard(ada: Any) -> None:
    party, page = ada
    for wrong in ("x", "0", "-1"):
        page.post(reverse("explorer:low-balance"), {"low": wrong})
        assert settings_of(party).low_micro is None
    page.post(reverse("explorer:low-balance"), {"low": "25"})
    assert settings_of(party).low_micro == 25 * MICRO
    assert "warned below" in page.get(reverse("explorer:wallet")).content.decode()
    needs = page.get(reverse("explorer:dashboard")).context["needs"]
    assert [n.why for n in needs] == ["You want to be warned below $25.00"]
    url, kind = "/api/v1/wallet/settings/", "application/json"
    assert page.get(url).json() == {"low_micro": "25000000", "billing": "", "low_since": None}
    said = {"low_micro": "15000000", "billing": " Ada & Co\n1 Road "}
    assert page.put(url, said, content_type=kind).json()["billing"] == "Ada & Co\n1 Road"
    assert page.get(reverse("explorer:dashboard")).context["needs"] == []
    page.post(reverse("explorer:low-balance"), {"low": ""})
    kept = settings_of(party)
    assert (kept.low_micro, kept.billing) == (None, "Ada & Co\n1 Road")
    for wrong in ({"low_micro": "0"}, {"low_micro": "x"}, {}):
        assert page.put(url, wrong, content_type=kind).status_code == 400
