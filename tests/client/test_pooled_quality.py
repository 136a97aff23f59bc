"""What a round makes of its sites beside pooled training, for each class (docs/learning.md).

Means of local models in real numbers, by the classes' own trainers and the clipping that circuits
do; least squares on words; honest sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.least_squares import factor_of, merged, models
from apps.protocol.contribution import clip_to_median_norm
from apps.protocol.encoding import encode as encode_levels
from apps.protocol.encoding import width
from apps.protocol.metrics import auc, c_index, skill
from workers.mpc.engines.base import Shared
from workers.mpc.engines.plain import Plain
from workers.mpc.fixed import decode, encode

SEEDS = range(20)


def standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)


def both(
    name: str, x: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray], c: float, outputs: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(mean of the sites' clipped models, model of all their rows), [o, d + 1] each."""
    train = CLASSES[name].train
    updates = [train(x[part], y[part], outputs, c).reshape(-1) for part in parts]
    mean = clip_to_median_norm(updates).mean(axis=0).reshape(outputs, -1)
    rows = np.concatenate(parts)
    return mean, train(x[rows], y[rows], outputs, c)


def r_squared(y: np.ndarray, found: np.ndarray) -> float:
    return 1 - float(np.sum((y - found) ** 2) / np.sum((y - y.mean()) ** 2))


def test_linear_regression_of_six_uneven_parts_of_the_diabetes_data_is_that_of_all_rows() -> None:
    data = load_diabetes(scaled=False)
    x, y = standard(data.data), np.clip((data.target - 175) / 75, -2, 2)
    found = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(y))
        test, rest = order[:132], order[132:]
        parts = np.split(rest, [20, 50, 90, 150, 220])
        solved = solved_on_words([factor_of(x[part], y[part]) for part in parts], x.shape[1])
        both_models = (solved, CLASSES["linear"].train(x[rest], y[rest], 1, 1.0)[0])
        assert np.abs(both_models[0] - both_models[1]).max() < 2e-4
        found.append([r_squared(y[test], x[test] @ w[:-1] + w[-1]) for w in both_models])
    words, pooled = np.transpose(found)
    assert pooled.mean() > 0.48 and np.abs(words - pooled).max() <= 0.001


WORDS = {"mean texture": 3, "mean smoothness": 3, "worst radius": 4, "worst concave points": 2}


@pytest.mark.parametrize("skewed", [False, True])
def test_levels_that_a_site_may_lack_cost_little_beside_pooled_training(skewed: bool) -> None:
    """M-FL1. Four columns of breast cancer as categories; a skewed site has no row of one to three
    of the four levels of the radius."""
    data = load_breast_cancer()
    names, x, y = list(data.feature_names), data.data.copy(), 1 - data.target
    features: list[dict[str, object]] = [{"name": name} for name in names]
    for name, count in WORDS.items():
        j = names.index(name)
        x[:, j] = np.searchsorted(np.quantile(x[:, j], np.arange(1, count) / count), x[:, j])
        features[j] |= {"type": "category", "levels": [f"{place}" for place in range(count)]}
    radius, encoded = x[:, names.index("worst radius")], encode_levels(x, features)
    numbers = len(names) - len(WORDS)
    assert encoded.shape[1] == width(features) == numbers + 8
    encoded[:, :numbers] = standard(encoded[:, :numbers])
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        test, rest = order[:170], order[170:]
        if skewed:
            rest = rest[np.argsort(radius[rest] + rng.integers(0, 2, len(rest)), kind="stable")]
            rest = np.roll(rest, 60)  # the first site has the largest and the smallest
        parts = np.split(rest, [130, 220, 290, 340, 375])
        lacking = [len(np.unique(radius[part])) < 4 for part in parts]
        assert any(lacking) or not skewed
        parts = [part for part in parts if len(np.unique(y[part])) == 2]
        assert len(parts) >= 4
        models = both("logistic", encoded, y, parts, c=1.0)
        found.append([auc(encoded[test] @ w[0, :-1] + w[0, -1], y[test]) for w in models])
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.98 and abs(mean - pooled) <= 0.003


def test_features_that_are_nearly_copies_of_one_another_get_the_pooled_weights() -> None:
    rng, sites = np.random.default_rng(0), []
    for _ in range(4):
        x = rng.normal(size=(4000, 10))
        x[:, 1] = 0.9999 * x[:, 0] + np.sqrt(1 - 0.9999**2) * x[:, 1]
        y = 0.4 * x[:, 0] - 0.3 * x[:, 1] + 0.03 * x[:, 2:].sum(1)
        sites.append((x, np.clip(y + 0.3 * rng.normal(size=4000), -2, 2)))
    pooled = CLASSES["linear"].train(*map(np.concatenate, zip(*sites)), 1, 1.0)[0]
    assert np.abs(solved_on_words([factor_of(*site) for site in sites], 10) - pooled).max() < 5e-4


def solved_on_words(updates: Sequence[np.ndarray], features: int) -> np.ndarray:
    """The model [d + 1] as nodes solve it, on 16-bit words in the clear."""
    ops, words = Plain(), np.array([encode(update) for update in updates])
    secret = Shared((words.astype(np.int64).astype(np.uint64),), 16)
    with np.errstate(over="ignore"):
        _, _, kept = models(ops, secret, {"features": features})
        return decode(merged(ops, kept, [1] * len(updates)).words[0], 24)


def weekly(rng: np.random.Generator, days: int) -> np.ndarray:
    """A series of days: a week's course of the site's own strength, and what lasts of two days."""
    noise, left = rng.normal(size=days + 50), np.zeros(days + 50)
    for day in range(2, days + 50):
        left[day] = 0.5 * left[day - 1] + 0.2 * left[day - 2] + 0.25 * noise[day]
    course = rng.uniform(0.2, 0.6) * np.sin(2 * np.pi * (np.arange(days) / 7 + rng.uniform()))
    return np.clip(course + left[50:], -2, 2)


def lagged(values: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features [n, lags], values [n], those a week before)."""
    days = np.arange(lags, len(values))
    features = np.column_stack([values[days - lag] for lag in range(1, lags + 1)])
    return features, values[days], values[days - 7]


def test_forecasts_of_six_uneven_series_are_those_of_all_rows() -> None:
    found, alone = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        sites = [lagged(weekly(rng, days), 8) for days in (60, 80, 120, 150, 200, 250)]
        later = [lagged(weekly(rng, 200), 8) for _ in range(3)]
        x, y, naive = (np.concatenate([each[part] for each in later]) for part in range(3))
        every = np.concatenate([features for features, _, _ in sites])
        mean, std = every.mean(0), every.std(0)
        each = [((features - mean) / std, values) for features, values, _ in sites]
        solved = solved_on_words([factor_of(*site) for site in each], 8)
        rows = [np.concatenate(part) for part in zip(*each)]
        pooled = CLASSES["forecaster"].train(rows[0], rows[1][:, None], 1, 1.0)[0]
        # and no further from ordinary least squares than a penalty of 1 brings it
        plain = np.linalg.lstsq(np.column_stack([rows[0], np.ones(len(rows[0]))]), rows[1])[0]
        assert np.abs(pooled - plain).max() < 0.01
        own = [CLASSES["linear"].train(*site, 1, 1.0)[0] for site in each]
        test = (x - mean) / std
        said = [test @ w[:-1] + w[-1] for w in (solved, pooled, *own)]
        found.append([[r_squared(y, z), *skill(y, z, naive)] for z in said[:2]])
        alone.append(np.mean([skill(y, z, naive)[0] for z in said[2:]]))
    words, whole = np.mean(found, axis=0)
    assert np.abs(words - whole).max() < 0.001 and whole[1] > 0.5
    assert np.mean(alone) < whole[1]


def test_poisson_regression_on_six_parts() -> None:
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        x, truth = rng.normal(size=(900, 8)), 0.25 * rng.normal(size=8)
        y = rng.poisson(np.exp(x @ truth + 0.8)).astype(float)
        models = both("poisson", x, y, np.array_split(np.arange(300, 900), 6), c=1.0)
        rates = [np.exp(x[:300] @ w[0, :-1] + w[0, -1]) for w in models]
        found.append([r_squared(y[:300], rate) for rate in rates])
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.55 and mean >= pooled - 0.005


def test_hazards_of_six_parts_half_of_whose_rows_are_censored() -> None:
    found, apart = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, truth = rng.normal(size=(900, 8)), 0.35 * rng.normal(size=8)
        born, watched = rng.exponential(np.exp(-x @ truth)), rng.exponential(size=900)
        y = np.column_stack([np.minimum(born, watched), born <= watched])
        models = both("cox", x, y, np.array_split(np.arange(300, 900), 6), c=1.0)
        scores = [x[:300] @ w[0, :-1] for w in models]
        found.append([c_index(z, *y[:300].T) for z in scores])
        apart.append(np.abs(models[1][0, :-1] - truth).max())
        assert not models[1][0, -1]
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.7 and abs(mean - pooled) <= 0.003
    assert np.mean(apart) < 0.15  # the trainer finds what the data were drawn from


@pytest.mark.parametrize(("skewed", "least"), [(False, 0.93), (True, 0.88)])
def test_digits_lose_by_averaging_where_sites_see_two_digits_each(skewed, least) -> None:
    """One-shot averaging falls visibly behind pooled training there; see docs/learning.md."""
    data = load_digits()
    x, y, found = standard(data.data), data.target, []
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(x))
        test, rest = order[:500], order[500:]
        parts = np.array_split(rest, 5)
        if skewed:  # nine tenths of two digits, and a fifth of what is left of all
            own = [rest[np.isin(y[rest], (d, d + 1))] for d in range(0, 10, 2)]
            spare = np.concatenate([rows[int(0.9 * len(rows)) :] for rows in own])
            spare = np.array_split(np.random.default_rng(seed).permutation(spare), 5)
            parts = [
                np.concatenate([rows[: int(0.9 * len(rows))], more])
                for rows, more in zip(own, spare)
            ]
        models = both("multinomial", x, y, parts, c=0.1, outputs=10)
        scores = [x[test] @ w[:, :-1].T + w[:, -1] for w in models]
        found.append([np.mean(np.argmax(z, axis=1) == y[test]) for z in scores])
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.95
    assert least <= mean < pooled
