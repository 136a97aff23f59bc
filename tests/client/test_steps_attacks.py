"""What one site can do to a round of steps on shared rows (docs/learning.md has the table).

Six uneven sites on the breast cancer data, the first of them bad in one way, and three validators;
real numbers. Or one of the validators lies. `python -m tests.client.test_steps_attacks` prints both
tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


# what one of three validators does to its rows
LIES: dict[str, Callable[[np.ndarray, np.ndarray], Rows]] = {
    "nobody": lambda x, y: (x, y),
    "low": lambda x, y: (x, 1 - y),
    "huge": lambda x, y: (16.0 * np.sign(x), 1 - y),
}


class Played(NamedTuple):
    """φ, the bad site's first; AUC on 150 further rows; how many epochs."""

    phi: np.ndarray
    auc: float
    epochs: int


def played(seed: int, attack: str, lie: str = "nobody", *, together: bool = False) -> Played:
    """`together`: the validators' rows judge as one's would."""
    x, y, test, hold, rest = cancer(seed)
    rng = np.random.default_rng(100 + seed)
    cuts = np.cumsum(rng.dirichlet([8] * SITES) * len(rest)).astype(int)[:-1]
    parts = np.split(rest, cuts)
    bad = ATTACKS[attack](x[parts[0]], y[parts[0]], rng)
    sites = [site(*bad), *(site(x[part], y[part]) for part in parts[1:])]
    liar, *others = np.array_split(hold, 3)
    holdouts = [site(*LIES[lie](x[liar], y[liar])), *(site(x[part], y[part]) for part in others)]
    if together:
        rows, labels = zip(*holdouts, strict=True)
        holdouts = [(np.concatenate(rows), np.concatenate(labels))]
    done = descend(sites, holdouts, DEFAULTS, kind="logistic")
    auc = roc_auc_score(y[test], scores_of(done.layers, x[test])[:, 0])
    return Played(phi_from_utilities(done.utilities), float(auc), len(done.gains))


@pytest.mark.parametrize("seed", range(2))
def test_a_site_counts_for_two_at_most_whatever_rows_it_brings(seed: int) -> None:
    honest = played(seed, "honest").phi
    for attack, most in (("rows repeated", 4), ("60 invented", 1), ("features times", 1)):
        phi, auc, _ = played(seed, next(name for name in ATTACKS if name.startswith(attack)))
        assert phi[0] <= most * np.median(phi[1:]) and auc > 0.98
        # the others are paid among themselves as they are without it
        np.testing.assert_allclose(phi[1:] / phi[1:].max(), honest[1:] / honest[1:].max(), atol=0.1)


def caught(phi: np.ndarray) -> int:
    """In how many seeds [n, sites] the first site has a tenth of the others' median at most."""
    return int((phi[:, 0] <= 0.1 * np.median(phi[:, 1:], axis=1)).sum())


def line(attack: str) -> str:
    """Of the table of what a site's rows may be."""
    found = [played(seed, attack) for seed in range(20)]
    phi, auc = np.array([each.phi for each in found]), np.mean([each.auc for each in found])
    median = np.median(phi[:, 1:], axis=1).mean()
    return f"| {attack} | {phi[:, 0].mean():.2f} / {median:.2f}, {caught(phi)} | {auc:.4f} |"


def judged(attack: str, lie: str, *, together: bool) -> str:
    """A cell of the table of lying validators: in how many seeds the site was found, AUC, rounds
    without a model, honest sites at 0, mean epochs."""
    found = [played(seed, attack, lie, together=together) for seed in range(20)]
    phi = np.array([each.phi for each in found])
    honest = phi if attack == "honest" else phi[:, 1:]
    void = int(((phi > 0).sum(axis=1) < 3).sum())
    auc, epochs = (np.mean([each[at] for each in found]) for at in (1, 2))
    return f"{caught(phi)}, {auc:.4f}, {void}, {int((honest == 0).sum())}, {epochs:.0f}"


if __name__ == "__main__":
    print("\n".join(map(line, ATTACKS)), flush=True)
    for attack in ("honest", "random labels", "80 % of labels flipped"):
        for lie in LIES:
            cells = [judged(attack, lie, together=each) for each in (False, True)]
            print(f"| {attack} | {lie} | {cells[0]} | {cells[1]} |", flush=True)
