"""M-FL7 on the demonstration's sites: the free rider and the label flipper are found by φ alone.

In real numbers, by the formulas that the circuit computes on shares (tests/mpc shows that it does).
Nothing but "random update" and "wrong labels" sets the two apart: same sizes, same kind of rows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from apps.protocol.aggregation import aggregate
from apps.protocol.contribution import (
    clip_to_median_norm,
    flagged,
    phi_from_utilities,
    phi_milli,
    taylor_scores,
)
from apps.protocol.metrics import auc
from apps.protocol.normalise import SUMS_F, normalisation
from workers.client import data, training
from workers.demo import compare, sites

SEEDS = range(20)


def table(site: sites.Site, columns: tuple[str, ...]) -> data.Table:
    return data.Table(Path("x"), columns, site.features, site.labels, site.regions, 0, 0)


class Played:
    """One seed, played in real numbers."""

    def __init__(self, seed: int) -> None:
        self.made = made = sites.make(seed)
        tables = [table(site, made.columns) for site in made.custodians]
        sums = sum(training.moments(t, f=SUMS_F, sites=6) for t in tables)
        words = [str(int(value)) for value in np.round(sums * 2.0**SUMS_F)]
        self.scale = normalisation(words, len(made.columns))
        updates = []
        for site in made.custodians:
            if site.weights is not None:
                updates.append(site.weights)
            else:
                rows = training.standardise(site.features, *self.scale)
                updates.append(training.train(rows, site.labels, c=sites.TRAIN_C))
        scoring, proving = self.halves()
        clipped = clip_to_median_norm(updates)
        utilities = taylor_scores(clipped, *scoring)
        opened = phi_milli(phi_from_utilities(utilities))
        self.phi = dict(zip([s.slug for s in made.custodians], opened))
        model = aggregate(clipped, opened)
        self.auc = auc(proving[0] @ model[:-1] + model[-1], proving[1])

    def halves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows, labels) of the even and of the odd positions of the validators' blocks."""
        parts = []
        for start in (0, 1):
            rows, labels = [], []
            for site in self.made.validators:
                order = data.row_order(site.labels, site.regions)[start::2]
                rows.append(training.standardise(site.features[order], *self.scale))
                labels.append(site.labels[order])
            parts.append((np.concatenate(rows), np.concatenate(labels)))
        return parts


@pytest.fixture(scope="module")
def played() -> list[Played]:
    return [Played(seed) for seed in SEEDS]


def test_both_bad_sites_score_at_most_a_tenth_of_the_median(played: list[Played]) -> None:
    for one in played:
        line = 0.1 * float(np.median(list(one.phi.values())))
        assert one.phi[one.made.free_rider] <= line, one.phi
        assert one.phi[one.made.flipped] <= line, one.phi


def test_exactly_the_bad_sites_are_flagged(played: list[Played]) -> None:
    for one in played:
        assert flagged(one.phi) == sorted([one.made.free_rider, one.made.flipped])


def test_the_private_model_is_as_good_as_pooled_training(
    played: list[Played], tmp_path: Path
) -> None:
    for seed, one in zip(SEEDS, played):
        folder = tmp_path / str(seed)
        sites.write(one.made, folder, None)
        pooled = compare.compare(folder, frozenset(flagged(one.phi)))["auc_pooled"]
        assert abs(one.auc - pooled) <= 0.01, (seed, one.auc, pooled)


def test_a_seed_makes_the_same_files_and_seeds_permute_the_bad_sites() -> None:
    first, again = sites.make(7), sites.make(7)
    for one, other in zip(first.custodians, again.custodians):
        assert one.slug == other.slug
        assert np.array_equal(one.features, other.features)
        assert np.array_equal(one.labels, other.labels)
    assert len({sites.make(seed).free_rider for seed in SEEDS}) > 3
    assert len({sites.make(seed).flipped for seed in SEEDS}) > 3


def test_every_patient_is_at_one_place_and_sites_differ() -> None:
    made = sites.make(3)
    count = sum(len(site.labels) for site in (*made.custodians, *made.validators))
    assert count + sum(len(patients) for patients in made.patients) == 569
    sizes = [len(site.labels) for site in made.custodians]
    assert max(sizes) > 1.5 * min(sizes)
    held = sum(len(site.labels) for site in made.validators)
    assert 0.28 <= held / count <= 0.32


def test_what_the_story_may_read_does_not_say_who_is_bad(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    made = sites.make(5)
    sites.write(made, tmp_path / "sites", record)
    about = json.loads((tmp_path / "sites" / "sites.json").read_text())
    assert {"free_rider", "flipped", "weights"}.isdisjoint(about)
    for site in about["sites"]:
        assert set(site) == {"slug", "name", "role", "region"}
    assert json.loads(record.read_text()) == {
        "free_rider": made.free_rider,
        "flipped": made.flipped,
    }
