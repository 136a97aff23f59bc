"""Contribution, aggregation, metrics and normalisation in real numbers."""

import itertools

import numpy as np
import pytest

from apps.protocol.aggregation import VoidRound, aggregate
from apps.protocol.circuits import CIRCUITS, BadParams, circuits_hash
from apps.protocol.circuits.games import EXACT_MAX, SAMPLED_MAX, SCORING_POINT, coalitions, sampled
from apps.protocol.circuits.logistic import LOSS
from apps.protocol.contribution import (
    clip_to_median_norm,
    coalition_scores,
    phi_from_utilities,
    phi_milli,
    sigmoid,
    taylor_scores,
)
from apps.protocol.metrics import (
    accuracy,
    auc,
    auc_interval,
    c_index,
    called_positive,
    log_loss,
    log_loss_spread,
    precision,
    r_squared,
    r_squared_spread,
    recall,
    share_interval,
    spread_interval,
)
from apps.protocol.normalise import normalisation

PARAMS = {"features": 3, "strata": 0, "rows": [9], "min_cell": 5, "scoring": "taylor"}


def test_clipping_bounds_norms_by_the_median_and_keeps_directions():
    clipped = clip_to_median_norm([[3, 4], [0, 1], [30, 40], [0, 0]])
    assert np.allclose(clipped, [[1.8, 2.4], [0, 1], [1.8, 2.4], [0, 0]])


def test_taylor_score_is_the_derivative_of_log_loss():
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=(4, 4)), rng.normal(size=(50, 3)), rng.integers(0, 2, 50)

    def loss(v):
        p = sigmoid(x @ v[:-1] + v[-1])
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    point, step = SCORING_POINT * w.mean(0), 1e-6
    for k, score in enumerate(taylor_scores(w, x, y)):
        way = step * (w[k] - point)
        slope = (loss(point - way) - loss(point + way)) / 2 / step
        assert abs(score - slope) < 1e-6


@pytest.mark.parametrize("members", [3, 4, 6])
def test_honest_sites_of_one_kind_all_score(members):
    """At the mean itself the scores sum to 0, and three honest sites could never make a model."""
    voids = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=6)
        x = rng.normal(size=(200, 5))
        y = (rng.random(200) < sigmoid(x @ truth[:-1] + truth[-1])).astype(float)
        honest = 0.7 * truth + 0.15 * rng.normal(size=(members, 6))
        phi = phi_from_utilities(taylor_scores(clip_to_median_norm(honest), x, y))
        voids += (phi > 0).sum() < 3
    assert voids <= 1


def test_shapley_is_the_mean_marginal_gain_over_all_orders():
    rng = np.random.default_rng(1)
    w, x, y = rng.normal(size=(4, 3)), rng.normal(size=(40, 2)), rng.integers(0, 2, 40)

    def gain(sites):
        z = x @ w[sites].mean(0)[:-1] + w[sites].mean(0)[-1] if sites else np.zeros(len(y))
        return np.log(2) - np.mean(np.logaddexp(0, z) - y * z)

    marginal = np.zeros(4)
    orders = list(itertools.permutations(range(4)))
    for order in orders:
        for place, site in enumerate(order):
            marginal[site] += gain(list(order[: place + 1])) - gain(list(order[:place]))
    assert np.allclose(coalition_scores(w, x, y, "shapley"), marginal / len(orders))
    everyone = [0, 1, 2, 3]
    left = [gain(everyone) - gain([s for s in everyone if s != out]) for out in everyone]
    assert np.allclose(coalition_scores(w, x, y, "leave_one_out"), left)


@pytest.mark.parametrize("sites", [1, 3, 12, 13, 32])
def test_shapley_values_sum_to_the_gain_of_all(sites):
    members, weights = coalitions("shapley", sites)
    assert members[-1].all() and len({row.tobytes() for row in members}) == len(members)
    assert np.allclose(weights.sum(axis=1)[:-1], 0) and np.isclose(weights[-1].sum(), 1)
    assert len(members) == 2**sites - 1 if sites <= EXACT_MAX else len(members) <= SAMPLED_MAX
    with pytest.raises(ValueError, match="33 sites"):
        coalitions("shapley", 33)


def test_sampled_values_are_exact_where_all_are_drawn_and_near_them_where_half_are():
    rng = np.random.default_rng(2)
    (some, exact), (members, weights) = coalitions("shapley", 7), sampled(7, 2**7)
    gain = {row.tobytes(): rng.normal() for row in some}
    both = [np.array([gain[row.tobytes()] for row in rows]) for rows in (some, members)]
    assert np.allclose(both[0] @ exact, both[1] @ weights)

    # log-loss of twelve sites' mean scores, one of them turned round
    truth = rng.normal(size=60) * 2
    y, sites = truth + rng.logistic(size=60) > 0, truth + rng.normal(size=(12, 60)) * 3
    sites[4] = -sites[4]

    def phi(game):
        z = game[0] / game[0].sum(axis=1, keepdims=True) @ sites
        return phi_from_utilities(-np.mean(np.logaddexp(0, z) - y * z, axis=1) @ game[1])

    all_of_them, half = phi(coalitions("shapley", 12)), phi(sampled(12, 2048))
    assert np.abs(all_of_them - half).max() < 0.01 and half[4] == all_of_them[4] == 0


def test_the_polynomial_is_log_loss_on_the_whole_range():
    z = np.linspace(-8, 8, 4001)
    even = np.polynomial.polynomial.polyval((z / 8) ** 2, LOSS)
    assert np.max(np.abs(even + z / 2 - np.logaddexp(0, z))) <= 0.0103


def test_phi_is_clipped_at_zero_and_scaled_to_one():
    assert phi_from_utilities([2.0, -1.0, 0.5]).tolist() == [1.0, 0.0, 0.25]
    assert phi_from_utilities([1e-9, 0], noise=1e-6).tolist() == [0, 0]
    assert phi_from_utilities([-1, -2]).tolist() == [0, 0]
    assert phi_milli([0.0005, 0.0004, 1]) == [1, 0, 1000]


def test_aggregate_weighs_by_phi_and_refuses_fewer_than_three():
    assert aggregate([[1.0], [2.0], [4.0]], [1, 1, 2]).tolist() == [2.75]
    with pytest.raises(VoidRound):
        aggregate([[1.0], [2.0], [4.0]], [1, 0, 2])


def test_intervals_are_about_those_of_a_bootstrap():
    rng = np.random.default_rng(4)
    y = np.arange(160) % 4 == 0
    z = rng.normal(size=160) + 1.4 * y
    found = []
    for _ in range(1000):
        rows = rng.integers(0, 160, 160)
        found.append([auc(z[rows], y[rows]), accuracy(z[rows] - 0.9, y[rows])])
    ends = np.quantile(found, [0.025, 0.975], axis=0).T
    assert np.allclose(auc_interval(auc(z, y), 40, 120), ends[0], atol=0.025)
    assert np.allclose(share_interval(accuracy(z - 0.9, y), 160), ends[1], atol=0.025)
    assert auc_interval(1.0, 5, 5) == (pytest.approx(0.6427, abs=1e-4), 1.0)
    assert auc_interval(1.0, 62, 108) == (pytest.approx(0.9751, abs=1e-4), 1.0)
    assert auc_interval(0.0, 5, 5) == (0.0, pytest.approx(0.3573, abs=1e-4))
    assert share_interval(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-3))


def test_how_many_are_called_positive_follows_from_what_is_opened():
    y = np.arange(160) % 4 == 0
    z = np.random.default_rng(4).normal(size=160) + 1.4 * y - 0.9
    called = called_positive(160, 40, round(accuracy(z, y), 3), round(recall(z, y), 3))
    assert called == np.sum(z >= 0)
    found = []
    rng = np.random.default_rng(5)
    for _ in range(1000):
        rows = rng.integers(0, 160, 160)
        found.append(precision(z[rows], y[rows]))
    ends = np.quantile(found, [0.025, 0.975])
    assert np.allclose(share_interval(precision(z, y), called), ends, atol=0.025)


def test_the_interval_of_a_c_index_is_no_narrower_than_its_spread():
    rng, found = np.random.default_rng(6), []
    for _ in range(300):
        risk = rng.normal(size=120)
        times = rng.exponential(np.exp(-risk))
        events = times < 0.7
        found.append((c_index(risk, times.clip(max=0.7), events), events.sum()))
    values = np.array([value for value, _ in found])
    ends = np.array([auc_interval(value, int(count), 120) for value, count in found])
    inside = np.mean((ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1]))
    assert inside > 0.95
    assert np.mean(ends[:, 1] - ends[:, 0]) < 2 * (2 * 1.96 * values.std())


def inside(ends, truth):
    """In what part of the draws an interval holds the truth."""
    return np.mean([low <= truth <= high for low, high in ends])


@pytest.mark.parametrize(("rows", "noise", "least"), [(30, "normal", 0.93), (300, "t", 0.92)])
def test_the_interval_of_r_squared_holds_the_true_one(rows, noise, least):
    """Also where errors have heavier tails than normal ones (Student's t, 5)."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2000, rows))
    tails = rng.standard_t(5, size=x.shape) * 0.6**0.5
    y = x + (tails if noise == "t" else rng.normal(size=x.shape))
    ends = []
    for truth, found in zip(y, x, strict=True):
        rho = 1 - r_squared(found, truth)
        ends.append(spread_interval(rho, r_squared_spread(found, truth), rows))
    assert least < inside(ends, 0.5) < 0.98


@pytest.mark.parametrize(("rows", "sure", "least"), [(30, 1, 0.93), (300, 3, 0.93)])
def test_the_interval_of_log_loss_holds_the_true_one(rows, sure, least):
    """Also of a model that is three times too sure."""
    rng = np.random.default_rng(8)
    z = 2 * rng.normal(size=(2000, rows))
    y = rng.random(z.shape) < 1 / (1 + np.exp(-z))
    ends = [
        spread_interval(log_loss(sure * a, b), log_loss_spread(sure * a, b), rows)
        for a, b in zip(z, y, strict=True)
    ]
    assert least < inside(ends, log_loss(sure * z, y)) < 0.98


def test_the_interval_of_r_squared_is_about_that_of_a_bootstrap():
    rng = np.random.default_rng(9)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    drawn = [r_squared(x[rows], y[rows]) for rows in rng.integers(0, 200, (1000, 200))]
    low, high = spread_interval(1 - r_squared(x, y), r_squared_spread(x, y), 200)
    assert np.allclose([1 - high, 1 - low], np.quantile(drawn, [0.025, 0.975]), atol=0.03)


def test_spreads_of_what_does_not_vary_and_of_one_wild_row():
    assert r_squared([1, 2], [3, 3]) is None and r_squared_spread([1, 2], [3, 3]) is None
    assert log_loss_spread([], []) is None and log_loss_spread([1.0, 1.0], [1, 1]) == 0
    low, high = spread_interval(0.0, 1e9, 6)
    assert 0 < low < 1e-20 and 1e15 < high < float("inf")


def test_auc_counts_ties_half_and_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    assert auc([1, 1], [1, 0]) == 0.5
    assert auc([1, 2], [1, 1]) is None
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 9, 80), rng.integers(0, 2, 80)
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert accuracy([0.0, -1.0, 2.0], [1, 1, 0]) == pytest.approx(1 / 3)
    assert accuracy([], []) is None


def test_normalisation_is_exact_on_integers_and_refuses_nonsense():
    rows = np.array([[1, 5], [3, 5], [5, 5]])
    sums = [3, *rows.sum(0).tolist(), *(rows**2).sum(0).tolist()]
    mean, std = normalisation([str(value << 20) for value in sums], 2)
    assert (mean, std) == ([3.0, 5.0], [2.0, 1.0])
    with pytest.raises(ValueError, match="fit"):
        normalisation(["1"], 2)
    with pytest.raises(ValueError, match="two rows"):
        normalisation([1 << 20, 0, 0], 1)


@pytest.mark.parametrize(
    ("circuit", "params"),
    [
        ("moments@1", {}),
        ("moments@1", {"features": True}),
        ("moments@1", {"features": 1, "more": 1}),
        ("logistic_infer@1", {"features": 3, "rows": 10_001}),
        ("logistic_infer@1", {"features": 3, "rows": 1, "normalisation": "ab" * 31}),
        ("logistic_round@1", PARAMS | {"rows": []}),
        ("logistic_round@1", PARAMS | {"rows": [1]}),
        ("logistic_round@1", PARAMS | {"min_cell": 1}),
        ("logistic_round@1", PARAMS | {"strata": 99}),
        ("logistic_round@1", PARAMS | {"scoring": "shapely"}),
        ("logistic_round@1", PARAMS | {"scoring": ["taylor"]}),
    ],
)
def test_bad_parameters_are_named(circuit, params):
    with pytest.raises(BadParams, match=r"parameter|validator"):
        CIRCUITS[circuit].validate(params)


def test_declarations_are_complete_and_the_hash_is_stable():
    assert circuits_hash() == circuits_hash()
    assert len(bytes.fromhex(circuits_hash())) == 32
    for key, circuit in CIRCUITS.items():
        assert key == circuit.id
        assert circuit.sealed or circuit.opens
        assert set(circuit.result_allows) <= set(CIRCUITS)
