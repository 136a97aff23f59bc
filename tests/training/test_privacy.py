"""A privacy budget from the vote to the listing, on real nodes, until it is used up."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.urls import reverse

from apps.core.clock import now
from apps.core.errors import BadInput, Conflict, DomainError
from apps.core.transactions import durable
from apps.listings.selectors import listing_json
from apps.protocol import privacy
from apps.protocol.circuits.noise import CLIP, RHO
from apps.subdaos.selectors import describe
from apps.subdaos.services import dao_lock
from apps.training import selectors, services
from apps.training.models import Round
from apps.training.privacy import budget_json
from apps.training.services import round_ticket
from apps.wallets.models import LogLeaf
from tests.support.market import drain
from workers.client.replay import replay

BUDGET = {"epsilon_milli": 20_000, "rounds": 1, "clip_milli": 2000}


def vote(market, budget) -> None:
    market.carried("subdaos.set_privacy", {"privacy": budget})


def leaves() -> list[dict]:
    return [json.loads(bytes(leaf.data)) for leaf in LogLeaf.objects.order_by("id")]


def wrong(log) -> list[str]:
    """What the verifier finds wrong with the noise in this log."""
    errors = replay(log).findings.errors
    return [text for text in errors if "noise" in text or "privacy" in text]


def bent(leaf: dict, type_: str, told: dict) -> dict:
    """The leaf with other words on the noise, where it is of this type."""
    return leaf | {"body": leaf["body"] | told} if leaf["type"] == type_ else leaf


def test_a_budget_lasts_for_the_rounds_that_were_voted_and_no_further(market) -> None:
    assert budget_json(market.dao) is None
    for payload, text in (
        ({"privacy": 8}, "an object"),
        ({"privacy": BUDGET | {"rounds": 0}}, "rounds is a whole number"),
        ({"privacy": {}}, "budget already"),
    ):
        with pytest.raises(BadInput, match=text):
            market.carried("subdaos.set_privacy", payload)
    vote(market, BUDGET)
    with pytest.raises(BadInput, match="privacy budget"):
        market.carried("subdaos.set_training", {"training": {"kind": "secure_sgd"}})

    held = market.whitelist()
    market.normalise(held)
    held.refresh_from_db()
    noise = privacy.budget_of(BUDGET).params
    params = round_ticket(held)["params"]
    assert params | noise == params and held.privacy == noise
    site = market.custodians[0]
    for less in ({}, noise | {RHO: noise[RHO] + 1}):
        bare = {name: value for name, value in params.items() if name not in noise} | less
        upload = market.upload(held, site, "update", site.weights, params=bare)
        with pytest.raises(DomainError, match="params"):
            market.submit(held, site, upload)
    market.share_updates(held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done", held.progress
    assert selectors.round_json(held)["privacy"] == {
        "epsilon_milli": 20_000,
        "delta_exponent": 6,
        "clip_milli": 2000,
        "rho_micro": noise[RHO],
    }
    listing = market.accept(held)
    assert listing_json(listing)["privacy"]["epsilon_milli"] == 20_000

    spent = describe(market.dao, now())["privacy"]
    assert (spent["spent_epsilon_milli"], spent["rounds_spent"], spent["rounds_left"]) == (
        20_000,
        1,
        0,
    )
    for address in (
        reverse("explorer:subdao", args=[market.dao.slug]),
        reverse("explorer:round", args=[held.id]),
        reverse("explorer:model", args=[listing.slug]),
    ):
        shown = Client().get(address).content.decode()
        assert 'id="privacy"' in shown and "ε = 20.000" in shown, address
        assert "φ itself tells of a site is not covered" in shown
    assert "used up" in Client().get(f"/subdaos/{market.dao.slug}/").content.decode()

    assert "ε = 20.000 of 20.000" in services.why_not(market.dao)
    with pytest.raises(Conflict, match="used up"), durable():
        services.round_open(dao=dao_lock(market.dao), now=now())
    assert Round.objects.filter(dao=market.dao).count() == 1

    log = leaves()
    state = replay(log)
    assert not wrong(log)
    pid = market.dao.party.pid
    assert state.parameters.spent == {pid: noise[RHO]}
    opened, done = "training.round_opened", "training.round_done"
    for type_, told in (
        (opened, {"privacy": {}}),
        (opened, {"privacy": noise | {RHO: noise[RHO] * 2}}),
        (done, {"privacy": noise | {RHO: 1}}),
        (done, {"privacy": {}}),
    ):
        assert wrong(bent(leaf, type_, told) for leaf in log)
    twice = [leaf for leaf in log if leaf["type"] in (opened, done)]
    (found,) = wrong([*log, *twice])
    assert "budget is used up" in found

    # a larger one carries on, with what was spent still spent
    vote(market, BUDGET | {"epsilon_milli": 30_000})
    assert budget_json(market.dao)["rounds_left"] == 0
    vote(market, {"epsilon_milli": 30_000, "rounds": 3, "clip_milli": 1500})
    left = budget_json(market.dao)
    assert left["rounds_left"] == 1 and left["spent_epsilon_milli"] == 20_000
    drain()
    market.carried("training.open_round", {})
    again = Round.objects.filter(dao=market.dao).latest("number")
    assert again.privacy[CLIP] == 1500
    vote(market, {})
    assert budget_json(market.dao)["spent_epsilon_milli"] == 20_000
    assert not wrong(leaves())
