"""What a privacy budget costs in quality (docs/learning.md has the table of 20 seeds).

Rounds on the breast cancer data in the clear, with noise as three nodes make it, from fixed keys.
`python -m tests.client.test_noise_quality` prints the tables, with `linear` the second one alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import roc_auc_score

from apps.protocol.circuits import CIRCUITS, CLASSES
from apps.protocol.circuits.games import EXACT_MAX
from apps.protocol.circuits.least_squares import factor_of
from apps.protocol.metrics import r_squared
from apps.protocol.privacy import Budget
from workers.mpc.engines.base import share_of
from workers.mpc.engines.plain import run_plain
from workers.mpc.fixed import decode, encode
from workers.mpc.gaussian import discrete_gaussian
from workers.mpc.keystream import Keystream

HELD_SOLVED = 80
HELD, TESTED, C_TRAIN, CLIP_MILLI = 100, 170, 0.2, 1_000
EPSILONS = (1, 2, 4, 8, 16, 32)


def keyed(*name: int) -> Callable[[int, int], np.ndarray]:
    """Noise of three nodes whose keys are known."""

    def drawn(count: int, variance: int) -> np.ndarray:
        keys = [hashlib.sha256(repr((*name, node)).encode()).digest() for node in range(3)]
        each = [discrete_gaussian(Keystream(key), share_of(variance, 2), count) for key in keys]
        return np.sum(each, axis=0)

    return drawn


def aucs(seed: int, sites: int, epsilons: Sequence[int], clip_milli: int) -> list[float]:
    """AUC on rows that nobody trained or judged by: without a budget, then at each ε of one round;
    ½ where too few sites helped for a model."""
    rng, data = np.random.default_rng(seed), load_breast_cancer()
    y = 1 - data.target
    order = rng.permutation(len(y))
    held, tested, rest = np.split(order, [HELD, HELD + TESTED])
    x = np.clip((data.data - data.data[rest].mean(0)) / data.data[rest].std(0), -16, 16)
    parts: list[np.ndarray] = []
    while not parts or any(len(part) < 6 or len(set(y[part])) < 2 for part in parts):
        cuts = np.cumsum(rng.dirichlet([8] * sites) * len(rest)).astype(int)[:-1]
        parts = np.split(rng.permutation(rest), cuts)
    train = CLASSES["logistic"].train
    values = {
        "update": [encode(train(x[p], y[p], 1, C_TRAIN).reshape(-1)) for p in parts],
        "holdout": [encode(np.column_stack([x[held], y[held]]))],
    }
    params = {"features": 30, "strata": 0, "rows": [HELD], "min_cell": 5, "scoring": "taylor"}
    budgets = [Budget(1000 * epsilon, 1, clip_milli).params for epsilon in epsilons]
    found = []
    for place, noise in enumerate([{}, *budgets]):
        outcome = run_plain(
            CIRCUITS["logistic_round@1"], values, params | noise, noise=keyed(seed, sites, place)
        )
        if outcome.result is None:
            found.append(0.5)
            continue
        w = decode(outcome.result.words[0], 24)  # type: ignore[attr-defined]
        found.append(float(roc_auc_score(y[tested], x[tested] @ w[:-1] + w[-1])))
    return found


def r2s(seed: int, sites: int, epsilons: Sequence[int], clip_milli: int) -> list[float]:
    """R² of linear regression on the diabetes data, as `aucs`: without a budget all sites' least
    squares, then the mean of their own; 0 without a model."""
    rng, (rows, y) = np.random.default_rng(seed), load_diabetes(return_X_y=True)
    order, y = rng.permutation(len(y)), 4 * (y - 185.5) / 321
    held, tested, rest = np.split(order, [HELD_SOLVED, HELD_SOLVED + HELD])
    x = np.clip((rows - rows[rest].mean(0)) / rows[rest].std(0), -16, 16)
    parts = np.array_split(rest, sites)
    values = {
        "update": [encode(factor_of(x[p], y[p])) for p in parts],
        "holdout": [encode(np.column_stack([x[held], y[held]]))],
    }
    params = {"features": 10, "strata": 0, "rows": [HELD_SOLVED], "min_cell": 5}
    budgets = [Budget(1000 * epsilon, 1, clip_milli).params for epsilon in epsilons]
    found = []
    for place, noise in enumerate([{}, *budgets]):
        outcome = run_plain(
            CIRCUITS["linear_round@1"],
            values,
            params | {"scoring": "shapley" if sites <= EXACT_MAX else "taylor"} | noise,
            noise=keyed(seed, sites, place),
        )
        if outcome.result is None:
            found.append(0.0)
            continue
        w = decode(outcome.result.words[0], 24)  # type: ignore[attr-defined]
        found.append(r_squared(x[tested] @ w[:-1] + w[-1], y[tested]))
    return found


def test_a_budget_leaves_of_a_solved_model_what_its_sites_and_epsilon_say() -> None:
    none, large, small = np.mean([r2s(seed, 12, (32, 1), 500) for seed in range(4)], 0)
    assert none > 0.4 and none - 0.2 < large < none
    assert small < 0


def test_a_large_budget_costs_little_and_a_small_one_nearly_all() -> None:
    none, large, small = np.mean([aucs(seed, 12, (32, 1), CLIP_MILLI) for seed in range(4)], 0)
    assert none > 0.97 and large > none - 0.02
    assert small < none - 0.1


def table(measure: Callable[..., list[float]], clips: Sequence[int], digits: int) -> None:
    print("| sites | C | none |", " | ".join(f"ε = {epsilon}" for epsilon in EPSILONS), "|")
    for sites in (6, 12, 24):
        for clip_milli in clips:
            found = np.array([measure(seed, sites, EPSILONS, clip_milli) for seed in range(20)])
            mean, least = found.mean(0), found.min(0)
            cells = [f"{a:.{digits}f} ({b:.2f})" for a, b in zip(mean, least, strict=True)]
            print(f"| {sites} | {clip_milli / 1000:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["linear"]:
        table(aucs, (500, 1_000, 2_000), 3)
    table(r2s, (250, 500, 1_000), 2)
