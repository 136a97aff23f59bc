"""Claiming by API and by the client, which believes a part only when the log bears it out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client

from apps.accounts.services import api_key_create, sign_up
from apps.core.errors import Conflict
from apps.listings import claims, closing
from apps.wallets import log
from apps.wallets.services import account
from tests.listings.test_closing import AFTER, issue
from tests.support.epochs import frozen, subdao
from tests.wallets.ledger_helpers import at, party
from workers.client import claiming
from workers.client.api import Api, ClientError

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def owed(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Api]:
    """(epoch, a holder whom it owes something, the holder's client), beyond the automatic size."""
    monkeypatch.setattr(closing, "AUTO_MAX", 2)
    user, holder = sign_up(
        email="h@example.org", password="quite-long-1", name="Holder", kind="person"
    )
    _, key = api_key_create(user=user, party=holder, label="test", now=at(0))
    dao = subdao(at(0))
    for who in (holder, *(party(f"other-{i}") for i in range(4))):
        issue(dao, who, 10**6, 10)
    epoch = frozen(dao, starts_at=at(1000), ends_at=at(1060), revenue_micro=10**6)
    closing.carry_on(epoch.id, now=AFTER)
    while log.sequence(now=AFTER):
        pass
    site = Client()

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"HTTP_AUTHORIZATION": request.headers.get("authorization", "")}
        reply = site.generic(
            request.method, request.url.raw_path.decode(), request.content,
            content_type="application/json", **headers,
        )  # fmt: skip
        return httpx.Response(reply.status_code, content=reply.content)

    return epoch, holder, Api("http://testserver", key, transport=httpx.MockTransport(answer))


def test_a_holder_proves_its_part_and_is_paid_once(owed) -> None:
    epoch, holder, api = owed
    assert api.get(f"epochs/{epoch.id}/")["settlement"]["entitled"] == 5
    assert len(list(api.every(f"epochs/{epoch.id}/entitlements/", limit=2))) == 5
    [epoch_id] = claiming.waiting(api)
    [part] = claiming.parts(api, epoch_id)
    assert part.owed.pid == holder.pid and part.waiting
    assert claiming.claim(api, epoch_id) == [part]
    assert account(holder, "USDC").posted_micro == part.owed.amount_micro == 56_000
    assert claiming.claim(api, epoch_id) == [] == list(claiming.waiting(api))
    [row] = api.post(f"epochs/{epoch_id}/claim/")["results"]
    assert row["transfer_id"] and account(holder, "USDC").posted_micro == 56_000


def test_the_wallet_claims_several_epochs_at_once(owed) -> None:
    epoch, holder, _ = owed
    later = AFTER + timedelta(minutes=1)
    second = frozen(epoch.dao, starts_at=at(1060), ends_at=at(1120), revenue_micro=10**6)
    closing.carry_on(second.id, now=later)
    page = Client()
    page.force_login(holder.memberships.get().user)
    [line] = [item for item in page.get("/").context["needs"] if item.action == "Claim"]
    assert (line.title, line.why) == (f"2 epochs of {epoch.dao.name}", "They owe you $0.112")
    wallet = page.get("/wallet/")
    assert "Claim $0.112" in wallet.content.decode()
    form = {"epochs": wallet.context["claimable_epochs"]}
    for _ in range(2):  # again: the same payments
        done = page.post("/wallet/claim/", form, follow=True).content.decode()
        assert "You were paid $0.112." in done and "Claim $" not in done
        assert account(holder, "USDC").posted_micro == 112_000
    for nonsense in ("", "1,2", ",".join([str(epoch.id)] * 99)):
        said = page.post("/wallet/claim/", {"epochs": nonsense}, follow=True).content.decode()
        assert "Nothing was claimed" in said


def test_an_epoch_that_cannot_pay_does_not_hold_up_the_others(owed) -> None:
    epoch, holder, _ = owed
    stranger = frozen(epoch.dao, starts_at=at(1060), ends_at=at(1120), revenue_micro=10**6)
    ids = [stranger.id, epoch.id]  # the newest is not divided yet
    paid, refused = claims.claim_each(epoch_ids=ids, party=holder, now=AFTER)
    assert [t.amount_micro for t in paid] == [56_000]
    assert [error.code for error in refused] == ["epoch_not_divided"]
    with pytest.raises(Conflict, match="epoch_not_divided"):
        claims.claim_each(epoch_ids=ids[:1], party=holder, now=AFTER)


@pytest.mark.parametrize("lie", ["amount", "path", "root"])
def test_a_server_that_shows_another_part_than_the_log_has_is_found(owed, lie: str) -> None:
    epoch, _, api = owed
    real = api.get

    def get(path: str, **params: Any) -> Any:
        said = real(path, **params)
        if path.endswith("/entitlement/"):
            row = said["results"][0]
            if lie == "amount":
                row["amount_micro"] = "57000"
            elif lie == "path":
                row["proof"]["path"][0] = "ab" * 32
        if lie == "root" and path == "log/head/":
            said["root"] = "cd" * 32
        return said

    api.get = get  # type: ignore[method-assign]
    with pytest.raises(ClientError, match="Nothing was claimed"):
        claiming.claim(api, str(epoch.id))


def test_the_choice_to_be_paid_is_kept_and_taken_back(owed) -> None:
    _, _, api = owed
    assert api.get("payouts/")["auto"] is None
    said = api.put("payouts/", {"auto": True})
    assert said["auto"] is True and len(said["claimable"]) == 1
    with pytest.raises(ClientError, match="auto: Give true or false"):
        api.put("payouts/", {"auto": "yes"})
    assert api.put("payouts/", {"auto": None})["auto"] is None


def test_strangers_see_totals_and_claim_nothing(owed) -> None:
    epoch, holder, _ = owed
    site, base = Client(), f"/api/v1/epochs/{epoch.id}/"
    assert site.get(base).status_code == 200
    assert (
        site.get(f"{base}entitlement/?pid={holder.pid}").json()["results"][0]["proof"]["size"] == 5
    )
    assert site.get(f"{base}entitlement/?pid=nobody").status_code == 404
    assert site.post(f"{base}claim/").status_code in (401, 403)
    assert site.get("/api/v1/payouts/").status_code in (401, 403)
