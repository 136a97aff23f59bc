"""Makes the demonstration's sites: six hospitals and three validators, each with its own files.

The rows are scikit-learn's breast cancer data (569 patients, 30 measurements). Rule: each row goes
to one of three regions, then to one of that region's hospitals or to a validator, without
replacement, with probabilities tilted by the diagnosis and by tumour size. So the sites differ in
size, in prevalence and in distribution, and a seed gives the same files again. Twenty rows go to
nobody but the buyers: the patients they will ask about.

Two hospitals are not what they seem: one brings a random update of its own instead of a trained one
(a free rider), one has every diagnosis in its file the wrong way round. Which two is drawn from
the seed and written only to the record file, which the story never opens.

    python -m workers.demo.sites --out DIR --seed N [--record FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LABEL = "malignant"
REGION_COLUMN = "region"
REGIONS = ("north", "centre", "south")
HOSPITALS = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Juniper")
VALIDATORS = ("Iris", "Lotus", "Tulip")
BUYERS = ("clinic-maple", "research-group-oak")
PATIENTS_PER_BUYER = 10
HOLDOUT_SHARE = 0.3
TILT = 0.5
"""Weight of a row's tumour size (in standard deviations) when rows are drawn for a site."""
PREVALENCE = 0.05
"""How far a region's share of malignant rows is pushed from the average; half of it for a site."""
TRAIN_C = 0.2
UPDATE_NORM = 1.5
"""Norm of the free rider's random update: about that of an honest one."""


@dataclass(frozen=True, slots=True)
class Site:
    """One site's rows: features [n, 30], labels [n] of 0/1, region of each row [n]."""

    slug: str
    name: str
    role: str
    region: str
    features: np.ndarray
    labels: np.ndarray
    regions: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Sites:
    columns: tuple[str, ...]
    custodians: tuple[Site, ...]
    validators: tuple[Site, ...]
    patients: tuple[np.ndarray, ...]
    free_rider: str
    flipped: str


def _draw(
    rng: np.random.Generator,
    pool: np.ndarray,
    *,
    labels: np.ndarray,
    tilt: np.ndarray,
    take: int,
    positives: int,
) -> np.ndarray:
    """`take` row numbers of the pool, `positives` of them with label 1, weighted by exp(tilt)."""
    chosen = []
    for value, count in ((1, positives), (0, take - positives)):
        rows = pool[labels[pool] == value]
        weight = np.exp(tilt[rows])
        count = min(count, len(rows))
        chosen.append(rng.choice(rows, size=count, replace=False, p=weight / weight.sum()))
    return np.concatenate(chosen)


def make(seed: int) -> Sites:
    """The nine sites of one seed and the buyers' patients: each of 569 rows is in one place."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    columns = tuple(str(name).replace(" ", "_") for name in data.feature_names)
    features, malignant = data.data, 1 - data.target
    # This generator makes demonstration data; shares and keys never come from numpy.
    rng = np.random.default_rng(seed)
    size = features[:, columns.index("worst_radius")]
    size = (size - size.mean()) / size.std()

    def draw(pool: np.ndarray, sign: float, take: int, change: float) -> np.ndarray:
        share = float(malignant[pool].mean()) + change
        return _draw(
            rng,
            pool,
            labels=malignant,
            tilt=TILT * sign * size,
            take=take,
            positives=round(share * take),
        )

    free = rng.permutation(len(malignant))
    asked = free[: len(BUYERS) * PATIENTS_PER_BUYER]
    free = np.setdiff1d(free, asked)
    rows_in_all = len(free)
    region_of = np.empty(len(malignant), dtype=object)
    shares = rng.permutation([0.42, 0.33, 0.25])
    signs = rng.permutation([-1.0, 0.0, 1.0])
    for number, region in enumerate(REGIONS):
        last = number == len(REGIONS) - 1
        count = len(free) if last else round(shares[number] * rows_in_all)
        chosen = free if last else draw(free, signs[number], count, PREVALENCE * signs[number])
        region_of[chosen] = region
        free = np.setdiff1d(free, chosen)

    held: dict[str, np.ndarray] = {}
    parts: list[np.ndarray] = []
    for region in REGIONS:
        rows = np.flatnonzero(region_of == region)
        held_here = []
        for value in (0, 1):
            of_label = rng.permutation(rows[malignant[rows] == value])
            held_here.append(of_label[: round(HOLDOUT_SHARE * len(of_label))])
        held[region] = rng.permutation(np.concatenate(held_here))
        rest = np.setdiff1d(rows, held[region])
        larger = round(float(rng.uniform(0.55, 0.65)) * len(rest))
        sign = float(rng.choice([-1, 1]))
        first = draw(rest, sign, larger, PREVALENCE / 2 * sign)
        parts += [first, np.setdiff1d(rest, first)]

    names = list(rng.permutation(HOSPITALS))
    bad = rng.choice(len(HOSPITALS), size=2, replace=False)
    custodians = []
    for index, rows in enumerate(parts):
        rows = rng.permutation(rows)
        labels = malignant[rows]
        weights = None
        if index == bad[0]:
            weights = rng.normal(size=len(columns) + 1)
            weights = np.round(weights * UPDATE_NORM / np.linalg.norm(weights), 6)
        if index == bad[1]:
            labels = 1 - labels
        name = str(names[index])
        custodians.append(
            Site(
                slug=f"hospital-{name.lower()}",
                name=f"Hospital {name}",
                role="custodian",
                region=REGIONS[index // 2],
                features=features[rows],
                labels=labels,
                regions=region_of[rows],
                weights=weights,
            )
        )

    # Each of its region alone: a stratum with a few of another's rows would stay closed.
    validators = []
    for number, name in enumerate(VALIDATORS):
        rows = rng.permutation(held[REGIONS[number]])
        validators.append(
            Site(
                slug=f"validator-{name.lower()}",
                name=f"Validator {name}",
                role="validator",
                region=REGIONS[number],
                features=features[rows],
                labels=malignant[rows],
                regions=region_of[rows],
            )
        )
    custodians.sort(key=lambda site: site.slug)
    return Sites(
        columns=columns,
        custodians=tuple(custodians),
        validators=tuple(validators),
        patients=tuple(np.split(features[asked], len(BUYERS))),
        free_rider=f"hospital-{str(names[bad[0]]).lower()}",
        flipped=f"hospital-{str(names[bad[1]]).lower()}",
    )


def _write_site(site: Site, columns: tuple[str, ...], home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, REGION_COLUMN, LABEL])
        for row, region, label in zip(site.features, site.regions, site.labels, strict=True):
            writer.writerow([*(repr(float(v)) for v in row), region, int(label)])
    config = [
        f'name = "{site.name}"',
        f'role = "{site.role}"',
        'data = "rows.csv"',
        f'label = "{LABEL}"',
        f'strata = "{REGION_COLUMN}"',
    ]
    if site.role == "custodian":
        config += ["", "[train]", f"C = {TRAIN_C}"]
    if site.weights is not None:
        config.append('update = "weights.csv"')
        with (home / "weights.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "intercept"])
            writer.writerow([repr(float(v)) for v in site.weights])
    (home / "agent.toml").write_text("\n".join(config) + "\n", encoding="utf-8")


def write(sites: Sites, out: Path, record: Path | None) -> None:
    """One home a site under `out`, and out/sites.json with what anyone may know of them."""
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = []
    for site in (*sites.custodians, *sites.validators):
        _write_site(site, sites.columns, out / site.slug)
        entry = {"slug": site.slug, "name": site.name, "role": site.role, "region": site.region}
        public.append(entry)
    buyers = []
    for slug, patients in zip(BUYERS, sites.patients, strict=True):
        buyers.append({"slug": slug, "name": slug.replace("-", " ").title()})
        (out / slug).mkdir(exist_ok=True, mode=0o700)
        with (out / slug / "patients.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(sites.columns)
            writer.writerows([repr(float(v)) for v in row] for row in patients)
    description = {
        "buyers": buyers,
        "sites": public,
        "label": LABEL,
        "positive": "1",
        "strata": {"column": REGION_COLUMN, "values": list(REGIONS)},
        "columns": list(sites.columns),
        "features": [{"name": name} for name in sites.columns],
    }
    (out / "sites.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    if record is not None:
        truth = {"free_rider": sites.free_rider, "flipped": sites.flipped}
        record.write_text(json.dumps(truth), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.demo.sites", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the sites' homes")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same files")
    parser.add_argument("--record", type=Path, help="write down here which two sites are bad")
    options = parser.parse_args(argv)
    write(make(options.seed), options.out, options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
