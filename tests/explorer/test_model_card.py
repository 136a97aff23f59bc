"""The model card: how even a model is, how it came about, what it goes on from; page and JSON."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.transactions import durable
from apps.listings.card import by_round, fairness
from apps.subdaos.models import Dao
from apps.training.models import ModelVersion, Round
from tests.explorer import world as worlds


@pytest.fixture
def built(transactional_db: None) -> worlds.World:
    return worlds.build()


def evidence(milli: int, **strata: int | None) -> dict[str, Any]:
    gates = [
        {"metric": "auc", "stratum": name, "min_milli": 850, "met": bool(value and value >= 850)}
        for name, value in strata.items()
    ]
    return {"auc_milli": milli, "auc_by_stratum": strata, "gates": gates}


def test_how_even_it_is_follows_from_what_is_shown() -> None:
    even = fairness(evidence(900, north=930, south=840, east=None, west=900))
    assert even is not None
    assert (even.metric, even.best, even.worst) == ("auc", ("north", 930), ("south", 840))
    assert (even.gap_milli, even.hidden, even.missed) == (90, ["east"], ["east", "south"])
    for alone in (evidence(900), evidence(900, north=900), evidence(900, north=900, south=None)):
        assert fairness(alone) is None
    assert fairness({}) is None


def again(built: worlds.World, milli: int, *, start: bool) -> ModelVersion:
    """A further round, which goes on from the version before it, and its version on sale."""
    before = built.listing.version
    held = Round.objects.get(pk=before.round_id)
    with durable():
        held.pk, held._state.adding = None, True
        held.number, held.round_job, held.moments_job = before.round.number + 1, None, None
        held.start, held.opened_at = (before if start else None), timezone.now()
        held.id = Round._meta.pk.get_default()
        held.save()
        made = ModelVersion.objects.create(
            dao=built.dao, number=before.number + 1, round=held, model="99" * 32,
            evidence=before.evidence | {"auc_milli": milli}, status="accepted",
            decided_at=timezone.now(),
        )  # fmt: skip
        built.listing.version = made
        built.listing.save()
    return made


def test_page_and_json_tell_the_same_card(built: worlds.World) -> None:
    first = built.listing.version
    second = again(built, 987, start=True)
    fork = Dao.objects.get(pk=built.dao.pk)
    with durable():
        parent = Dao.objects.filter(kind=Dao.Kind.SUPER).get()
        Dao.objects.filter(pk=fork.pk).update(parent=parent)
    client = Client()
    client.force_login(built.buyer)
    with CaptureQueriesContext(connection) as asked:
        page = client.get(f"/models/{built.listing.slug}/").content.decode()
    assert len(asked) <= 12
    with CaptureQueriesContext(connection) as asked:
        card = client.get(f"/api/v1/listings/{built.listing.slug}/card/").json()
    assert len(asked) <= 12
    assert [row["number"] for row in card["versions"]] == [first.number, second.number]
    assert [row["on_sale"] for row in card["versions"]] == [False, True]
    assert card["versions"][1]["milli"] == 987
    assert card["lineage"] == {
        "parent": {"slug": parent.slug, "name": parent.name}, "forks": [],
        "start_version": first.number,
    }  # fmt: skip
    assert card["request"]["slug"] == built.awarded.slug
    assert len(card["roster"]) == len(second.round.roster["members"])
    assert card["schema"] == built.dao.params["schema"] and card["evidence"]["auc_milli"] == 987
    even = fairness(second.evidence)
    assert even is not None and card["fairness"]["gap_milli"] == even.gap_milli
    assert f"goes on from version {first.number}" in page and "0.987" in page
    assert f"highest in <strong>{even.best[0]}</strong>" in page
    assert f"/rfms/{built.awarded.slug}/" in page and f"/subdaos/{parent.slug}/" in page
    assert f"Round {second.round.number}" in page and f"/rounds/{first.round_id}/" in page
    parent_card = Client().get(f"/api/v1/listings/{built.listing.slug}/card/")
    assert parent_card.json() == card  # anybody's
    assert Client().get("/api/v1/listings/nothing/card/").status_code == 404


def test_a_metric_by_round_has_a_row_for_all_and_one_for_each_group(built: worlds.World) -> None:
    again(built, 987, start=False)
    rounds = list(Round.objects.filter(dao=built.dao).select_related("version").order_by("number"))
    numbers, rows = by_round(rounds)
    assert numbers == [held.number for held in rounds if hasattr(held, "version")]
    assert rows[0] == ("All rows", [built.round.version.lead_milli, 987])
    strata = built.listing.version.evidence["auc_by_stratum"]
    assert [name for name, _ in rows[1:]] == sorted(strata)
    assert by_round([]) == ([], [])
