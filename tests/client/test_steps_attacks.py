"""What one site can do to a round of steps on shared rows (docs/learning.md has the table).

Six uneven sites on the breast cancer data, the first of them bad in one way, and three validators;
real numbers. `python -m tests.client.test_steps_attacks` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from apps.protocol.circuits.descent import DEFAULTS
from apps.protocol.contribution import phi_from_utilities
from apps.protocol.descent import descend, scores_of
from tests.client.test_secure_sgd_quality import cancer, site

SITES, INVENTED = 6, 60
Rows = tuple[np.ndarray, np.ndarray]
Attack = Callable[[np.ndarray, np.ndarray, np.random.Generator], Rows]


def invented(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Rows:
    """Rows at ±16, each feature by the sign of how it goes with the label."""
    way = np.sign([np.corrcoef(column, y)[0, 1] for column in x.T])
    labels = np.arange(INVENTED) % 2
    return 16.0 * way * (2 * labels[:, None] - 1), labels.astype(float)


# (features, labels, generator) -> the rows that the first site shares
ATTACKS: dict[str, Attack] = {
    "honest": lambda x, y, rng: (x, y),
    "rows repeated ten times": lambda x, y, rng: (np.tile(x, (10, 1)), np.tile(y, 10)),
    "60 invented rows at ±16": invented,
    "features times 16": lambda x, y, rng: (np.clip(16 * x, -16, 16), y),
    "random labels": lambda x, y, rng: (x, rng.integers(0, 2, len(y)).astype(float)),
    "80 % of labels flipped": lambda x, y, rng: (x, np.where(rng.random(len(y)) < 0.8, 1 - y, y)),
}


def played(seed: int, attack: str) -> tuple[np.ndarray, float]:
    """(φ, the bad site's first; AUC on 150 further rows)."""
    x, y, test, hold, rest = cancer(seed)
    rng = np.random.default_rng(100 + seed)
    cuts = np.cumsum(rng.dirichlet([8] * SITES) * len(rest)).astype(int)[:-1]
    parts = np.split(rest, cuts)
    bad = ATTACKS[attack](x[parts[0]], y[parts[0]], rng)
    sites = [site(*bad), *(site(x[part], y[part]) for part in parts[1:])]
    holdouts = [site(x[part], y[part]) for part in np.array_split(hold, 3)]
    done = descend(sites, holdouts, DEFAULTS, kind="logistic")
    auc = roc_auc_score(y[test], scores_of(done.layers, x[test])[:, 0])
    return phi_from_utilities(done.utilities), float(auc)


@pytest.mark.parametrize("seed", range(2))
def test_a_site_counts_for_two_at_most_whatever_rows_it_brings(seed: int) -> None:
    honest, _ = played(seed, "honest")
    for attack, most in (("rows repeated", 4), ("60 invented", 1), ("features times", 1)):
        phi, auc = played(seed, next(name for name in ATTACKS if name.startswith(attack)))
        assert phi[0] <= most * np.median(phi[1:]) and auc > 0.98
        # the others are paid among themselves as they are without it
        np.testing.assert_allclose(phi[1:] / phi[1:].max(), honest[1:] / honest[1:].max(), atol=0.1)


if __name__ == "__main__":
    for name in ATTACKS:
        found = [played(seed, name) for seed in range(20)]
        phi = np.array([each for each, _ in found])
        median = np.median(phi[:, 1:], axis=1)
        caught = int((phi[:, 0] <= 0.1 * median).sum())
        auc = np.mean([each for _, each in found])
        print(f"| {name} | {phi[:, 0].mean():.2f} / {median.mean():.2f}, {caught} | {auc:.4f} |")
