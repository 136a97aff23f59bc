"""Finding and comparing listings: facets count what narrowing by them leaves, in one statement."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.core import clock
from apps.listings import catalogue
from apps.listings.measured import served
from apps.listings.models import Listing, Query
from apps.listings.running import CANCELLED
from apps.protocol.rfm_spec import DOMAINS, LICENCES
from apps.training.handlers import model_reshared, nodes_succeeded
from apps.training.models import ModelVersion, Round
from tests.explorer import world as worlds
from tests.support.snapshots import kept

VALUES = catalogue.FACETS | {"access": ("*", "accredited-hospital", "ward-nurse", "of-nobody")}
PRICES = (0, 99_999, 100_000, 499_999, 500_000, 1_999_999, 2_000_000)
METRICS = (None, 799, 800, 899, 900, 949, 950)
KINDS = (None, "accredited-hospital", None, "ward-nurse")


@pytest.fixture
def market(transactional_db: None) -> worlds.World:
    """Fifteen listings of different kinds."""
    return kept(_market, _market)


def _market() -> worlds.World:
    world = worlds.build()
    worlds.grow(world, 14)
    chance = random.Random(7)
    for number, listing in enumerate(Listing.objects.select_related("dao").order_by("created_at")):
        dao, evidence = listing.dao, dict(world.listing.version.evidence)
        evidence["auc_milli"] = METRICS[number % len(METRICS)]
        kind = KINDS[number % len(KINDS)]
        dao.params |= {
            "access": {"credential": kind, "issuers": ["ab" * 16]} if kind else {},
            "domain": chance.choice(DOMAINS[:3]),
            "licence": chance.choice(list(LICENCES)),
            "price_micro": str(PRICES[number % len(PRICES)]),
        }
        dao.save(update_fields=["params"])
        if number:
            listing.version = version(world, dao, evidence)
            listing.save(update_fields=["version"])
        else:
            ModelVersion.objects.filter(pk=listing.version_id).update(evidence=evidence)
    return world


def version(world: worlds.World, dao: Any, evidence: dict[str, Any]) -> ModelVersion:
    held = Round.objects.get(pk=world.round.pk)
    held.pk, held.dao, held.moments_job, held.round_job = uuid.uuid4(), dao, None, None
    held._state.adding = True
    held.save()
    return ModelVersion.objects.create(
        dao=dao,
        number=1,
        round=held,
        model=uuid.uuid4().hex * 2,
        evidence=evidence,
        status="accepted",
        decided_at=clock.now(),
    )


def test_what_the_old_nodes_made_is_asked_at_those_that_follow_them(market: worlds.World) -> None:
    held = Round.objects.get(pk=market.round.pk)
    new = [digit * 64 for digit in "abc"]
    nodes_succeeded({"old": held.nodes, "new": new}, event_id=uuid.uuid4(), now=clock.now())
    assert Round.objects.get(pk=held.pk).nodes == new != held.nodes
    model = ModelVersion.objects.filter(round=held).values_list("model", flat=True)[0]
    more = {"model": model, "nodes": [digit * 64 for digit in "abcde"]}
    model_reshared(more, event_id=uuid.uuid4(), now=clock.now())
    went = Round.objects.get(pk=held.pk)
    assert (went.nodes, went.engine) == (more["nodes"], held.engine)
    model_reshared(more | {"engine": "shamir_t2"}, event_id=uuid.uuid4(), now=clock.now())
    assert Round.objects.get(pk=held.pk).engine == "shamir_t2"


def of(listing: Listing) -> dict[str, str]:
    """Each facet's value by hand."""
    params, milli = listing.dao.params, listing.version.evidence["auc_milli"]
    price = int(params["price_micro"])
    prices = ((100_000, "under-0.10"), (500_000, "0.10-0.50"), (2_000_000, "0.50-2"))
    metrics = ((800, "under-0.80"), (900, "0.80-0.90"), (950, "0.90-0.95"))
    values = {name: params[name] for name in ("domain", "licence", "model_class")}
    values["standard"] = params["schema"]["standard"]
    values["access"] = (params["access"] or {"credential": "*"})["credential"]
    values["price"] = next((name for least, name in prices if price < least), "from-2")
    if milli is not None:
        values["metric"] = next((name for least, name in metrics if milli < least), "from-0.95")
    return values


def choices() -> Iterator[dict[str, list[str]]]:
    """Nothing, and choices of up to three facets with up to two values each."""
    chance = random.Random(11)
    yield {}
    for _ in range(25):
        names = chance.sample(list(catalogue.FACETS), chance.randint(1, 3))
        yield {name: chance.sample(list(VALUES[name]), chance.randint(1, 2)) for name in names}


def test_each_count_is_what_choosing_it_leaves(market: worlds.World) -> None:
    rows = {row: of(row) for row in Listing.objects.select_related("dao", "version")}

    def left(chosen: dict[str, list[str]]) -> set[str]:
        return {
            row.slug
            for row, values in rows.items()
            if all(values.get(name) in wanted for name, wanted in chosen.items())
        }

    for chosen in choices():
        with CaptureQueriesContext(connection) as queries:
            found, facets = catalogue.facets(chosen=chosen)
        assert len(queries) == 1
        assert found == len(left(chosen))
        listed = catalogue.search(Listing.objects.all(), chosen=chosen)
        assert {row.slug for row in listed} == left(chosen)
        for name, values in facets.items():
            for choice in values:
                assert choice.count == len(left(chosen | {name: [choice.value]})), (chosen, choice)
                assert choice.chosen == (choice.value in chosen.get(name, []))


def test_what_listings_are_found_by_is_the_daos_and_the_versions_own(market: worlds.World) -> None:
    listing = market.listing
    listing.domain, listing.row_price_micro, listing.lead_milli = "nowhere", 1, 1
    listing.save()
    row = Listing.objects.select_related("dao", "version").get(pk=listing.pk)
    assert (row.domain, row.row_price_micro) == (row.dao.domain, row.dao.row_price_micro)
    assert row.lead_milli == (row.version.lead_milli or catalogue.METRIC_NONE)


def test_every_order_holds_over_all_pages_of_the_page_and_of_the_api(market: worlds.World) -> None:
    rows = list(Listing.objects.select_related("dao", "version"))
    keys: dict[str, Any] = {
        "newest": lambda r: -r.created_at.timestamp(),
        "oldest": lambda r: r.created_at.timestamp(),
        "use": lambda r: -r.answers_recent,
        "metric": lambda r: -(r.version.evidence["auc_milli"] or catalogue.METRIC_NONE),
        "cheapest": lambda r: int(r.dao.params["price_micro"]),
        "dearest": lambda r: -int(r.dao.params["price_micro"]),
    }
    assert set(keys) == set(catalogue.SORTS)
    by_slug, client = {row.slug: row for row in rows}, Client()
    for sort, key in keys.items():
        url, seen = f"/api/v1/listings/?limit=4&sort={sort}", []
        while url:
            answer = client.get(url).json()
            seen += [row["slug"] for row in answer["results"]]
            url = answer["next"]
        assert len(seen) == len(set(seen)) == len(rows)
        assert [key(by_slug[slug]) for slug in seen] == sorted(map(key, rows)), sort


def test_the_page_goes_on_in_the_order_of_a_price(
    market: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.explorer.catalogue.PAGE_SIZE", 4)
    seen, query = [], "?sort=cheapest"
    while query:
        page = Client().get(reverse("explorer:models") + query).context["page"]
        seen += [row.row_price_micro for row in page]
        query = f"?sort=cheapest&{page.older}" if page.older else ""
    assert len(seen) == Listing.objects.count() and seen == sorted(seen)
    for odd in ("after=x~y", "after=1~2", "before=~", "sort=none", "domain=nowhere", "page=%2d1"):
        assert Client().get(f"{reverse('explorer:models')}?{odd}").status_code == 200


def test_words_find_by_name_and_purpose_and_narrow_the_counts(market: worlds.World) -> None:
    slug = market.listing.slug
    found, facets = catalogue.facets(words="aspirate")
    assert found == 15 == sum(choice.count for choice in facets["model_class"])
    name = market.dao.name.split()[0]
    assert next(r.slug for r in catalogue.search(Listing.objects.all(), words=name)) == slug
    assert catalogue.facets(words="zebra")[0] == 0
    page = Client().get(reverse("explorer:models") + "?q=zebra").content.decode()
    assert "No model is like that" in page


def test_the_api_counts_and_refuses_what_no_facet_has(market: worlds.World) -> None:
    client = Client()
    domain = DOMAINS[0]
    answer = client.get(f"/api/v1/listing-facets/?domain={domain}").json()
    rows = client.get(f"/api/v1/listings/?domain={domain}").json()["results"]
    assert answer["found"] == len(rows) > 0
    assert {row["domain"] for row in rows} == {domain}
    assert {row["value"] for row in answer["facets"]["domain"] if row["chosen"]} == {domain}
    for odd in ("domain=x", "sort=best", "price=1"):
        assert client.get(f"/api/v1/listings/?{odd}").status_code == 400
    assert client.get("/api/v1/listing-facets/?licence=none").json()["code"] == "bad_facet"


def test_models_are_found_by_who_may_ask_them(market: worlds.World) -> None:
    client, kinds = Client(), ["*", "accredited-hospital", "ward-nurse"]
    counted = client.get("/api/v1/listing-facets/").json()["facets"]["access"]
    assert [(row["value"], row["count"]) for row in counted] == [*zip(kinds, (8, 4, 3))]
    for kind, count in (*zip(kinds, (8, 4, 3)), ("of-nobody", 0)):
        rows = client.get("/api/v1/listings/", {"access": kind}).json()["results"]
        assert len(rows) == count
        assert {(row["access"] or {"credential": "*"})["credential"] for row in rows} <= {kind}
    for odd in ("access=", "access=Nurse!", "access=**"):
        answer = client.get(f"/api/v1/listings/?{odd}")
        assert (answer.status_code, answer.json()["field"]) == (400, "access")
        assert "access is one of * or a kind of credential" in answer.json()["detail"]
    # A vote is found at once.
    dao = market.listing.dao
    dao.refresh_from_db()
    dao.params["access"] = {"credential": "ward-nurse", "issuers": ["ab" * 16]}
    dao.save(update_fields=["params"])
    page = client.get(reverse("explorer:models") + "?access=ward-nurse")
    links = dict(page.context["menus"])["Who may ask"]
    assert [(link.text, link.count, link.chosen) for link in links] == [
        ("open to all", 7, False),
        ("needs “accredited-hospital”", 4, False),
        ("needs “ward-nurse”", 4, True),
    ]
    assert market.listing.slug in {card["slug"] for card in page.context["listings"]}
    assert client.get(reverse("explorer:models") + "?access=Nurse!").context["found"] == 15


def test_of_very_many_credentials_those_are_counted_that_most_models_ask_for(
    market: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ACCESS_SHOWN", 1)
    _, facets = catalogue.facets()
    assert [c.value for c in facets["access"]] == ["*", "accredited-hospital"]
    _, facets = catalogue.facets(chosen={"access": ["ward-nurse"]})
    assert [c.value for c in facets["access"]] == ["*", "ward-nurse"]


def test_links_choose_and_take_back(market: worlds.World) -> None:
    address = reverse("explorer:models")
    page = Client().get(f"{address}?sort=use&page=3").context
    menus = dict(page["menus"])
    first = menus["Domain"][0]
    assert "sort=use" in first.url and "page=" not in first.url and not first.chosen
    narrowed = Client().get(address + first.url).context
    assert narrowed["found"] == first.count
    assert [link.text for link in narrowed["taken"]] == [first.text]
    assert Client().get(address + narrowed["taken"][0].url).context["found"] == 15


def test_use_is_counted_from_time_to_time(market: worlds.World) -> None:
    now = clock.now()
    assert catalogue.count_use(now=now) == 1
    assert Listing.objects.get(pk=market.listing.pk).answers_recent == 1
    assert catalogue.count_use(now=now) == 0
    assert catalogue.count_use(now=now + timedelta(days=31)) == 1
    assert not Listing.objects.exclude(answers_recent=0).exists()


def test_four_at_most_are_compared_and_the_page_says_what_is_left_out(
    market: worlds.World,
) -> None:
    slugs = list(Listing.objects.order_by("slug").values_list("slug", flat=True)[:5])
    address = reverse("explorer:compare")
    query = "&".join(f"m={slug}" for slug in [*slugs[:4], slugs[0]])
    with CaptureQueriesContext(connection) as queries:
        page = Client().get(f"{address}?{query}")
    assert len(queries) <= 12
    assert [column["slug"] for column in page.context["columns"]] == slugs[:4]
    assert page.context["left_out"] == 0
    text = page.content.decode()
    for region in worlds.STRATA:
        assert region in text
    assert "AUC" in text and "a row" in text.lower()
    five = "&".join(f"m={slug}" for slug in slugs)
    assert Client().get(f"{address}?{five}&m=nothing").context["left_out"] == 2
    fewer = page.context["columns"][1]["without"]
    left = Client().get(fewer).context["columns"]
    assert [column["slug"] for column in left] == [slugs[0], *slugs[2:4]]
    for odd in ("", "m=", "m=nothing", "m=%C3%A9"):
        assert Client().get(f"{address}?{odd}").status_code == 200


def test_what_was_measured_is_of_queries_that_ended(market: worlds.World) -> None:
    now = clock.now()
    first = Query.objects.get(listing=market.listing)
    waits = [100, 200, 300, 400, 10_000]
    more = list(
        itertools.chain(
            [("settled", wait, "") for wait in waits],
            [("released", 50, "The nodes could not compute it."), ("released", 50, CANCELLED)],
        )
    )
    for state, wait_ms, reason in more:
        query = worlds.query_of(market.listing, market.party, now)
        at = now - timedelta(minutes=1)
        Query.objects.filter(pk=query.pk).update(
            state=state,
            reason=reason,
            created_at=at,
            ended_at=at + timedelta(milliseconds=wait_ms),
        )
    Query.objects.filter(pk=first.pk).update(ended_at=now - timedelta(days=40))
    found = served([market.listing.id, uuid.uuid4()], now=now)
    how = found.pop(market.listing.id)
    assert not found
    assert (how.ended, how.answered_bps) == (6, 8333)
    assert (how.p50_ms, how.p95_ms) == (300, 10_000)
    assert served([], now=now) == {}
    shown = {"ended": 6, "answered_bps": 8333, "p50_ms": 300, "p95_ms": 10_000}
    url = f"/api/v1/listings/{market.listing.slug}/"
    assert Client().get(url).json()["served"] == shown
    address = reverse("explorer:model", args=[market.listing.slug])
    page = Client().get(address).content.decode()
    assert "83.33 %" in page and "300 ms" in page and "10000 ms" in page
    assert 'id="call-javascript"' in page and f"&quot;{market.listing.slug}&quot;, rows" in page


def test_of_more_nodes_each_stops_at_its_own_rows(market: worlds.World, settings: Any) -> None:
    settings.ROWS_PER_EPOCH = 10
    held = Round.objects.get(pk=market.listing.version.round_id)
    url = f"/api/v1/listings/{market.listing.slug}/"
    for nodes, engine, most in ((3, "ring", 10), (5, "ring", 16), (5, "ring_verified", 12)):
        held.nodes, held.engine = [str(n) * 64 for n in range(nodes)], engine
        held.save(update_fields=["nodes", "engine"])
        stated = Client().get(url).json()["extraction"]
        assert (stated["rows_per_epoch"], stated["rows_per_epoch_max"]) == (10, most)
        assert stated["epochs"] == -(-stated["rows"] // most)
    address = reverse("explorer:model", args=[market.listing.slug])
    assert "answer 12 rows of this model" in Client().get(address).content.decode()
