"""What would pooling the rows have given? Plaintext training on the sites' files, for comparison.

Reads every site's rows, which nothing in the protocol does: it runs for the built-in data, and for
the user's files only where `--compare` asks for it. Scores are taken on the same rows as the
private model's evidence: the odd rows of each validator's holdout.

    python -m workers.demo.compare --sites DIR [--leave-out SLUG …]      prints one JSON line
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workers.client import data, training
from workers.client.api import ClientError
from workers.client.oracle import auc
from workers.demo.sites import TRAIN_C


def compare(folder: Path, leave_out: frozenset[str]) -> dict[str, float | None]:
    """AUCs in the clear: {"auc_pooled", "auc_pooled_all", "auc_best_site"}.

    `auc_pooled` pools the sites whose updates the model is made of, which is all but `leave_out`;
    `auc_pooled_all` every file as it stands.
    """
    about = json.loads((folder / "sites.json").read_text(encoding="utf-8"))
    tables = {
        site["slug"]: (site["role"], _table(folder / site["slug"], about))
        for site in about["sites"]
    }
    holdouts = [table for role, table in tables.values() if role == "validator"]
    proving = [data.row_order(table.labels, table.strata)[1::2] for table in holdouts]
    features = np.concatenate([t.features[o] for t, o in zip(holdouts, proving, strict=True)])
    labels = np.concatenate([t.labels[o] for t, o in zip(holdouts, proving, strict=True)])
    sites = {slug: table for slug, (role, table) in tables.items() if role == "custodian"}

    def score(chosen: list[data.Table]) -> float | None:
        rows = np.concatenate([table.features for table in chosen])
        spread = rows.std(axis=0, ddof=1)
        scale = (rows.mean(axis=0), np.where(spread > 0, spread, 1.0))
        for each, constant in zip(scale, (0.0, 1.0), strict=True):
            each[len(chosen[0].numbers) :] = constant  # as of levels in any round
        marks = np.concatenate([table.labels for table in chosen])
        model = training.train(training.standardise(rows, *scale), marks, c=TRAIN_C)
        return auc(training.standardise(features, *scale) @ model[:-1] + model[-1], labels)

    alone = [score([table]) for table in sites.values()]
    return {
        "auc_pooled": score([table for slug, table in sites.items() if slug not in leave_out]),
        "auc_pooled_all": score(list(sites.values())),
        "auc_best_site": max((value for value in alone if value is not None), default=None),
    }


def _table(home: Path, about: dict[str, Any]) -> data.Table:
    strata = about["strata"]
    schema = data.Schema(
        features=about["features"],
        label=about["label"],
        positive=about["positive"],
        strata_column=strata["column"] if strata else None,
        strata_values=tuple(strata["values"]) if strata else (),
    )
    return data.read_table(home / "rows.csv", schema, min_rows=1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers.demo.compare", description=__doc__)
    parser.add_argument("--sites", type=Path, required=True, help="the sites' homes")
    parser.add_argument("--leave-out", nargs="*", default=[], help="sites that were flagged")
    options = parser.parse_args(argv)
    try:
        print(json.dumps(compare(options.sites, frozenset(options.leave_out))))
    except ClientError as error:
        print(error.text, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
