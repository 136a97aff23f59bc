"""Public data as CSV files of uneven sites, the way a user's own files come to `demo --sites`.

python -m tests.support.public wine|breast_cancer|diabetes DIR     (label: "outcome")
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn import datasets

LABEL = "outcome"
# Columns given as words, by equal parts of the rows from the least up: a category, a boolean.
WORDS = {"mean_texture": ("fine", "medium", "coarse"), "worst_concave_points": ("no", "yes")}
PARTS = {"harbour": 0.42, "hill": 0.27, "lake": 0.19, "moor": 0.12}


def write(name: str, folder: Path) -> None:
    """One file a site. The outcome of wine is its first cultivar, of diabetes a progression above
    the median one, of breast cancer what is malignant."""
    known = getattr(datasets, f"load_{name}")()
    target = known.target > np.median(known.target) if name == "diabetes" else known.target == 0
    columns = [column.replace(" ", "_").replace("/", "_") for column in known.feature_names]
    table = known.data.astype(object)
    for name in set(WORDS) & set(columns):
        values = table[:, columns.index(name)].astype(float)
        steps = np.quantile(values, np.linspace(0, 1, len(WORDS[name]) + 1)[1:-1])
        table[:, columns.index(name)] = np.array(WORDS[name])[np.searchsorted(steps, values)]
    order = np.random.default_rng(0).permutation(len(target))
    ends = np.cumsum([round(part * len(order)) for part in PARTS.values()])[:-1]
    folder.mkdir(parents=True, exist_ok=True)
    for site, rows in zip(PARTS, np.split(order, ends), strict=True):
        with (folder / f"{site}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, LABEL])
            for row in rows:
                writer.writerow([*table[row], "yes" if target[row] else "no"])


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
