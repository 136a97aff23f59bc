"""What a buyer signs of what it is quoted, and when it asks for another quote. Nothing is sealed
here: the query is its price."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from workers.client import buyer
from workers.client.api import Api, ClientError
from workers.client.buyer import Buyer
from workers.client.home import Home
from workers.client.questions import check_ranges
from workers.client.tables import predict_table

PRICE = 1_000
TIERS = [{"from_rows": 10, "off_bps": 500, "price_micro": "950"}]


class Site:
    """Answers with the quotes and then with the refusals that it is given, one after the other."""

    def __init__(
        self,
        *quotes: int,
        refusals: tuple[str, ...] = (),
        paid_from: str = "balance",
        later: dict[str, Any] | None = None,
        **listing: Any,
    ) -> None:
        self.quotes, self.refusals, self.later = list(quotes), list(refusals), later or {}
        self.paid_from = paid_from
        about = {"price_micro": str(PRICE), "nodes": [], "features": [{"name": "dose"}]}
        self.listing = about | listing
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/quote/"):
            price = self.quotes.pop(0)
            said = {"price_micro": str(price), "quote": f"at {price}", "paid_from": self.paid_from}
            return httpx.Response(200, json=said)
        if request.method == "GET":
            return httpx.Response(200, json=self.listing)
        self.asked.append(json.loads(request.content))
        if self.refusals:
            self.listing |= self.later
            refusal = {"code": self.refusals.pop(0), "detail": "No. Nothing was charged."}
            return httpx.Response(409, json=refusal)
        return httpx.Response(202, json={"id": "q", "state": "settled"})


@pytest.fixture
def buy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, Any]]]:
    """`buy(site, rows=…)`: the price of the ticket and the quote of each request that was sent."""

    def make_query(self: Buyer, rows: Any, *, price_micro: int) -> Any:
        return {"ticket": {"price_micro": str(price_micro)}}, X25519PrivateKey.generate()

    monkeypatch.setattr(Buyer, "make_query", make_query)
    monkeypatch.setattr(Buyer, "_open", lambda *_: None)
    monkeypatch.setattr(buyer, "trusted_nodes", lambda *_: [])

    def buy(site: Site, *, rows: int = 3, key: str | None = None, **most: int) -> Any:
        api = Api("http://flai", transport=httpx.MockTransport(site))
        made = Buyer(Home(tmp_path), "model", api=api, **most)
        made.predict([[0.0]] * rows, idempotency_key=key)
        return [(a["input"]["ticket"]["price_micro"], a.get("quote")) for a in site.asked]

    return buy


def test_no_quote_above_the_known_price_is_signed(buy: Any) -> None:
    assert buy(Site(2_950, tiers=TIERS)) == [("2950", "at 2950")]
    assert buy(Site(3_000, tiers=TIERS)) == [("3000", "at 3000")]
    for dear in (3_001, 300_000):
        site = Site(dear, tiers=TIERS)
        with pytest.raises(ClientError, match="Nothing was sent") as caught:
            buy(site)
        assert caught.value.code == "price_changed" and site.asked == []
    assert buy(Site(3_300, tiers=TIERS), max_row_micro=1_100) == [("3300", "at 3300")]
    with pytest.raises(ClientError, match="more than the 999 a row"):
        buy(Site(), max_row_micro=999)


@pytest.mark.parametrize("code", ["plan_covers", "plan_changed", "quota_used_up"])
@pytest.mark.parametrize("key", [None, "visit-1"])
def test_when_what_pays_has_changed_a_new_quote_is_asked_for_once(
    buy: Any, key: str | None, code: str
) -> None:
    first, again = ("2700", "at 2700"), ("3000", "at 3000")
    site = Site(2_700, 3_000, tiers=TIERS, refusals=(code,))
    assert buy(site, key=key) == [first, again]
    # A listing without any: its plan runs although its offer is gone.
    site = Site(2_700, refusals=(code,))
    assert buy(site, rows=3, key=key and "visit-2") == [("3000", None), first]
    site = Site(2_700, 3_000, tiers=TIERS, refusals=(code, code))
    with pytest.raises(ClientError, match="Nothing was charged"):
        buy(site, key=key and "visit-3")
    assert len(site.asked) == 2


def test_a_server_that_says_plan_is_held_to_the_known_price_too(buy: Any) -> None:
    """A plan's rows may be dearer, where the price has fallen since: by a limit that is named."""
    dear = {"paid_from": "plan", "plans": [{"name": "pro"}]}
    for most in ({}, {"max_row_micro": PRICE}):
        site = Site(3_300, **dear)
        with pytest.raises(ClientError, match="more than the 1000 a row"):
            buy(site, **most)
        assert site.asked == []
    assert buy(Site(3_300, **dear), max_row_micro=1_100) == [("3300", "at 3300")]


@pytest.mark.parametrize("code", ["ticket_mismatch", "price_changed"])
def test_a_listing_that_has_changed_is_read_once_more(buy: Any, code: str) -> None:
    cheaper = Site(refusals=(code,), later={"price_micro": "900"})
    assert buy(cheaper) == [("3000", None), ("2700", None)]
    for later, refused in (
        ({"price_micro": "1100"}, "price_changed"),
        ({"features": [{"name": "age"}]}, "listing_changed"),
    ):
        site = Site(refusals=(code,), later=later)
        with pytest.raises(ClientError) as caught:
            buy(site)
        assert caught.value.code == refused and len(site.asked) == 1
        assert "Nothing was" in caught.value.text and "idempotency" not in caught.value.text
    site = Site(refusals=(code, code), later={"price_micro": "900"})
    with pytest.raises(ClientError, match="Nothing was charged"):
        buy(site)
    assert len(site.asked) == 2


def test_what_no_patient_has_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """As the page does: a slip of the pen would be paid, and its answer believed."""
    features = [{"name": "age", "min": "0", "max": "120"}, {"name": "gain", "min": "-5"}]
    site = Site(features=features, rows_per_query=2)
    made = Buyer(
        Home(tmp_path), "model", api=Api("http://flai", transport=httpx.MockTransport(site))
    )
    for rows, said in (
        ([[50, 0], [300, 0]], "Row 2, column “age”: 300 is out of range, it must be at most 120"),
        ([[0, -5.5]], "Row 1, column “gain”: -5.5 is out of range, it must be at least -5"),
    ):
        for ask in (made.predict, lambda rows: predict_table(made, rows)):
            with pytest.raises(ClientError, match=said):
                ask(rows)
    assert site.asked == [] and made.home.kept_queries() == {}
    check_ranges(np.array([[0, -5], [120, 1e9]]), features)


def test_rows_that_are_used_up_for_the_day_are_not_waited_for() -> None:
    """A refusal that holds for hours is told at once; one of a moment is tried again."""
    asked: list[str] = []

    def site(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        body = {"code": "buyer_rows_used_up", "detail": "3 are left until midnight."}
        later = "121" if request.url.path.endswith("day") else "0"
        return httpx.Response(429, json=body, headers={"Retry-After": later})

    api = Api("http://site", "key", transport=httpx.MockTransport(site))
    for path, times in (("day", 1), ("moment", 4)):
        asked.clear()
        with pytest.raises(ClientError, match="3 are left until midnight") as told:
            api.get(path)
        assert (told.value.code, len(asked)) == ("buyer_rows_used_up", times)
    assert buyer._refused(told.value)
