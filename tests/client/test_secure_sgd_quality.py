"""Steps on shared rows beside the same steps in real numbers and beside pooled training, on real
data (docs/learning.md). The plain engine computes on the words that shares would hold.

`python -m tests.client.test_secure_sgd_quality` prints the means of the seeds that docs name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from apps.protocol.circuits import CIRCUITS, CLASSES
from apps.protocol.circuits.descent import DEFAULTS, defaults_of
from apps.protocol.contribution import phi_from_utilities
from apps.protocol.descent import descend, scores_of
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode

Site = tuple[np.ndarray, np.ndarray]


def standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)


def scores(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x @ weights[:, :-1].T + weights[:, -1]


def site(x: np.ndarray, y: np.ndarray) -> Site:
    """A site's rows, alike in every step: by target, as the agent orders them."""
    order = np.argsort(y if y.ndim == 1 else y @ np.arange(y.shape[1]), kind="stable")
    return x[order], (y[:, None] if y.ndim == 1 else y)[order]


def on_words(name: str, sites: Sequence[Site], holdout: Site) -> np.ndarray:
    """The weights [o, d + 1] that the circuit makes."""
    features, targets = sites[0][0].shape[1], sites[0][1].shape[1]
    params: dict[str, Any] = {
        "features": features,
        "strata": 0,
        "rows": [len(holdout[0])],
        "min_cell": 5,
        "site_rows": [len(x) for x, _ in sites],
        **DEFAULTS,
        **({"classes": targets} if name == "multinomial" else {}),
    }
    values = {
        "rows": [encode(np.column_stack(each)) for each in sites],
        "holdout": [encode(np.column_stack(holdout))],
    }
    outcome = run_plain(CIRCUITS[CLASSES[name].sgd_id], values, params)
    return decode(outcome.result.words[0], 24).reshape(-1, features + 1)  # type: ignore[union-attr, attr-defined]


def half(holdout: Site) -> Site:
    return holdout[0][::2], holdout[1][::2]


def cancer(seed: int, sites: int = 5) -> tuple[np.ndarray, ...]:
    data = load_breast_cancer()
    x, y = standard(data.data), data.target.astype(float)
    order = np.random.default_rng(seed).permutation(len(y))
    return x, y, order[:150], order[150:250], order[250:]


def logistic(seed: int, *, words: bool) -> list[float]:
    """AUC of the steps in real numbers, of pooled training and, with `words`, of the circuit."""
    x, y, test, hold, rest = cancer(seed)
    sites = [site(x[part], y[part]) for part in np.array_split(rest, 5)]
    holdout = site(x[hold], y[hold])
    models = [descend(sites, [half(holdout)], DEFAULTS, kind="logistic").weights]
    models.append(CLASSES["logistic"].train(x[rest], y[rest], 1, 1.0))
    models += [on_words("logistic", sites, holdout)] if words else []
    return [float(roc_auc_score(y[test], scores(w, x[test])[:, 0])) for w in models]


def linear(seed: int) -> list[float]:
    """R² of the circuit and of the exact solution of all rows."""
    data = load_diabetes(scaled=False)
    x, y = standard(data.data), np.clip((data.target - 175) / 75, -2, 2)
    order = np.random.default_rng(seed).permutation(len(y))
    test, hold, rest = order[:132], order[132:182], order[182:]
    sites = [site(x[part], y[part]) for part in np.array_split(rest, 5)]
    models = (
        on_words("linear", sites, site(x[hold], y[hold])),
        CLASSES["linear"].train(x[rest], y[rest], 1, 1.0),
    )
    squares = [np.mean((y[test] - scores(w, x[test])[:, 0]) ** 2) for w in models]
    return [float(1 - square / np.var(y[test])) for square in squares]


def digits(seed: int, *, skewed: bool) -> list[float]:
    """Accuracy of the circuit and of pooled multinomial regression."""
    data = load_digits()
    x, y = standard(data.data), data.target
    order = np.random.default_rng(seed).permutation(len(x))
    test, hold, rest = order[:500], order[500:700], order[700:]
    parts = two_digits_each(y, rest, seed) if skewed else np.array_split(rest, 5)
    one = np.eye(10)[y]
    models = (
        on_words("multinomial", [site(x[p], one[p]) for p in parts], site(x[hold], one[hold])),
        CLASSES["multinomial"].train(x[rest], y[rest], 10, 0.1),
    )
    return [float(np.mean(np.argmax(scores(w, x[test]), axis=1) == y[test])) for w in models]


def test_logistic_steps_are_as_good_as_pooled_training() -> None:
    clear, pooled = np.mean([logistic(seed, words=False) for seed in range(20)], axis=0)
    assert pooled > 0.99 and abs(clear - pooled) <= 0.003


def test_words_lose_nothing_against_real_numbers() -> None:
    clear, _, words = np.mean([logistic(seed, words=True) for seed in range(4)], axis=0)
    assert clear > 0.98 and abs(words - clear) <= 0.001


def test_linear_steps_on_words_are_as_good_as_the_exact_solution_of_all_rows() -> None:
    words, pooled = np.mean([linear(seed) for seed in range(10)], axis=0)
    assert pooled > 0.45 and abs(words - pooled) <= 0.005


def test_digits_lose_nothing_where_sites_see_two_digits_each() -> None:
    """There the mean of local models is 0.05 behind (test_pooled_quality)."""
    words, pooled = np.mean([digits(seed, skewed=True) for seed in range(2)], axis=0)
    assert pooled > 0.94 and words >= pooled - 0.01


@pytest.mark.parametrize("name", ["mlp", "mlp2"])
def test_networks_lose_nothing_where_sites_see_two_digits_each(name: str) -> None:
    """In real numbers; words differ from them by rounding (tests/mpc/test_descent.py)."""
    data, found = load_digits(), []
    x, y, one = np.clip(standard(data.data), -16, 16), data.target, np.eye(10)[data.target]
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(x))
        test, hold, rest = order[:500], order[500:700], order[700:]
        sites = [site(x[part], one[part]) for part in two_digits_each(y, rest, seed)]
        hidden = CLASSES[name].hidden
        done = descend(
            sites,
            [half(site(x[hold], one[hold]))],
            defaults_of(CLASSES[name]),
            kind=name,
            hidden=hidden,
        )
        pooled = MLPClassifier(hidden, max_iter=300, random_state=seed).fit(x[rest], y[rest])
        right = np.mean(np.argmax(scores_of(done.layers, x[test]), axis=1) == y[test])
        found.append([right, pooled.score(x[test], y[test])])
    steps, pooled_found = np.mean(found, axis=0)
    assert pooled_found > 0.94 and steps >= pooled_found - 0.01


def two_digits_each(y: np.ndarray, rest: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows of five sites: nine in ten of each are of two digits."""
    own = [rest[np.isin(y[rest], (d, d + 1))] for d in range(0, 10, 2)]
    spare = np.concatenate([rows[int(0.9 * len(rows)) :] for rows in own])
    parts = np.array_split(np.random.default_rng(seed).permutation(spare), 5)
    return [
        np.concatenate([rows[: int(0.9 * len(rows))], more])
        for rows, more in zip(own, parts, strict=True)
    ]


def going_on(seed: int) -> list[float]:
    """Log-loss of the first round's model, of one of few epochs that goes on from it, of such a one
    from zero, and of one from zero to its end. Two sites join three; rows are standardised as those
    three's were (docs/learning.md)."""
    few = {**DEFAULTS, "epochs": 4}
    x, y, test, hold, rest = cancer(seed)
    parts = np.array_split(rest, 5)
    known = np.concatenate(parts[:3])
    x = (x - x[known].mean(0)) / x[known].std(0)
    sites = [site(x[part], y[part]) for part in parts]
    holdout = half(site(x[hold], y[hold]))
    first = descend(sites[:3], [holdout], DEFAULTS, kind="logistic").weights
    models = [
        first,
        descend(sites, [holdout], few, kind="logistic", start=[first]).weights,
        descend(sites, [holdout], few, kind="logistic").weights,
        descend(sites, [holdout], DEFAULTS, kind="logistic").weights,
    ]
    return [log_loss(y[test], scores(w, x[test])[:, 0]) for w in models]


def test_a_round_that_goes_on_needs_fewer_steps_than_one_from_zero() -> None:
    first, on, zero, long = np.mean([going_on(seed) for seed in range(20)], axis=0)
    assert on < first and on < zero - 0.02 and on < long + 0.003


def log_loss(y: np.ndarray, z: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, z) - y * z))


@pytest.mark.parametrize("goes_on", [False, True])
def test_steps_find_bad_sites_and_take_no_honest_one_for_bad(goes_on: bool) -> None:
    """Six sites, then with two bad ones in their midst: 20 seeds each (docs/learning.md)."""
    lost, found, wronged = 0, 0, 0
    for seed in range(20):
        x, y, _, hold, rest = cancer(seed)
        rng = np.random.default_rng(seed)
        start = None
        if goes_on:
            start = CLASSES["logistic"].train(x[rest], y[rest], 1, 1.0)
        parts = np.array_split(rest, 6)
        holdout = half(site(x[hold], y[hold]))
        honest = [site(x[p], y[p]) for p in parts]
        lost += int(np.sum(_phi(honest, holdout, start) == 0))
        noise, flipped = rng.integers(0, 2, len(parts[4])).astype(float), y[parts[5]].copy()
        turned = rng.random(len(flipped)) < 0.8
        flipped[turned] = 1 - flipped[turned]
        bad = [site(x[parts[4]], noise), site(x[parts[5]], flipped)]
        phi = _phi([*honest[:4], *bad], holdout, start)
        few = phi < 0.1 * np.median(phi)
        found, wronged = found + int(few[4:].sum()), wronged + int(few[:4].sum())
    assert (lost, wronged) == (0, 0)
    assert found >= 36


def _phi(sites: Sequence[Site], holdout: Site, start: np.ndarray | None) -> np.ndarray:
    begin = None if start is None else [start]
    done = descend(sites, [holdout], DEFAULTS, kind="logistic", start=begin)
    return phi_from_utilities(done.utilities)


if __name__ == "__main__":
    every: dict[str, list[list[float]]] = {
        "breast cancer: real numbers, pooled, words": [logistic(s, words=True) for s in range(20)],
        "diabetes: words, pooled": [linear(seed) for seed in range(20)],
        "digits: words, pooled": [digits(seed, skewed=False) for seed in range(5)],
        "digits, two each: words, pooled": [digits(seed, skewed=True) for seed in range(5)],
        "going on: first, on, few from zero, long": [going_on(seed) for seed in range(20)],
    }
    for name, found in every.items():
        apart = np.max(np.abs(np.array(found)[:, 0] - np.array(found)[:, -1]))
        print(f"{name}: {np.mean(found, axis=0).round(4)}, first and last apart {apart:.4f}")
