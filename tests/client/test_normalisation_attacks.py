"""What one site can do to the normalisation (docs/learning.md has the table).

Six even sites on the breast cancer data, one of which shares other sums than those of its rows; the
circuit on words. `python -m tests.client.test_normalisation_attacks` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from apps.protocol.circuits import CIRCUITS
from apps.protocol.circuits.moments import SITE_ROWS_MAX, limits_of
from apps.protocol.normalise import public_constants
from workers.client.data import Table
from workers.client.joining import check_spread
from workers.client.nodes import NotTrusted
from workers.client.training import constants, moments, standardise
from workers.mpc.engines.plain import run_plain

SITES, F = 6, 20
FEATURES = load_breast_cancer().data
WIDTH = FEATURES.shape[1]
RANGES = [{"min": "0", "max": str(1.25 * top)} for top in FEATURES.max(axis=0)]
Attack = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def words(sums: np.ndarray) -> np.ndarray:
    return np.round(np.clip(sums * 2.0**F, -(2.0**62), 2.0**62)).astype(np.int64)


def edge(rows: float) -> Attack:
    """So many rows, each with every value at its limit."""
    return lambda own, limits, rng: words(rows * np.concatenate([[1.0], limits, limits**2.0]))


# (its own sums, the limits, a generator) -> the words that it shares
ATTACKS: dict[str, Attack] = {
    "honest": lambda own, limits, rng: words(own),
    "any words": lambda own, limits, rng: rng.integers(-(2**63), 2**63 - 1, len(own)),
    "squares as large as they go": lambda own, limits, rng: np.append(
        words(own)[: 1 + WIDTH], np.full(WIDTH, 2**59)
    ),
    "no squares": lambda own, limits, rng: np.append(
        words(own)[: 1 + WIDTH] * 100, np.zeros(WIDTH, np.int64)
    ),
    "as many rows at the limit as it has": lambda own, limits, rng: edge(own[0])(own, limits, rng),
    "100 times as many at the limit": lambda own, limits, rng: edge(100 * own[0])(own, limits, rng),
    "2^20 rows at the limit": edge(SITE_ROWS_MAX),
    "sums of another unit, 2^10 of this": lambda own, limits, rng: words(
        own * np.repeat([1.0, 2.0**10, 2.0**20], [1, WIDTH, WIDTH])
    ),
}


def played(seed: int, attack: str, ranged: bool) -> tuple[str, float, float]:
    """What came of it: "failed", "refused" or "passed"; then by how many of their deviations means
    were off, and by what factor deviations were, at most."""
    rng = np.random.default_rng(seed)
    parts = np.array_split(FEATURES[rng.permutation(len(FEATURES))], SITES)
    limits = limits_of(RANGES if ranged else [{}] * WIDTH)
    params = {"features": WIDTH, **({"limits": limits} if ranged else {})}
    tables = [
        Table(Path("rows.csv"), ("x",) * WIDTH, part, np.zeros(len(part)), None, 0, 0)
        for part in parts
    ]
    sums = [moments(table, f=F, sites=SITES, limits=limits) for table in tables]
    bad = ATTACKS[attack](sums[0], np.minimum(np.array(limits) / 2.0**F, 2.0**15), rng)
    shared = [bad, *map(words, sums[1:])]
    opened = run_plain(CIRCUITS["moments@1"], {"sums": shared}, params).openings["sums"]
    try:
        mean, std = constants(public_constants(opened, WIDTH))
    except ValueError:
        return "failed", 0, 0
    true, spread = FEATURES.mean(0), FEATURES.std(0, ddof=1)
    off = float(np.max(np.abs(mean - true) / spread))
    factor = float(np.max(np.maximum(std / spread, spread / std)))
    try:
        for table in tables[1:]:
            check_spread(table, standardise(table.features, mean, std))
    except NotTrusted:
        return "refused", off, factor
    return "passed", off, factor


def test_sums_that_no_rows_have_are_cut_and_found() -> None:
    for ranged in (True, False):
        came, off, factor = played(0, "honest", ranged)
        assert came == "passed" and off < 1e-3 and factor < 1 + 1e-3
        assert played(0, "no squares", ranged)[0] == "failed"
        assert played(0, "2^20 rows at the limit", ranged)[0] == "failed"
    assert played(0, "as many rows at the limit as it has", True)[0] == "passed"
    # without ranges squares stretch all deviations until nothing is left of a column
    assert played(0, "squares as large as they go", False)[0] == "refused"
    assert played(0, "squares as large as they go", True)[0] == "passed"


def test_a_site_refuses_constants_that_leave_nothing_of_a_column() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 2))
    rows = np.column_stack([rows, np.full(50, 7.4)])
    table = Table(Path("rows.csv"), ("age", "dose", "ph"), rows, np.zeros(50), None, 0, 0)

    def check(mean: list[float], std: list[float]) -> None:
        check_spread(table, standardise(rows, mean, std))

    check([0, 0, 7.4], [1, 1, 1])  # a column of one value is no sign of anything
    for mean, std, lost, kept in (
        ([0, 0, 7.4], [1, 1e5, 1], "dose", "age"),
        ([40, 0, 7.4], [1, 1, 1], "age", "dose"),
    ):
        with pytest.raises(NotTrusted, match=f"site's “{lost}”:") as refused:
            check(mean, std)
        assert refused.value.code == "bad_normalisation" and kept not in str(refused.value)


if __name__ == "__main__":
    for name in ATTACKS:
        for ranged in (True, False):
            found = [played(seed, name, ranged) for seed in range(20)]
            came = {w: sum(f[0] == w for f in found) for w in ("passed", "refused", "failed")}
            through = [f[1:] for f in found if f[0] == "passed"] or [(np.nan, np.nan)]
            worst = np.max(through, axis=0)
            print(f"| {name} | {ranged} | {came} | {worst[0]:.3g} {worst[1]:.3g}")
