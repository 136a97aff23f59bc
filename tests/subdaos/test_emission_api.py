"""Emission and conversion by API and page: what was looked at is what is done."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import Party
from apps.accounts.services import api_key_create, sign_up
from apps.core.transactions import durable
from apps.subdaos import selectors, services
from apps.subdaos.models import Conversion, Dao, Sponsor
from tests.governance.helpers import MICRO, at, balance, founded
from tests.subdaos.test_emission import close_epoch

pytestmark = pytest.mark.django_db


@pytest.fixture
def dao() -> Dao:
    return founded()[0]


@pytest.fixture
def ada(dao: Dao) -> tuple[Party, Client, dict[str, str]]:
    """A member with one point, a page and an API key."""
    user, party = sign_up(
        email="ada@example.org", password="a long pass phrase 7", name="Ada", kind="person"
    )
    with durable():
        services.sbgt_mint(
            dao=dao, party=party, points_micro=MICRO, reason="commitment", now=at(21)
        )
    _, key = api_key_create(user=user, party=party)
    page = Client()
    page.force_login(user)
    return party, page, {"Authorization": f"Bearer {key}"}


def url(dao: Dao, path: str) -> str:
    return f"/api/v1/subdaos/{dao.slug}/{path}"


def post(dao: Dao, body: dict[str, Any], headers: dict[str, str], once: str = "a") -> Any:
    return Client().post(
        url(dao, "conversions/"),
        body,
        content_type="application/json",
        headers=headers | {"Idempotency-Key": once},
    )


def test_by_api_a_preview_then_the_conversion_once(dao: Dao, ada: Any) -> None:
    party, _, headers = ada
    get = Client().get
    asked = {"points_micro": "200000"}
    preview = url(dao, "conversions/preview/")
    assert get(preview, asked, headers=headers).json()["code"] == "nothing_released"
    close_epoch(dao, 40)
    told = get(url(dao, "emission/"), headers=headers).json()
    assert told["my"] == {
        "points_micro": "1000000",
        "convertible_micro": "250000",
        "sponsor_due_micro": "0",
    }
    assert get(url(dao, "emission/")).json()["my"] is None
    seen = get(preview, asked, headers=headers).json()
    assert (seen["points_after_micro"], seen["all_points_micro"]) == ("800000", "5000000")
    body = asked | {"tokens_min_micro": seen["tokens_micro"]}
    first, again = (post(dao, body, headers) for _ in range(2))
    assert (first.status_code, again.json()) == (201, first.json())
    assert first.json()["tokens_micro"] == seen["tokens_micro"]
    assert balance(party, dao.asset.code) == int(seen["tokens_micro"])
    assert Conversion.objects.count() == 1


@pytest.mark.parametrize("points", ["", "0", "-1", "1.5", "x", str(2**63), "٣"])
def test_nonsense_is_refused_with_a_reason(dao: Dao, ada: Any, points: str) -> None:
    close_epoch(dao, 40)
    _, _, headers = ada
    asked = {"points_micro": points}
    seen = Client().get(url(dao, "conversions/preview/"), asked, headers=headers)
    made = post(dao, asked | {"tokens_min_micro": "0"}, headers)
    assert (seen.status_code, made.status_code) == (400, 400)
    assert not Conversion.objects.exists()


def test_the_superdao_and_strangers_have_nothing_to_convert(dao: Dao, ada: Any) -> None:
    assert Client().get("/api/v1/subdaos/superdao/emission/").status_code == 404
    assert post(dao, {"points_micro": "1", "tokens_min_micro": "0"}, {}).status_code == 401


def test_a_sponsor_takes_its_part_by_api_and_page(dao: Dao, ada: Any) -> None:
    party, page, headers = ada
    Sponsor.objects.update(pledged_micro=1)
    Sponsor.objects.create(dao=dao, party=party, pledged_micro=1)
    part = close_epoch(dao, 40).sponsors_micro // 2
    take = {"path": url(dao, "sponsorship/"), "headers": headers}
    assert Client().post(**take).json()["amount_micro"] == str(part)
    refused = Client().post(**take)
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_due")
    more = close_epoch(dao, 50).sponsors_micro // 2
    here = f"/tokens/{dao.asset.code}/convert/"
    assert "Your part as a sponsor" in page.get(here).content.decode()
    page.post(f"/tokens/{dao.asset.code}/sponsor/")
    assert part + more <= balance(party, dao.asset.code) <= part + more + 1


def test_on_the_page_nothing_moves_before_its_preview_was_confirmed(dao: Dao, ada: Any) -> None:
    party, page, _ = ada
    close_epoch(dao, 40)
    here = f"/tokens/{dao.asset.code}/convert/"
    assert "Preview the conversion" in page.get(here).content.decode()
    for wrong in ("0", "-1", "x", "0.3"):
        shown = page.get(here, {"points": wrong}).content.decode()
        assert "tokens_min_micro" not in shown
    seen = page.get(here, {"points": "0.2"}).content.decode()
    assert "Check the conversion" in seen and "20 % → 16.66 %" in seen
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', seen))
    page.post(here, {"points": "0.2"})  # without what the preview showed
    assert selectors.points_now(dao, party) == MICRO
    done = page.post(here, fields, follow=True).content.decode()
    assert "You gave up 0.2 points for" in done
    assert selectors.points_now(dao, party) == 800_000
    page.post(here, fields)  # a second click
    assert Conversion.objects.count() == 1
    assert page.get("/tokens/SDT-no-such/convert/").status_code == 404
    assert page.get("/tokens/FLAI/convert/").status_code == 404


def test_the_tokens_page_draws_what_was_and_what_is_to_come(dao: Dao) -> None:
    address = f"/tokens/{dao.asset.code}/"
    assert "Next release" in Client().get(address).content.decode()
    for n in range(3):
        close_epoch(dao, 40 + n)
    shown = Client().get(address).content.decode()
    assert "Released from the reserve" in shown and 'class="line ahead"' in shown
    assert shown.count("expected") == 24
