"""φ beside the Shapley value of training anew with each coalition's rows (docs/learning.md has the
table): what scores would be if a model were made for every group of sites.

Breast cancer, uneven sites, honest or with two bad ones (random labels, 80 % flipped); real
numbers. `python -m tests.client.test_retraining` prints the table of 20 seeds.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from apps.protocol.circuits.descent import DEFAULTS
from apps.protocol.circuits.games import SCORINGS, coalitions
from apps.protocol.contribution import clip_to_median_norm, phi_from_utilities
from apps.protocol.descent import descend
from tests.client.test_attacks import C, Federation, utilities
from tests.client.test_secure_sgd_quality import site

STEPS = "steps"
ROSTERS = ("two bad", "honest")


def labels_of(fed: Federation, roster: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Of each site; with two bad the first one's are random and 80 % of the second's flipped."""
    found = [fed.y[part] for part in fed.parts]
    if roster == "two bad":
        found[0] = rng.permutation(np.arange(len(found[0])) % 2)
        found[1] = np.where(rng.random(len(found[1])) < 0.8, 1 - found[1], found[1])
    return found


def retrained(fed: Federation, labels: list[np.ndarray]) -> np.ndarray:
    """Exact Shapley values of gain(S) = L(0) − L(model of all of S's rows), on the rows that
    score."""
    members, shares = coalitions("shapley", len(labels))
    x, truth, gains = fed.x[fed.half], fed.y[fed.half], []
    for inside in members:
        rows = np.concatenate([fed.parts[k] for k in np.flatnonzero(inside)])
        own = np.concatenate([labels[k] for k in np.flatnonzero(inside)])
        z = LogisticRegression(C=C, max_iter=2000).fit(fed.x[rows], own).decision_function(x)
        gains.append(math.log(2) - np.mean(np.logaddexp(0, z) - truth * z))
    return np.array(gains) @ shares


def scored(fed: Federation, labels: list[np.ndarray], how: str) -> np.ndarray:
    """φ of all sites by a federated round's scoring, or by steps on shared rows."""
    if how == STEPS:
        rows = [site(fed.x[p], y.astype(float)) for p, y in zip(fed.parts, labels, strict=True)]
        judge = (fed.x[fed.half], fed.y[fed.half, None].astype(float))
        return phi_from_utilities(descend(rows, [judge], DEFAULTS, kind="logistic").utilities)
    updates = [fed.train(part, own) for part, own in zip(fed.parts, labels, strict=True)]
    clipped = clip_to_median_norm(updates)
    return phi_from_utilities(utilities(clipped, fed.x[fed.half], fed.y[fed.half], how))


def agreement(phi: np.ndarray, truth: np.ndarray) -> tuple[float, float, bool]:
    """(Spearman, Pearson, are the first two below all others) of φ against the values."""
    paid = np.maximum(truth, 0)
    last = bool(max(phi[:2]) < min(phi[2:]))
    return spearmanr(phi, truth).statistic, np.corrcoef(phi, paid)[0, 1], last


def test_scores_rank_bad_sites_as_training_anew_would() -> None:
    fed = Federation(0)
    labels = labels_of(fed, "two bad", np.random.default_rng(1000))
    truth = retrained(fed, labels)
    for how in ("taylor", STEPS):
        rank, _, last = agreement(scored(fed, labels, how), truth)
        assert rank > 0.5 and last
    honest = labels_of(fed, "honest", np.random.default_rng(1000))
    # values of all coalitions add up to the gain of all, which is most of what there is to gain
    assert retrained(fed, honest).sum() == pytest.approx(math.log(2), abs=0.15)


def table(seeds: int) -> None:
    for roster in ROSTERS:
        found: dict[str, list[tuple[float, float, bool]]] = {how: [] for how in (*SCORINGS, STEPS)}
        own = []
        for seed in range(seeds):
            fed = Federation(seed)
            labels = labels_of(fed, roster, np.random.default_rng(1000 + seed))
            truth = retrained(fed, labels)
            own.append(max(truth[:2]) < min(truth[2:]))
            for how, each in found.items():
                each.append(agreement(scored(fed, labels, how), truth))
        print(f"{roster}; last in the values themselves: {sum(own)}")
        for how, each in found.items():
            rank, line, last = np.array(each, float).T
            print(
                f"| {roster} | {how} | {rank.mean():.2f} ({rank.min():.2f}) | {line.mean():.2f} "
                f"| {int(last.sum())} |",
                flush=True,
            )


if __name__ == "__main__":
    table(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
