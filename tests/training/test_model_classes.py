"""Every model class on real nodes: request, round, evidence, vote, listing, paid query."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.test import Client

from apps.core import clock
from apps.core.clock import now
from apps.core.transactions import durable
from apps.listings.selectors import listing_json
from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.descent import defaults_of
from apps.protocol.circuits.least_squares import factor_of
from apps.subdaos.selectors import describe
from apps.subdaos.services import dao_lock
from apps.training.models import Round
from apps.training.selectors import round_json
from apps.training.services import round_open
from apps.training.submissions import _deadline_s
from apps.wallets import log
from apps.wallets.invariants import violations
from tests.support.market import SPEC, Market, drain
from tests.training.test_record import record_of
from tests.training.test_shared_rows import SITE_ROWS, announce, choose
from workers.client.record import check_record
from workers.client.training import constants, standardise, train

WEIGHTS = {
    "multinomial": np.array([1.5, -1.0, 0.25, -1.0, 1.0, 0.0, -0.5, 0.0, -0.25]),
    "linear": np.array([0.6, -0.5, 0.1]),
    "forecaster": np.array([0.6, -0.5, 0.1]),
    "poisson": np.array([0.5, -0.4, 1.0]),
    "cox": np.array([1.0, -0.8, 0.0]),
}
LABELS: dict[str, dict[str, Any]] = {
    "multinomial": {"name": "grade", "classes": ["low", "middle", "high"]},
    "linear": {"name": "days", "min": "0", "max": "40"},
    "forecaster": {
        "name": "load",
        "min": "0",
        "max": "40",
        "series": {"time": "day", "step": "day", "lags": 1, "season": 2, "split": "2024-01-01"},
    },
    "poisson": {"name": "visits"},
    "cox": {"name": "days", "event": "dead", "max": "365"},
}
GATES = {
    "multinomial": ("accuracy", 500),
    "linear": ("r2", 600),
    "forecaster": ("skill", 500),
    "poisson": ("r2", 200),
    "cox": ("c_index", 600),
}


SOLVED = ("linear", "forecaster")
LAGGED = ("features", "standard")  # follow from a forecaster's label


class Classes(Market):
    """The market with a model of another class."""

    @property
    def lagged(self) -> bool:
        return CLASSES[self.spec["model_class"]].series

    def truth(self) -> np.ndarray:
        return WEIGHTS.get(self.spec["model_class"], WEIGHTS["multinomial"])

    def targets(self, x: np.ndarray, rng: Any) -> np.ndarray:
        z = np.column_stack([x, np.ones(len(x))]) @ self.truth().reshape(-1, 3).T
        if CLASSES[self.spec["model_class"]].label == "classes":
            return np.eye(3)[np.argmax(z + rng.gumbel(0, 0.5, z.shape), axis=1)]
        if self.spec["model_class"] in SOLVED:
            found = np.clip(z[:, 0] + rng.normal(0, 0.2, len(x)), -2, 2)
            return np.column_stack([found, x[:, 0]]) if self.lagged else found
        if self.spec["model_class"] == "cox":
            times = rng.exponential(0.7 * np.exp(-z[:, 0]))
            order = np.argsort(times)
            x[:] = x[order]  # a validator's rows stand in the order of their times
            return np.column_stack([times, times < 1.0])[order].clip(max=1.0)
        return rng.poisson(np.exp(z[:, 0]))


class Hazards(Classes):
    """Whose sites send intercepts that the round drops."""

    def oracle(self, held: Any, rows: Any) -> np.ndarray:
        for site in self.custodians:
            site.weights = site.weights * [1, 1, 0]
        return super().oracle(held, rows)


class Linear(Classes):
    """Whose sites share the sums of their rows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        rng = np.random.default_rng(11)
        for place, site in enumerate(self.custodians):
            x = rng.normal(size=(30 + 20 * place, 2))
            inputs = np.column_stack([x, np.ones(len(x))])
            site.holdout = np.column_stack([inputs, inputs @ site.weights])
            site.weights = factor_of(x, site.holdout[:, -1])

    def oracle(self, held: Any, rows: Any) -> np.ndarray:
        phi = {s.party_id: s.phi_milli for s in held.scores.all()}
        used = np.concatenate([s.holdout for s in self.custodians if phi[s.party.id]])
        x, t = used[:, :-1], used[:, -1]
        weights = np.linalg.solve(x.T @ x + np.diag([1, 1, 0]), x.T @ t)
        return np.column_stack([rows, np.ones(len(rows))]) @ weights


def test_a_round_that_is_solved_is_given_the_time_that_many_features_take() -> None:
    members = [{"role": "custodian", "key": f"{place}"} for place in range(64)]
    roster = {"members": [*members, {"role": "validator", "key": "v"}]}

    def given(name: str, features: int) -> int:
        return _deadline_s(
            Round(phase="updates", model_class=name, features=features, roster=roster)
        )

    assert given("poisson", 200) == given("linear", 10) == 120
    assert 1800 < given("linear", 200) <= 3600


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_a_class_goes_from_the_request_to_the_paid_answer(
    name,
    transactional_db,
    settings,
    tmp_path,
    three_nodes,
) -> None:
    metric, least = GATES[name]
    gate = {"metric": metric, "min_milli": least, "per_stratum": True}
    governance = SPEC["governance"] | {"scoring": "leave_one_out"}
    kind = Linear if name in SOLVED else Hazards if name == "cox" else Classes
    asked = {k: v for k, v in SPEC.items() if name != "forecaster" or k not in LAGGED}
    if name == "poisson":
        asked["features"] = [{"name": "b", "type": "boolean"}, {"name": "a"}]
    market = type("Of" + name, (kind,), {
        "spec": asked | {
            "model_class": name, "label": LABELS[name], "gates": [gate], "governance": governance,
        },
        "extras": {"classes": 3} if name == "multinomial" else {},
    })(three_nodes, settings, tmp_path)  # fmt: skip
    held = market.train()
    assert held.phase == "done", held.progress
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    assert phi[market.custodians[3].party.id] == 0 and max(phi.values()) == 1000
    page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert page.count("rows announced, 33 % of the evidence") == 3
    assert ("Sums of their products" in page) == (name in SOLVED)
    assert ("in squared error" in page) == (name in SOLVED)
    evidence = held.version.evidence
    assert [g["met"] for g in evidence["gates"]] == [True] * 3, evidence
    assert evidence["support"]["all"]["rows"] == 60
    assert evidence["intervals"] if name != "forecaster" else evidence["intervals"] == {}
    numbers = 1 if name == "poisson" else 2
    assert held.features == 2 and len(held.moments_job.openings["sums"]) == 1 + 2 * numbers
    assert (held.normalisation["mean"][1] == 0) == (name == "poisson")  # of the level yes
    log.sequence(now=clock.now())
    assert check_record(record_of(held)) == []

    listing = market.accept(held)
    assert listing_json(listing)["circuit"] == CLASSES[name].infer_id("logit")
    page = Client().get(f"/models/{listing.slug}/").content.decode()
    assert ("The answer is the value one step after t-1" in page) == (name == "forecaster")
    assert ("yes or no" in page) == (name == "poisson")
    market.fund()
    # two that wait are computed together, and each gets its own rows' scores
    asked = [[[0.5, -1.0], [2.0, 0.25]], [[-1.5, 0.75]]]
    uploads = [market.row(listing, rows) for rows in asked]
    queries = [market.ask(listing, upload) for upload in uploads]
    drain()
    for rows, upload, query in zip(asked, uploads, queries, strict=True):
        query.refresh_from_db()
        assert query.state == "settled", query.reason
        scores = market.open(query, upload).reshape(-1)
        assert np.max(np.abs(scores - market.oracle(held, rows))) < 1e-3
        assert len(scores) == len(rows) * (3 if name == "multinomial" else 1)
    if name == "linear":
        makes_noise_under_a_budget(market)
    assert {k: v for k, v in violations().items() if v} == {}


def makes_noise_under_a_budget(market: Any) -> None:
    """The next round, by vote: the mean of what each site's sums give alone, with noise."""
    budget = {"epsilon_milli": 50_000, "rounds": 1, "clip_milli": 700}
    market.carried("subdaos.set_privacy", {"privacy": budget})
    with durable():
        held = round_open(dao=dao_lock(market.dao), now=now())
    market.normalise(held)
    market.share_updates(held)
    drain()
    held.refresh_from_db()
    assert held.phase == "done" and held.round_job.circuit == "linear_round@1", held.progress
    assert round_json(held)["privacy"]["epsilon_milli"] == 50_000
    assert describe(market.dao, now())["privacy"]["rounds_left"] == 0
    page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert "ε = 50.000" in page and "mean of what each site's sums give alone" in page
    assert held.version.evidence["r2_milli"] is not None


def test_a_network_is_trained_on_shared_rows_from_its_first_round_on(
    transactional_db,
    settings,
    tmp_path,
    three_nodes,
) -> None:
    market = type("OfNetwork", (Classes,), {
        "spec": SPEC | {
            "model_class": "mlp", "label": LABELS["multinomial"], "hidden": [7],
            "gates": [{"metric": "accuracy", "min_milli": 500, "per_stratum": False}],
        },
        "circuit": "mlp_infer@1",
        "extras": {"classes": 3, "hidden_1": 7},
    })(three_nodes, settings, tmp_path)  # fmt: skip
    schedule = market.dao.params["training"]["schedule"]
    assert schedule == defaults_of(CLASSES["mlp"]) and schedule["momentum_ppm"] == 900_000
    choose(market, {"kind": "secure_sgd", "schedule": {"epochs": 10, "steps": 5}})
    held = market.whitelist()
    assert held.training == "secure_sgd" and held.extras["hidden_1"] == 7
    market.normalise(held)
    rng = np.random.default_rng(3)
    for place, site in enumerate(market.custodians):
        announce(held, site)
        x = rng.normal(0, 1, (SITE_ROWS, 2))
        y = market.targets(x, rng)
        rows = np.column_stack([x, np.roll(y, 1, axis=1) if place == 3 else y])
        site.holdout = rows
    held.refresh_from_db()
    for slot, people in (("rows", market.custodians), ("holdout", market.validators)):
        for one in people:
            market.submit(held, one, market.upload(held, one, slot, one.holdout))
    drain()
    held.refresh_from_db()
    assert held.phase == "done" and held.round_job.circuit == "mlp_sgd@1", held.progress[-1]
    page = Client().get(f"/rounds/{held.id}/").content.decode()
    assert "5 steps each, half as many in the first 5" in page
    phi = {s.party_id: s.phi_milli for s in held.scores.all()}
    assert phi[market.custodians[3].party.id] == 0 and max(phi.values()) == 1000
    listing = market.accept(held)
    assert listing_json(listing)["hidden"] == [7]
    assert "7 hidden units" in Client().get(f"/models/{listing.slug}/").content.decode()
    market.fund()
    clear = [[4.0, -3.0], [-3.0, 4.0]]  # surely of the first class, and of the second
    upload = market.row(listing, clear)
    query = market.ask(listing, upload)
    drain()
    query.refresh_from_db()
    assert query.state == "settled", query.reason
    scores = market.open(query, upload).reshape(2, 3)
    assert list(CLASSES["mlp"].answer(scores).argmax(axis=1)) == [0, 1]

    # and by votes of its members from what each site learns at home (M-FL2)
    choose(market, {"kind": "fedavg"})
    market.dao.refresh_from_db()
    with durable():
        again = round_open(dao=dao_lock(market.dao), now=now())
    market.normalise(again)
    again.refresh_from_db()
    mean, std = constants(again.normalisation)
    label = market.dao.params["label"]
    for site in market.custodians:
        x, y = site.holdout[:, :2], site.holdout[:, 2:].argmax(axis=1)
        known = standardise(x, mean, std)
        site.weights = train(known, y, c=1.0, model=CLASSES["mlp"], label=label, hidden=[7])
    market.share_updates(again)
    drain()
    again.refresh_from_db()
    assert again.phase == "done" and again.round_job.circuit == "mlp_round@1", again.progress[-1]
    phi = {s.party_id: s.phi_milli for s in again.scores.all()}
    assert phi[market.custodians[3].party.id] == 0 and max(phi.values()) == 1000
    assert again.version.evidence["accuracy_milli"] > 600
