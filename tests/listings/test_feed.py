"""The signed feed: checked page by page, and refused wherever somebody has touched it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.core import clock
from apps.listings import feed as feeds
from apps.listings.models import Listing
from apps.protocol import wire
from apps.protocol.feed import AGE_MS_MAX, FEED_DOMAIN, check_page
from apps.subdaos.models import Dao
from apps.wallets import log
from tests.explorer import world as worlds
from tests.support.snapshots import kept
from workers.client.api import Api, ClientError
from workers.client.cli import main
from workers.client.feed import read_feed

MODELS = 8


@pytest.fixture
def market(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> worlds.World:
    """Eight models, in pages of three."""
    monkeypatch.setattr(feeds, "PAGE_MAX", 3)
    return kept(_market, _market)


def _market() -> worlds.World:
    world = worlds.build()
    worlds.grow(world, MODELS - 1)
    return world


class Site(httpx.BaseTransport):
    """The API without a socket; `touch` may change a page on its way."""

    def __init__(self, touch: Any = None) -> None:
        self.touch, self.asked = touch, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = Client().get(request.url.raw_path.decode())
        content = answer.json()
        if self.touch is not None and "/feed/" in request.url.path:
            self.asked += 1
            content = self.touch(copy.deepcopy(content), self.asked)
        return httpx.Response(answer.status_code, json=content)


def reader(touch: Any = None) -> Api:
    return Api("http://site", transport=Site(touch))


def test_the_whole_feed_is_read_in_one_chain_of_pages(market: worlds.World) -> None:
    Listing.objects.filter(slug=market.listing.slug).update(status="closed")
    feed = read_feed(reader(), key=log.public_key())
    on_sale = Listing.objects.filter(status="open").order_by("slug")
    assert [model["slug"] for model in feed.models] == [row.slug for row in on_sale]
    assert len(feed.models) == MODELS - 1 and feed.pinned
    model = feed.models[0]
    assert model["price_micro"] == "500000" and model["model"] == market.listing.version.model
    assert model["metrics"]["auc"]["milli"] == 971
    assert set(model["metrics"]["auc"]["by_stratum"]) == set(worlds.STRATA)
    assert feed.head.size == log.head_latest().size
    assert not read_feed(reader()).pinned


def test_it_says_of_whom_a_model_asks_for_a_credential(
    market: worlds.World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terms = {"credential": "accredited-hospital", "issuers": ["a1" * 16]}
    params = market.dao.params | {"access": terms}
    Dao.objects.filter(pk=market.dao.pk).update(params=params)
    said = {model["slug"]: model["access"] for model in read_feed(reader()).models}
    assert said.pop(market.listing.slug) == terms and set(said.values()) == {None}
    monkeypatch.setattr("workers.client.cli.Api", lambda url: reader())
    assert main(["feed", "--url", "http://site"]) == 0
    assert "for holders of accredited-hospital" in capsys.readouterr().out
    monkeypatch.setattr(feeds, "_model", _without_access)
    assert main(["feed", "--url", "http://site"]) == 0
    assert "accredited" not in capsys.readouterr().out


def _without_access(row: dict[str, Any], whole: Any = feeds._model) -> dict[str, Any]:
    """As sites told it before."""
    return {name: value for name, value in whole(row).items() if name != "access"}


def test_the_order_is_that_of_code_points_whatever_the_databases_locale(
    market: worlds.World,
) -> None:
    """Most locales ignore a hyphen; a reader compares what is written."""
    first, second, *_ = Listing.objects.order_by("slug")
    for row, slug in ((first, "0b"), (second, "0-c")):
        Listing.objects.filter(pk=row.pk).update(slug=slug)
    with CaptureQueriesContext(connection) as queries:
        slugs = [model["slug"] for model in read_feed(reader(), key=log.public_key()).models]
    assert slugs[:2] == ["0-c", "0b"] and len(slugs) == MODELS
    [*pages] = [q["sql"] for q in queries if 'FROM "listings_listing"' in q["sql"]]
    assert pages and all(sql.count('COLLATE "C"') >= 2 for sql in pages)


OTHER = Ed25519PrivateKey.generate()


def cheaper(served: Any, number: int) -> Any:
    served["page"]["models"][0]["price_micro"] = "1"
    return served


def better(served: Any, number: int) -> Any:
    served["page"]["models"][-1]["metrics"]["auc"]["milli"] += 1
    return served


def left_out(served: Any, number: int) -> Any:
    del served["page"]["models"][1]
    return served


def cut_short(served: Any, number: int) -> Any:
    served["page"]["next"] = None
    return served


def signed_by_another(served: Any, number: int) -> Any:
    served["page"]["log"] = wire.public_hex(OTHER)
    return {
        "page": served["page"],
        "signature": wire.sign(OTHER, FEED_DOMAIN, served["page"]),
    }


def same_again(served: Any, number: int) -> Any:
    return Client().get("/api/v1/feed/").json() if number == 2 else served


def skipped(served: Any, number: int) -> Any:
    if number != 2:
        return served
    return Client().get(f"/api/v1/feed/?after={served['page']['next']}").json()


def no_signature(served: Any, number: int) -> Any:
    return {"page": served["page"]}


def other_form(served: Any, number: int) -> Any:
    return [served]


def more_fields(served: Any, number: int) -> Any:
    served["page"]["discount"] = True
    return served


TOUCHED = [
    (cheaper, "bad_signature"),
    (better, "bad_signature"),
    (left_out, "bad_signature"),
    (cut_short, "bad_signature"),
    (signed_by_another, "bad_signature"),
    (no_signature, "bad_signature"),
    (same_again, "out_of_order"),
    (skipped, "out_of_order"),
    (other_form, "malformed"),
    (more_fields, "malformed"),
]


def test_whatever_is_touched_is_found(market: worlds.World) -> None:
    for touch, code in TOUCHED:
        with pytest.raises(ClientError) as refused:
            read_feed(reader(touch), key=log.public_key())
        assert refused.value.code == code, touch.__name__


def test_an_old_page_is_not_todays_price(market: worlds.World) -> None:
    served = feeds.feed_page(now=clock.now())
    at = served["page"]["at"]
    check_page(served, log=log.public_key(), after="", now_ms=at + AGE_MS_MAX)
    for now in (at + AGE_MS_MAX + 60_000, at - AGE_MS_MAX - 60_000):
        with pytest.raises(ClientError) as refused:
            read_feed(reader(), key=log.public_key(), clock=lambda now=now: now / 1000)
        assert refused.value.code == "stale"


def test_a_log_that_has_shrunk_since_it_was_verified_is_found(
    market: worlds.World, tmp_path: Path
) -> None:
    state = tmp_path / "heads.json"
    size = log.head_latest().size
    for known, fine in ((size, True), (size + 1, False)):
        state.write_text(json.dumps({"key": log.public_key(), "head": {"size": known}}))
        if fine:
            assert read_feed(reader(), state=state).pinned
            continue
        with pytest.raises(ClientError) as refused:
            read_feed(reader(), state=state)
        assert refused.value.code == "shorter_log"
    with pytest.raises(ClientError, match="not the state"):
        read_feed(reader(), state=tmp_path / "none.json")


def test_the_command_prints_what_it_has_checked(
    market: worlds.World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("workers.client.cli.Api", lambda url: reader())
    assert main(["feed", "--url", "http://site", "--key", log.public_key(), "--json"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["slug"] for line in said.out.splitlines()] == sorted(
        Listing.objects.values_list("slug", flat=True)
    )
    assert f"{MODELS} models" in said.err and "the key that you know" in said.err
    assert main(["feed", "--url", "http://site", "--key", wire.public_hex(OTHER)]) == 1


def test_without_a_log_there_is_no_feed(transactional_db: None) -> None:
    answer = Client().get("/api/v1/feed/")
    assert (answer.status_code, answer.json()["code"]) == (404, "log_empty")
