"""What intervals follow from, on shares and in the clear: spreads of R² and of log-loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.protocol import metrics
from apps.protocol.circuits import CLASSES
from apps.protocol.circuits.cells import Rule
from apps.protocol.evidence import evidence_of
from tests.support.ring import plain_function, ring_function

MIN_CELL = 5
SCORE_F, TARGET_F = 40, 16
CLASS_COUNT = 3


def drawn(name: str, rows: int, noise: float, seed: int) -> tuple[Any, Any, Any]:
    """(scores [m, o], targets [m, t], strata [m, 2]) of a class."""
    rng = np.random.default_rng(seed)
    strata = np.eye(2)[rng.integers(0, 2, rows)]
    z = rng.normal(size=(rows, CLASS_COUNT if name == "multinomial" else 1))
    if name == "logistic":
        return 3 * noise * z, (rng.random((rows, 1)) < 1 / (1 + np.exp(-3 * z))) * 1.0, strata
    if name == "multinomial":
        label = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
        return 2 * noise * z, np.eye(CLASS_COUNT)[label], strata
    if name == "linear":
        t = np.clip(0.7 * z + noise * rng.normal(size=z.shape), -2, 2)
        return 0.7 * z, np.rint(t * 2**TARGET_F) / 2**TARGET_F, strata
    z = 3 * noise + 0.6 * np.clip(z, -2, 2)
    return z + 0.05, np.minimum(rng.poisson(np.exp(z)), 1000) * 1.0, strata


def in_the_clear(name: str, z: Any, y: Any) -> tuple[float | None, float | None]:
    """(metric, its spread)"""
    if name == "logistic":
        z = np.clip(z[:, 0], -16, 16)
        return metrics.log_loss(z, y[:, 0]), metrics.log_loss_spread(z, y[:, 0])
    if name == "multinomial":
        z = np.clip(z, -8, 8)
        each = np.log(np.exp(z).sum(axis=1)) - np.sum(z * y, axis=1)
        return each.mean(), each.std()
    found = np.exp(np.minimum(z[:, 0], 6)) if name == "poisson" else z[:, 0]
    return metrics.r_squared(found, y[:, 0]), metrics.r_squared_spread(found, y[:, 0])


def evidence(name: str, z: Any, y: Any, strata: Any, run: Any = plain_function) -> dict[str, Any]:
    """What the class opens of these rows."""
    target_f = 0 if name in ("logistic", "multinomial") else TARGET_F
    rule = Rule(MIN_CELL, [len(z)])
    inputs = [
        (np.rint(value * 2.0**f).astype(np.int64), f)
        for value, f in ((z, SCORE_F), (y, target_f), (strata, 0))
    ]
    found: dict[str, Any] = run(
        lambda ops, *secret: CLASSES[name].evidence(ops, *secret, rule), *inputs
    )
    return found


def told(name: str, opened: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """(metric, spread) overall and of each stratum."""
    metric = CLASSES[name].metrics[-1]
    return tuple(
        [opened[f"{one}_milli"], *opened[f"{one}_strata_milli"]]
        for one in (metric, f"{metric}_spread")
    )  # type: ignore[return-value]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["logistic", "multinomial", "linear", "poisson"]),
    st.integers(24, 90),
    st.sampled_from([0.02, 0.3, 1.0, 1.8]),
    st.integers(0, 1000),
)
def test_spreads_are_those_of_the_rows_in_the_clear(
    name: str, rows: int, noise: float, seed: int
) -> None:
    z, y, strata = drawn(name, rows, noise, seed)
    opened = evidence(name, z, y, strata)
    cells = [np.ones(rows, bool), *(strata.T == 1)]
    for cell, support, value, spread in zip(
        cells, opened["support"], *told(name, opened), strict=True
    ):
        if support is None:
            assert value is None and spread is None
            continue
        wanted = in_the_clear(name, z[cell], y[cell])
        if value == -1000 and "r2" in CLASSES[name].metrics:  # or lower: nothing more is told
            assert spread is None and wanted[0] < -0.999
        elif value is None:
            assert spread is None and wanted[0] is None
        else:
            assert [value, spread] == pytest.approx([1000 * w for w in wanted], abs=1)


@pytest.mark.parametrize("name", ["logistic", "multinomial", "linear", "poisson"])
def test_spreads_on_shares_are_those_in_the_clear(name: str) -> None:
    rows = drawn(name, 40, 0.5, 3)
    on_shares, clear = evidence(name, *rows, ring_function), evidence(name, *rows)
    for one, other in zip(told(name, on_shares), told(name, clear), strict=True):
        assert [x is None for x in one] == [x is None for x in other]
        assert [x or 0 for x in one] == pytest.approx([x or 0 for x in other], abs=1)


def test_r_squared_of_the_largest_counts_keeps_its_decimals() -> None:
    """1/Σc² has bits left where Σc² is near the most that there is."""
    y = np.where(np.arange(2000) % 2, 1000.0, 0.0)[:, None]
    z = np.log(np.where(y > 0, 400.0, 90.0))
    opened = evidence("poisson", z, y, np.zeros((2000, 0)))
    wanted = in_the_clear("poisson", z, y)
    assert opened["r2_milli"] == pytest.approx(1000 * wanted[0], abs=2)
    assert opened["r2_spread_milli"] == pytest.approx(1000 * wanted[1], abs=2)


def test_a_constant_target_and_a_hopeless_model_open_no_spread() -> None:
    z = np.random.default_rng(0).normal(size=(60, 1))
    flat = evidence("linear", z, np.ones((60, 1)), np.zeros((60, 0)))
    assert (flat["r2_milli"], flat["r2_spread_milli"]) == (None, None)
    wrong = evidence("linear", -4 * z, np.clip(z, -2, 2), np.zeros((60, 0)))
    assert (wrong["r2_milli"], wrong["r2_spread_milli"]) == (-1000, None)


@pytest.mark.parametrize(
    ("rows", "error"), [(20, 0.02), (20, 0.006), (125, 0.002), (1000, 0.001), (2000, 0.0008)]
)
def test_the_skill_against_a_naive_forecast_of_small_errors_is_measured(
    rows: int, error: float
) -> None:
    """Of half a per cent of the label's range, and far less: the model has half of the errors."""
    e = error * np.random.default_rng(rows).normal(size=rows)
    naive = np.rint(np.linspace(-1, 1, rows) * 2**TARGET_F) / 2**TARGET_F
    y = np.rint((naive + e) * 2**TARGET_F) / 2**TARGET_F
    z = naive + 0.5 * e
    pair = np.column_stack([y, naive])
    opened = evidence("forecaster", z[:, None], pair, np.zeros((rows, 0)))
    squared, absolute = metrics.skill(y, z, naive)
    found = [opened["skill_milli"], opened["mae_skill_milli"]]
    assert found == pytest.approx([1000 * squared, 1000 * absolute], abs=5)
    assert opened["skill_spread_milli"] is not None
    # without any error of the naive one there is nothing to be compared with
    none = evidence("forecaster", z[:, None], np.column_stack([y, y]), np.zeros((rows, 0)))
    names = ("skill_milli", "skill_spread_milli", "mae_skill_milli")
    assert [none[name] for name in names] == [None] * 3 and none["r2_milli"] is not None


@pytest.mark.parametrize("apart", [0.0, 1e-4, 0.004, 0.03])
def test_a_hopeless_model_where_the_target_hardly_varies_meets_no_gate(apart: float) -> None:
    """A stratum of 20 rows whose target is all but constant: null or −1, never 0."""
    y = np.linspace(-1, 1, 60)
    y[:20] = 0.5 + apart * np.resize([1, -1], 20)
    y = np.rint(y * 2**TARGET_F) / 2**TARGET_F
    strata = np.column_stack([np.arange(60) < 20, (np.arange(60) >= 20)]) * 1.0
    opened = evidence("linear", -y[:, None], y[:, None], strata)
    told_ = opened["r2_strata_milli"][0]
    assert told_ == (None if apart < 0.004 else -1000) and opened["support"][1] == 20
    kept = evidence_of(
        opened,
        strata=["even", "other"],
        gates=[{"metric": "r2", "min_milli": 0, "per_stratum": True}],
    )
    assert [line["met"] for line in kept["gates"]] == [False] * 3


def test_one_count_that_differs_is_a_spread() -> None:
    y = np.zeros((20, 1))
    y[3] = 1.0
    opened = evidence("poisson", np.full((20, 1), np.log(0.05)), y, np.zeros((20, 0)))
    assert opened["r2_milli"] == pytest.approx(0, abs=2)
    assert opened["r2_spread_milli"] is not None


@pytest.mark.parametrize(("own", "error"), [(0.0, 2.6), (2.0, 0.0)])
def test_a_spread_as_large_as_it_gets_stays_in_the_word(own: float, error: float) -> None:
    """Nearly all of Σe², or of Σc², is one row's; 65 and 21 times the others' mean square."""
    y = np.full((2000, 1), 0.0625) * np.resize([1, -1], 2000)[:, None]
    z = y + 0.03125
    y[0], z[0] = own, own + error
    opened = evidence("linear", z, y, np.zeros((2000, 0)))
    wanted = in_the_clear("linear", z, y)
    assert opened["r2_milli"] == pytest.approx(1000 * wanted[0], abs=1)
    assert opened["r2_spread_milli"] == pytest.approx(1000 * wanted[1], rel=1e-3)
