"""A buyer reads models out through the circuits themselves, and the listing's figures hold."""

import math

import numpy as np
import pytest

from apps.protocol.circuits import CLASSES
from apps.protocol.extraction import AGREEMENT_BPS, PER_WEIGHT_MILLI, extraction
from apps.protocol.plans import Plan
from apps.protocol.tariff import Tier
from tests.support.reading_out import BlackBox, read_out

SIZES, SEEDS, ROWS = (6, 30), 5, 2000
# spread of the scores over standardised rows
SPREAD = {"logistic": 2.0, "linear": 0.8}
# a hundredth of a number's range, which is 4 wide
NEAR = 0.04
OFF = 0.25
CASES = [(name, of) for name in SPREAD for of in CLASSES[name].resolutions]


def needed(name, of, features, seed):
    """Rows until the copy agrees with the model on 99 of 100 standardised rows."""
    rng = np.random.default_rng(seed)
    spread = SPREAD[name]
    slopes = rng.normal(size=features) * spread / math.sqrt(features)
    weights = np.append(slopes, rng.normal() * spread / 4)
    rows = np.column_stack([rng.normal(size=(ROWS, features)), np.ones(ROWS)])
    true = rows @ weights

    def agrees(copy):
        said = rows @ copy
        if name == "logistic":
            same = (said >= 0) == (true >= 0)
        else:
            same = np.abs(np.clip(said, -2, 2) - np.clip(true, -2, 2)) <= NEAR
        return 10_000 * np.mean(same) >= AGREEMENT_BPS

    return read_out(BlackBox(CLASSES[name], weights, of), features, agrees, 15 * (features + 1))


@pytest.mark.parametrize(("name", "of"), CASES)
def test_a_buyer_who_tries_needs_as_many_rows_as_the_listing_states(name, of):
    measured = [
        np.median([needed(name, of, features, seed) for seed in range(SEEDS)]) / (features + 1)
        for features in SIZES
    ]
    stated = PER_WEIGHT_MILLI[name][of] / 1000
    assert measured == pytest.approx([stated] * len(SIZES), rel=OFF), measured


def test_logits_of_a_linear_model_are_read_out_by_solving_equations():
    box = BlackBox(CLASSES["logistic"], np.array([0.75, -1.5, 0.25]), "logit")
    rows = [np.zeros(2), np.array([16.0, 0.0]), np.array([0.0, 16.0])]
    base, *others = [np.mean(box.ask(row)) for row in rows]
    assert [(z - base) / 16 for z in others] == pytest.approx([0.75, -1.5], abs=1e-4)
    assert base == pytest.approx(0.25, abs=1e-4) and box.asked == 3


def test_every_resolution_that_was_tried_has_a_figure_and_the_coarser_costs_more():
    for name, figures in PER_WEIGHT_MILLI.items():
        assert tuple(figures) == CLASSES[name].resolutions
        assert sorted(figures.values(), reverse=True) == list(figures.values())


def test_cost_is_the_price_of_all_rows_and_the_cap_spreads_it_over_epochs():
    about = {"model_class": "logistic", "features": 30, "price_micro": 500_000}
    cost = extraction(**about, resolution="logit", rows_per_epoch=2000)
    assert (cost.rows, cost.cost_micro, cost.epochs, cost.measured) == (31, 15_500_000, 1, True)
    assert extraction(**about, resolution="logit", rows_per_epoch=10).epochs == 4
    assert extraction(**about, resolution="logit", rows_per_epoch=31).epochs == 1
    tiers = (Tier(from_rows=11, off_bps=5_000),)
    cheaper = extraction(**about, tiers=tiers, resolution="logit", rows_per_epoch=31)
    assert cheaper.cost_micro == 11 * 500_000 + 20 * 250_000
    plans = (Plan("s", 30, 30, 1_000), Plan("m", 32, 30, 4_000))
    ahead = extraction(**about, plans=plans, resolution="logit", rows_per_epoch=31)
    assert ahead.cost_micro == 32 * 300_000
    unknown = extraction(**about | {"model_class": "poisson"}, resolution="band", rows_per_epoch=9)
    assert (unknown.rows, unknown.measured) == (31, False)
