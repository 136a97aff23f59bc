"""What φ says of sites that do not play fair (docs/learning.md has the table of 20 seeds).

Eight sites on breast cancer data, one of them bad in one way; real numbers, by the formulas that
circuits compute on shares. `python -m tests.client.test_attacks` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.games import SCORINGS
from apps.protocol.contribution import (
    clip_to_median_norm,
    coalition_scores,
    copies,
    phi_from_utilities,
    phi_milli,
    taylor_scores,
    upper_median,
    without_copies,
)

SITES, C = 8, 0.2
Attack = Callable[["Federation", np.random.Generator], np.ndarray]


class Federation:
    """Honest updates of SITES uneven sites, and the scoring half of a holdout."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        data = load_breast_cancer()
        x, y = data.data, 1 - data.target
        order = rng.permutation(len(y))
        held, rest = order[:170], order[170:]
        x = (x - x[rest].mean(0)) / x[rest].std(0)
        cuts = np.cumsum(rng.dirichlet([8] * SITES) * len(rest)).astype(int)[:-1]
        self.parts = np.split(rest, cuts)
        self.x, self.y, self.half = x, y, held[::2]
        self.updates = np.array([self.train(part, y[part]) for part in self.parts])

    def train(self, part: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return CLASSES["logistic"].train(self.x[part], labels, 1, C).reshape(-1)

    def judged(self, updates: np.ndarray, scoring: str, lie: str) -> np.ndarray:
        """φ by three validators with a third of the scoring rows each, the first of whom lies."""
        clipped = clip_to_median_norm(updates)
        said = []
        for judge in range(3):
            rows = self.x[self.half[judge::3]]
            labels = self.y[self.half[judge::3]].astype(float)
            if judge == 0 and lie == "low":
                labels = 1 - labels
            elif judge == 0 and lie == "high":  # what the first site's model would predict
                labels = (rows @ clipped[0, :-1] + clipped[0, -1] > 0).astype(float)
            elif judge == 0 and lie == "huge":
                rows, labels = 16 * np.sign(rows), 1 - labels
            said.append(utilities(clipped, rows, labels, scoring))
        return phi_from_utilities(upper_median(said, [1, 1, 1]))

    def phi(self, updates: np.ndarray, scoring: str) -> np.ndarray:
        """The first site commits last: a copy is its own."""
        clipped, rows, labels = clip_to_median_norm(updates), self.x[self.half], self.y[self.half]
        phi = phi_milli(phi_from_utilities(utilities(clipped, rows, labels, scoring)))
        order = [len(updates), *range(1, len(updates))]
        return np.array(without_copies(phi, copies(updates), order)) / 1000


def utilities(
    clipped: np.ndarray, rows: np.ndarray, labels: np.ndarray, scoring: str
) -> np.ndarray:
    if scoring == "taylor":
        return taylor_scores(clipped, rows, labels)
    return coalition_scores(clipped, rows, labels, scoring)


def flip(share: float) -> Attack:
    def made(fed: Federation, rng: np.random.Generator) -> np.ndarray:
        part = fed.parts[0]
        labels = np.where(rng.random(len(part)) < share, 1 - fed.y[part], fed.y[part])
        return fed.train(part, labels)

    return made


def length(fed: Federation) -> float:
    return float(np.median(np.linalg.norm(fed.updates, axis=1)))


def noise(fed: Federation, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=fed.updates.shape[1])
    return drawn / np.linalg.norm(drawn) * length(fed)


# The first site's update is what the attack makes.
ATTACKS: dict[str, Attack] = {
    "honest": lambda fed, rng: fed.updates[0],
    "free rider: nothing": lambda fed, rng: np.zeros(fed.updates.shape[1]),
    "random": noise,
    "copy of another's": lambda fed, rng: fed.updates[1],
    "half of another's": lambda fed, rng: fed.updates[1] / 2,
    "copy with 1 % of noise": lambda fed, rng: fed.updates[1] + 0.01 * noise(fed, rng),
    "scaled by 10": lambda fed, rng: 10 * fed.updates[0],
    "sign flipped": lambda fed, rng: -fed.updates[0],
    "back door: one weight at the bound": lambda fed, rng: np.r_[64.0, fed.updates[0][1:]],
    "20 % of labels flipped": flip(0.2),
    "50 % of labels flipped": flip(0.5),
    "80 % of labels flipped": flip(0.8),
    "100 % of labels flipped": flip(1.0),
}


def scored(seed: int, attack: str, scoring: str, fed: Federation | None = None) -> np.ndarray:
    """φ of all sites, the bad one first."""
    fed = fed or Federation(seed)
    updates = fed.updates.copy()
    updates[0] = ATTACKS[attack](fed, np.random.default_rng(1000 + seed))
    return fed.phi(updates, scoring)


def found(phi: np.ndarray, bad: int = 1) -> bool:
    """Each bad site scores at most a tenth of the others' median."""
    return bool(max(phi[:bad]) <= 0.1 * np.median(phi[bad:]))


@pytest.fixture(scope="module")
def federations() -> list[Federation]:
    return [Federation(seed) for seed in range(3)]


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("attack", ["random", "sign flipped", "100 % of labels flipped"])
def test_who_works_against_the_others_scores_nothing(federations, attack, scoring) -> None:
    for seed, fed in enumerate(federations):
        assert found(scored(seed, attack, scoring, fed))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_scaling_an_update_up_by_ten_gains_what_clipping_leaves(federations, scoring) -> None:
    """Like an update of the median norm in the same direction, however large it was sent."""
    for fed in federations:
        updates = fed.updates.copy()
        updates[0] *= 10
        ten = fed.phi(updates, scoring)
        updates[0] *= 10
        assert np.allclose(ten, fed.phi(updates, scoring))


@pytest.mark.parametrize("attack", ["copy of another's", "half of another's"])
def test_who_copies_scores_nothing_and_who_was_copied_what_it_did(federations, attack) -> None:
    for seed, fed in enumerate(federations):
        phi = scored(seed, attack, "taylor", fed)
        assert phi[0] == 0 and phi[1] > 0


@pytest.mark.parametrize("lie", ["low", "high", "huge"])
@pytest.mark.parametrize("scoring", ["taylor", "shapley"])
def test_one_validator_of_three_that_lies_changes_who_is_found_by_nothing(
    federations, scoring, lie
) -> None:
    for seed, fed in enumerate(federations):
        assert (fed.judged(fed.updates, scoring, lie) > 0).sum() >= 3
        updates = fed.updates.copy()
        updates[0] = ATTACKS["80 % of labels flipped"](fed, np.random.default_rng(1000 + seed))
        assert found(fed.judged(updates, scoring, lie))


def test_two_validators_of_three_that_lie_alike_decide(federations) -> None:
    """The bound: they have more than half of the weight."""
    honest, lying = np.array([[1.0, 2.0]]), np.array([[-3.0, 9.0]] * 2)
    assert upper_median(np.concatenate([honest, lying]), [1, 1, 1]).tolist() == [-3.0, 9.0]


def test_honest_sites_are_nobodys_copies(federations) -> None:
    for fed in federations:
        assert copies(fed.updates) == []


@pytest.mark.parametrize("scoring", ["taylor", "leave_one_out"])
def test_two_bad_sites_of_eight_are_both_found(scoring) -> None:
    for seed in range(3):
        assert found(two_bad(seed, scoring), 2)


def two_bad(seed: int, scoring: str, fed: Federation | None = None) -> np.ndarray:
    """φ where the first site flips 80 % of its labels and the second one sends a random update."""
    fed, rng = fed or Federation(seed), np.random.default_rng(1000 + seed)
    updates = fed.updates.copy()
    updates[0], updates[1] = flip(0.8)(fed, rng), noise(fed, rng)
    return fed.phi(updates, scoring)


def table(seeds: int = 20) -> str:
    """The table of docs/learning.md, a line an attack, a column a scoring.

    A cell is: mean φ of the bad site / mean of the others' median, seeds in which it was found.
    """
    feds = [Federation(seed) for seed in range(seeds)]
    lines = ["| one of eight sites | " + " | ".join(SCORINGS) + " |", "|---|---|---|---|"]
    for attack in ATTACKS:
        cells = []
        for scoring in SCORINGS:
            phis = [scored(seed, attack, scoring, fed) for seed, fed in enumerate(feds)]
            cells.append(_cell(phis, 1))
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    cells = [
        _cell([two_bad(s, scoring, fed) for s, fed in enumerate(feds)], 2) for scoring in SCORINGS
    ]
    lines.append("| two at once: 80 % flipped, random (the larger φ) | " + " | ".join(cells) + " |")
    honest = [
        [scored(s, "honest", scoring, fed) for s, fed in enumerate(feds)] for scoring in SCORINGS
    ]
    voids = [str(sum((phi > 0).sum() < 3 for phi in phis)) for phis in honest]
    lines.append("| honest rounds without a model | " + " | ".join(voids) + " |")
    return "\n".join(lines)


def _cell(phis: list[np.ndarray], bad: int) -> str:
    mine, others = (
        np.mean([max(phi[:bad]) for phi in phis]),
        np.mean([np.median(phi[bad:]) for phi in phis]),
    )
    return f"{mine:.2f} / {others:.2f}, {sum(found(phi, bad) for phi in phis)}"


if __name__ == "__main__":
    print(table())
