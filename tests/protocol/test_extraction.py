"""A buyer reads models out through the circuits themselves, and the listing's figures hold."""

import math

import numpy as np
import pytest

from apps.protocol.circuits import CIRCUITS, CLASSES
from apps.protocol.circuits.layout import INPUT_F, MODEL_F
from apps.protocol.extraction import AGREEMENT_BPS, PER_WEIGHT_MILLI, extraction
from apps.protocol.plans import Plan
from apps.protocol.tariff import Tier
from tests.support.copying import ManyBox, drawn, rows_until, scored
from tests.support.reading_out import BlackBox, read_out
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import encode

SIZES, SEEDS, ROWS = (6, 16), 5, 2000
# spread of the scores over standardised rows
SPREAD = {"logistic": 2.0, "linear": 0.8, "poisson": 1.0, "cox": 1.0, "forecaster": 0.8}
# a hundredth of a number's range, which is 4 wide; a twentieth of a count or hazard, e^score
NEAR = {"linear": 0.04, "poisson": 0.05, "cox": 0.05, "forecaster": 0.04}
STAYS = 0.9  # of a series' value, from one to the next
OFF = 0.25
NETWORK_OFF = 0.4  # they differ from one another, and so do ways down
CASES = [(name, of) for name in SPREAD for of in PER_WEIGHT_MILLI[name]]


def judged(name, features, rng):
    """Standardised rows; a forecaster's are those of a series, the last value first."""
    if name != "forecaster":
        return rng.normal(size=(ROWS, features))
    series = np.zeros(50 + ROWS + features)
    for at, new in enumerate(rng.normal(size=len(series) - 1), start=1):
        series[at] = STAYS * series[at - 1] + new * math.sqrt(1 - STAYS**2)
    return np.lib.stride_tricks.sliding_window_view(series[50:], features)[:ROWS, ::-1]


def needed(name, of, features, seed):
    """Rows until the copy agrees with the model on 99 of 100 rows."""
    rng = np.random.default_rng(seed)
    spread = SPREAD[name]
    slopes = rng.normal(size=features) * spread / math.sqrt(features)
    weights = np.append(slopes, rng.normal() * spread / 4)
    if name == "forecaster":
        slopes = spread * 0.6 ** np.arange(features) * rng.choice([1, 1, -1], features)
        weights = np.append(slopes, weights[-1])
    rows = np.column_stack([judged(name, features, rng), np.ones(ROWS)])
    true = rows @ weights

    def agrees(copy):
        said = rows @ copy
        if name == "logistic":
            same = (said >= 0) == (true >= 0)
        elif name in ("linear", "forecaster"):
            same = np.abs(np.clip(said, -2, 2) - np.clip(true, -2, 2)) <= NEAR[name]
        else:
            same = np.abs(said - true) <= NEAR[name]
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


def copied(name, of, sizes, seed, most):
    """Rows for each weight until the trained copy says the same class of 99 of 100 rows."""
    rng = np.random.default_rng(seed)
    layers = drawn(sizes, rng, SPREAD["logistic"])

    def good(rows, scores):
        same = scores.argmax(1) == scored(layers, rows).argmax(1)
        return 10_000 * np.mean(same) >= AGREEMENT_BPS

    box = ManyBox(CLASSES[name], layers, of)
    weights = sum(layer.size for layer in layers)
    if not CLASSES[name].hidden:
        weights = (sizes[0] + 1) * (1 if of == "logit" else sizes[-1] - 1)
    return rows_until(box, good, rng=rng, most=most * weights) / weights


@pytest.mark.parametrize("of", list(PER_WEIGHT_MILLI["multinomial"]))
def test_a_copy_of_several_classes_takes_as_many_rows_as_the_listing_states(of):
    measured = [
        np.median([copied("multinomial", of, (features, 3), seed, 15) for seed in range(3)])
        for features in SIZES
    ]
    stated = PER_WEIGHT_MILLI["multinomial"][of] / 1000
    assert measured == pytest.approx([stated] * len(SIZES), rel=OFF), measured


SMALL = {"mlp": (8, 5, 3), "mlp2": (8, 5, 4, 3)}  # docs/adr/0019-resolution.md has larger ones
NETWORKS = [(name, of) for name in SMALL for of in PER_WEIGHT_MILLI[name]]


@pytest.mark.parametrize(("name", "of"), NETWORKS)
def test_a_copy_of_a_network_takes_as_many_rows_as_the_listing_states(name, of):
    seeds = 3 if of in ("rounded", "logit") else 1
    measured = np.median([copied(name, of, SMALL[name], seed, 25) for seed in range(seeds)])
    assert measured == pytest.approx(PER_WEIGHT_MILLI[name][of] / 1000, rel=NETWORK_OFF)


def test_logits_of_a_linear_model_are_read_out_by_solving_equations():
    box = BlackBox(CLASSES["logistic"], np.array([0.75, -1.5, 0.25]), "logit")
    rows = [np.zeros(2), np.array([16.0, 0.0]), np.array([0.0, 16.0])]
    base, *others = [np.mean(box.ask(row)) for row in rows]
    assert [(z - base) / 16 for z in others] == pytest.approx([0.75, -1.5], abs=1e-4)
    assert base == pytest.approx(0.25, abs=1e-4) and box.asked == 3


def test_logits_of_every_class_are_read_out_by_as_many_rows_as_a_score_has_weights():
    """Three classes' weights [3, 3] from three rows."""
    weights = np.arange(9).reshape(3, 3) / 4 - 1
    rows = np.array([[0.0, 0.0], [16.0, 0.0], [0.0, 16.0]])
    values = {
        "model": [encode(weights.reshape(-1), MODEL_F).astype(np.int64)],
        "row": [encode(rows).astype(np.int64)],
    }
    circuit = CIRCUITS[CLASSES["multinomial"].infer_id("logit")]
    words = run_plain(circuit, values, {"features": 2, "rows": 3, "classes": 3}).sealed.words[0]
    scores = words.astype(np.int64).reshape(3, 3) / 2.0**INPUT_F
    copy = np.linalg.solve(np.column_stack([rows, np.ones(3)]), scores).T
    assert copy == pytest.approx(weights, abs=1e-4)


def test_the_coarser_answer_costs_more():
    about = {"features": 30, "extras": {"classes": 3}, "price_micro": 1, "rows_per_epoch": 1}
    for name, figures in PER_WEIGHT_MILLI.items():
        tried = [of for of in CLASSES[name].resolutions if of in figures]
        assert list(figures) == tried and "logit" in tried
        rows = [extraction(model_class=name, resolution=of, **about).rows for of in tried]
        assert sorted(set(rows), reverse=True) == rows


def test_what_a_copy_takes_follows_from_what_its_answers_leave_open():
    """Of the weights of C − 1 scores, or all of a network's; logits tell all scores at once."""
    about = {"features": 30, "price_micro": 1, "rows_per_epoch": 1}

    def rows(name, of, **extras):
        return extraction(model_class=name, resolution=of, extras=extras, **about).rows

    assert rows("multinomial", "label", classes=2) == math.ceil(7.4 * 31)
    assert rows("multinomial", "label", classes=5) == math.ceil(7.4 * 4 * 31)
    assert rows("multinomial", "rounded", classes=2) == 31  # never less than a score has weights
    assert rows("multinomial", "logit", classes=5) == 31
    weights = 31 * 16 + 17 * 3
    assert rows("mlp", "label", classes=3, hidden_1=16) == 17 * weights
    assert rows("mlp", "logit", classes=3) == math.ceil(1.3 * (31 * 32 + 33 * 3))
    coarse = extraction(model_class="mlp2", resolution="label", extras={"classes": 3}, **about)
    assert (coarse.rows, coarse.measured) == (31, False)
    two = 31 * 16 + 17 * 8 + 9 * 3
    sizes = {"classes": 3, "hidden_1": 16, "hidden_2": 8}
    assert rows("mlp2", "logit", **sizes) == math.ceil(2.5 * two)


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
