"""The mean of local models beside pooled training, on real data, for each class (docs/learning.md).

In real numbers, by the classes' own trainers and the clipping that circuits do; honest sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

from apps.protocol.circuits import CLASSES
from apps.protocol.contribution import clip_to_median_norm
from apps.protocol.metrics import c_index

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


def test_linear_regression_on_six_parts_of_the_diabetes_data() -> None:
    data = load_diabetes(scaled=False)
    x, y = standard(data.data), np.clip((data.target - 175) / 75, -2, 2)
    found = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(y))
        test, parts = order[:132], np.array_split(order[132:], 6)
        models = both("linear", x, y, parts, c=1.0)
        found.append([r_squared(y[test], x[test] @ w[0, :-1] + w[0, -1]) for w in models])
    mean, pooled = np.mean(found, axis=0)
    assert pooled > 0.48 and abs(mean - pooled) <= 0.001


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
