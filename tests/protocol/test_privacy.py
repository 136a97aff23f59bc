"""What a budget allows, against published values and the exact curve of one Gaussian."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from apps.protocol import privacy
from apps.protocol.circuits import CIRCUITS, CLASSES, BadParams
from apps.protocol.circuits.noise import CLIP, RHO, SIZE_MAX, variance_of

rhos = st.integers(1, 20_000_000)
budgets = st.builds(
    privacy.Budget, st.integers(100, 50_000), st.integers(1, 20), st.integers(100, 64_000)
)


def gaussian_delta(rho: float, epsilon: float) -> float:
    """δ of one Gaussian, exactly. Balle and Wang (2018), theorem 8; Δ/σ = √2ρ."""
    far = math.sqrt(2 * rho)
    high, low = far / 2 - epsilon / far, -far / 2 - epsilon / far
    return float(norm.cdf(high) - math.exp(epsilon + norm.logcdf(low)))


def test_epsilon_is_what_opendp_publishes() -> None:
    """opendp 0.14, zCDP_to_approxDP/test.rs: ρ = 1/32, δ = 0.001."""
    assert privacy.epsilon(1 / 32, 1e-3) == pytest.approx(0.6880024554878086, abs=1e-12)


def test_one_gaussian_is_bounded_from_both_sides() -> None:
    """σ = Δ and δ = 10^−5: 4.377 exactly (Balle and Wang), 5.298 by Bun and Steinke's formula."""
    assert gaussian_delta(0.5, 4.3772) == pytest.approx(1e-5, rel=1e-3)
    assert 4.3772 < privacy.epsilon(0.5, 1e-5) < 0.5 + 2 * math.sqrt(0.5 * math.log(1e5))


@given(rhos, rhos)
def test_more_is_spent_by_more_rounds_and_two_cost_less_than_their_sum(one, other) -> None:
    each = [privacy.epsilon_milli(rho) for rho in (one, other)]
    both = privacy.epsilon_milli(privacy.spent_micro([{RHO: one}, {}, {RHO: other}]))
    assert max(each) <= both <= sum(each) + 1
    assert privacy.epsilon_milli(0) == 0


@given(rhos)
def test_epsilon_is_never_below_the_exact_one(rho) -> None:
    assert gaussian_delta(rho / 1e6, privacy.epsilon_milli(rho) / 1000) <= 1e-6


@given(budgets)
def test_a_budget_lasts_for_its_rounds_and_is_then_used_up(budget) -> None:
    assert privacy.epsilon_milli(budget.total_micro) <= budget.epsilon_milli
    assert privacy.epsilon_milli(budget.total_micro + 1) > budget.epsilon_milli
    spent = 0
    for left in range(budget.rounds, 0, -1):
        assert budget.rounds_left(spent) >= left
        spent += budget.params[RHO]
    assert spent <= budget.total_micro
    assert budget.rounds_left(budget.total_micro) == budget.rounds_left(10**12) == 0
    assert privacy.budget_of(budget.as_json) == budget


@pytest.mark.parametrize(
    "raw",
    [
        [],
        "8",
        {"epsilon_milli": 8000},
        {"epsilon_milli": 8000.0, "rounds": 1, "clip_milli": 2000},
        {"epsilon_milli": True, "rounds": 1, "clip_milli": 2000},
        {"epsilon_milli": 8000, "rounds": 0, "clip_milli": 2000},
        {"epsilon_milli": 8000, "rounds": 1, "clip_milli": 64_001},
        {"epsilon_milli": 8000, "rounds": 1, "clip_milli": 2000, "delta": 1},
    ],
)
def test_no_other_form_is_a_budget(raw) -> None:
    with pytest.raises(ValueError):
        privacy.budget_of(raw)
    assert privacy.budget_of({}) is None and privacy.budget_of(None) is None


# ---- what the circuit makes of it ---------------------------------------------------------------

PARAMS = {"features": 3, "strata": 0, "rows": [8], "min_cell": 5, "scoring": "taylor"}
NOISE = {CLIP: 2000, RHO: 500_000}


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=3, max_size=12).filter(lambda w: max(w) > 0),
    st.integers(100, 64_000),
    st.integers(1, 10**8),
    st.integers(1, SIZE_MAX),
)
def test_the_variance_is_that_of_the_sensitivity_and_hardly_more(weights, clip, rho, size) -> None:
    found = variance_of({CLIP: clip, RHO: rho}, weights, size) / 2.0**48
    reach = 2 * clip / 1000 * max(weights) / sum(weights)
    assert found >= reach**2 / (2 * rho / 1e6)
    room = 2 * (clip / 1000 + 1) / 255 + 2.0**-16
    assert found <= 1.0001 * (reach + room) ** 2 / (2 * rho / 1e6) + 2.0**-47


def test_only_rounds_whose_sensitivity_is_known_take_a_budget() -> None:
    assert [name for name, model in CLASSES.items() if not model.noises] == ["mlp", "mlp2"]
    for model in CLASSES.values():
        params = PARAMS | dict.fromkeys(model.extras, 4) | NOISE
        circuit = CIRCUITS[model.round_id]
        if not model.noises:
            with pytest.raises(BadParams, match="no privacy budget"):
                circuit.validate(params)
        else:
            circuit.validate(params)
    for broken in ({CLIP: 2000}, {RHO: 1}, NOISE | {CLIP: 99}, NOISE | {RHO: 0}):
        with pytest.raises(BadParams):
            CIRCUITS["logistic_round@1"].validate(PARAMS | broken)
    with pytest.raises(BadParams, match="numbers at most"):
        CIRCUITS["multinomial_round@1"].validate(PARAMS | NOISE | {"features": 600, "classes": 9})
    with pytest.raises(BadParams):
        CIRCUITS["logistic_sgd@1"].validate(PARAMS | NOISE)
