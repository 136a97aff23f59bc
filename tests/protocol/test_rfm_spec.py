"""check_spec: what it fills in, what it refuses, and that a checked spec is a fixed point."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.protocol.circuits import CLASSES
from apps.protocol.founding import terms_of
from apps.protocol.rfm_spec import SpecError, check_spec, schema_of, subdao_params
from apps.protocol.targets import extras_of

GOOD: dict[str, Any] = {
    "objective": "Predict response to an immunotherapy",
    "kind": "federated_learning",
    "model_class": "logistic",
    "interpretable": True,
    "standard": "tabular-csv",
    "features": [
        {"name": "age", "unit": "a", "min": 0, "max": 120},
        {"name": "radius", "unit": "mm", "min": 0.5, "max": "40.250"},
        {"name": "haemoglobin", "system": "LOINC", "code": "718-7"},
    ],
    "label": {"name": "response", "positive": 1},
    "strata": {"column": "region", "values": ["north", "south"]},
    "gates": [
        {"metric": "auc", "min_milli": 850},
        {"metric": "auc", "min_milli": 850, "per_stratum": True},
    ],
    "governance": {"voting_delay_s": 0, "voting_period_s": 3, "timelock_s": 0, "epoch_s": 10},
    "price_micro": 500_000,
    "funding": {"target_micro": "1000000000", "deadline_s": 600},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(GOOD)
    at: Any = spec
    *parents, last = path.split("/")
    for step in parents:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return spec


def test_defaults_are_filled_in_and_amounts_are_strings() -> None:
    spec = check_spec(GOOD)
    assert spec["price_micro"] == "500000"
    assert spec["funding"]["sdt_supply_micro"] == "1000000000000"
    assert spec["features"][1]["min"] == "0.5"
    assert spec["features"][1]["max"] == "40.25"
    assert spec["features"][2]["min"] is None
    assert spec["label"]["positive"] == "1"
    assert spec["governance"]["quorum_bps"] == 2_000
    assert spec["terms"]["treasury_bps"] == 1_200


def test_checking_again_changes_nothing() -> None:
    once = check_spec(GOOD)
    assert check_spec(json.loads(json.dumps(once))) == once


def test_the_schema_and_the_parameters_are_taken_from_the_spec() -> None:
    spec = check_spec(GOOD)
    assert set(schema_of(spec)) == {"standard", "features", "label", "strata"}
    params = subdao_params(spec)
    assert sum(params["split"].values()) == 10_000
    assert sum(params["sbgt_split"].values()) == 10_000
    assert params["voting_period_s"] == 3
    assert params["min_custodians"] == 3
    assert params["scoring"] == "taylor"


@pytest.mark.parametrize(
    ("asked", "engine", "n", "said"),
    [
        ({}, "ring", 3, None),
        ({"engine": "ring", "n": 5}, "ring", 5, None),
        ({"engine": "ring_verified", "n": 4}, "ring_verified", 4, "ring_verified"),
        ({"engine": "shamir"}, "shamir_t1", 3, "shamir_t1"),
        ({"engine": "shamir", "n": 5, "t": 2}, "shamir_t2", 5, "shamir_t2"),
        ({"engine": "shamir", "n": 7, "t": 3}, "shamir_t3", 7, "shamir_t3"),
    ],
)
def test_a_request_names_nodes_threshold_and_engine(
    asked: dict[str, Any], engine: str, n: int, said: str | None
) -> None:
    """The ring of three where it says nothing, as all did before: with the hash that it had."""
    spec = check_spec(changed("governance", GOOD["governance"] | asked))
    assert check_spec(spec) == spec
    params = subdao_params(spec)
    assert (params["engine"], params["n"]) == (engine, n)
    assert terms_of(params).get("engine") == said
    assert ("engine" in spec["governance"]) == (said is not None)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("objective", "", "objective"),
        ("kind", "guesswork", "kind"),
        ("colour", "red", "colour"),
        ("features", [], "features"),
        ("features", None, "features"),
        ("features/0/name", "radius", "features[1].name"),
        ("features/0/name", "response", "label.name"),
        ("features/0/min", 200, "features[0].max"),
        ("features/0/min", "NaN", "features[0].min"),
        ("features/0/min", float("inf"), "features[0].min"),
        ("features/0/min", True, "features[0].min"),
        ("features/0/colour", "red", "features[0].colour"),
        ("strata/values", ["north"], "strata.values"),
        ("strata/values", ["north", "north"], "strata.values"),
        ("strata/column", "age", "strata.column"),
        ("strata", None, "gates[1].per_stratum"),
        ("gates/0/metric", "luck", "gates[0].metric"),
        ("gates/0/min_milli", 1001, "gates[0].min_milli"),
        ("gates/0/min_milli", 0.85, "gates[0].min_milli"),
        ("governance/voting_period_s", 2, "governance.voting_period_s"),
        ("governance/threshold_bps", 4_999, "governance.threshold_bps"),
        ("governance/min_custodians", 2, "governance.min_custodians"),
        ("governance/n", 2, "governance.n"),
        ("governance/n", 6, "governance.n"),
        ("governance/t", 2, "governance.t"),
        ("governance/engine", "abacus", "governance.engine"),
        ("governance", {"engine": "ring_verified"}, "governance.n"),
        ("governance", {"engine": "ring_verified", "n": 4, "t": 2}, "governance.t"),
        ("governance", {"engine": "shamir", "n": 4, "t": 2}, "governance.n"),
        ("governance", {"engine": "shamir", "n": 8}, "governance.n"),
        ("governance", {"engine": "shamir", "n": 7, "t": 4}, "governance.t"),
        ("governance/scoring", "luck", "governance.scoring"),
        ("governance", {"scoring": "shapley", "min_custodians": 33}, "governance.scoring"),
        ("price_micro", 0, "price_micro"),
        ("price_micro", "-5", "price_micro"),
        ("price_micro", "0.5", "price_micro"),
        ("price_micro", None, "price_micro"),
        ("funding", None, "funding"),
        ("funding/target_micro", 10**16, "funding.target_micro"),
        ("terms/treasury_bps", 1_500, "terms.sbgt_bps"),
        ("terms/decay_ppm", 1_000_000, "terms.decay_ppm"),
        ("terms/rebate_bps", 5_001, "terms.rebate_bps"),
        ("terms/tiers", [{"from_rows": 0, "off_bps": 1}], "terms.tiers"),
        ("terms/plans", {}, "terms.plans"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec(changed(path, value))
    assert caught.value.field == field
    assert caught.value.text


@pytest.mark.parametrize(
    ("model_class", "label", "metric", "checked"),
    [
        ("multinomial", {"classes": ["a", -1]}, "accuracy", {"classes": ["a", "-1"]}),
        ("linear", {"min": 0, "max": "40.50"}, "r2", {"min": "0", "max": "40.5"}),
        ("poisson", {}, "r2", {"min": "0", "max": "1000"}),
        (
            "cox",
            {"event": "dead", "occurred": 1, "max": "90"},
            "c_index",
            {"event": "dead", "occurred": "1", "min": "0", "max": "90"},
        ),
    ],
)
def test_each_model_class_has_its_label_and_its_gates(model_class, label, metric, checked) -> None:
    raw = GOOD | {
        "model_class": model_class,
        "label": {"name": "outcome", **label},
        "gates": [{"metric": metric, "min_milli": 500}],
    }
    spec = check_spec(raw)
    assert spec["label"] == {"name": "outcome", **checked}
    assert check_spec(json.loads(json.dumps(spec))) == spec
    for wrong, field in (
        ({"gates": [{"metric": "auc", "min_milli": 500}]}, "gates[0].metric"),
        ({"label": {"name": "outcome", "positive": "1"}}, "label.positive"),
    ):
        with pytest.raises(SpecError) as caught:
            check_spec(raw | wrong)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("model_class", "label", "field"),
    [
        ("multinomial", {}, "label.classes"),
        ("multinomial", {"classes": ["a"]}, "label.classes"),
        ("multinomial", {"classes": ["a", "a"]}, "label.classes"),
        ("multinomial", {"classes": ["a", "=1+1"]}, "label.classes[1]"),
        ("linear", {}, "label.max"),
        ("linear", {"min": "3", "max": "3"}, "label.max"),
        ("poisson", {"max": 1001}, "label.max"),
        ("poisson", {"min": "1"}, "label.min"),
        ("cox", {"max": "90"}, "label.event"),
        ("cox", {"event": "outcome", "max": "90"}, "label.event"),
        ("cox", {"event": "dead"}, "label.max"),
        ("logistic", {"classes": ["a", "b"]}, "label.classes"),
    ],
)
def test_a_label_that_is_not_its_classs_is_named(model_class, label, field) -> None:
    raw = GOOD | {"model_class": model_class, "label": {"name": "outcome", **label}, "gates": []}
    with pytest.raises(SpecError) as caught:
        check_spec(raw)
    assert caught.value.field == field


@pytest.mark.parametrize("model_class", ["mlp", "mlp2"])
def test_networks_train_on_shared_rows_and_are_not_interpretable(model_class) -> None:
    raw = GOOD | {
        "model_class": model_class,
        "label": {"name": "outcome", "classes": ["a", "b"]},
        "gates": [],
    }
    with pytest.raises(SpecError) as caught:
        check_spec(raw)
    assert caught.value.field == "interpretable"
    spec = check_spec({k: v for k, v in raw.items() if k != "interpretable"})
    assert spec["interpretable"] is False
    training = subdao_params(spec)["training"]
    assert training["kind"] == "secure_sgd" and training["schedule"]["momentum_ppm"] == 900_000
    assert subdao_params(check_spec(GOOD))["training"] == {"kind": "fedavg"}


def test_a_request_names_the_units_of_a_networks_hidden_layers() -> None:
    raw = {k: v for k, v in GOOD.items() if k != "interpretable"} | {
        "model_class": "mlp2",
        "label": {"name": "outcome", "classes": ["a", "b"]},
        "gates": [],
    }
    spec = check_spec(raw | {"hidden": [256, 1]})
    assert check_spec(spec)["hidden"] == subdao_params(spec)["hidden"] == [256, 1]
    extras = extras_of(CLASSES["mlp2"], subdao_params(spec))
    assert extras == {"classes": 2, "hidden_1": 256, "hidden_2": 1}
    # without a word the class's own, and no word of it: requests hash as before
    assert "hidden" not in check_spec(raw) and "hidden" not in subdao_params(check_spec(raw))
    assert extras_of(CLASSES["mlp2"], check_spec(raw)) == {"classes": 2}
    for hidden, field in (
        ([1025, 1], "hidden[0]"),
        ([1024, 1024], "hidden"),
        ([8, 0], "hidden[1]"),
        ([8, True], "hidden[1]"),
        ([8], "hidden"),
        ("8, 8", "hidden"),
    ):
        with pytest.raises(SpecError) as caught:
            check_spec(raw | {"hidden": hidden})
        assert caught.value.field == field
    assert subdao_params(spec)["training"]["kind"] == "secure_sgd"
    large = check_spec(raw | {"hidden": [1024, 128]})  # too many for steps, not for updates
    assert subdao_params(large)["training"] == {"kind": "fedavg"}
    for engine in ({"engine": "shamir", "n": 5, "t": 2}, {"engine": "ring_verified", "n": 4}):
        check_spec(raw | {"hidden": [1024, 64], "governance": engine})
        with pytest.raises(SpecError, match="choose the ring"):
            check_spec(raw | {"hidden": [1024, 128], "governance": engine})
    with pytest.raises(SpecError, match="no hidden layers"):
        check_spec(GOOD | {"hidden": [8]})


def test_poisson_is_not_scored_by_shapley() -> None:
    raw = GOOD | {"model_class": "poisson", "label": {"name": "n"}, "gates": []}
    with pytest.raises(SpecError) as caught:
        check_spec(raw | {"governance": {"scoring": "shapley"}})
    assert caught.value.field == "governance.scoring"


def test_a_request_may_ask_for_a_privacy_budget_where_rounds_can_make_noise() -> None:
    budget = {"epsilon_milli": 8_000, "rounds": 4, "clip_milli": 2_000}
    spec = check_spec(GOOD | {"governance": {"privacy": budget}})
    assert check_spec(spec) == spec and spec["governance"]["privacy"] == budget
    params = subdao_params(spec)
    assert params["privacy"] == terms_of(params)["privacy"] == budget
    none = check_spec(GOOD | {"governance": {"privacy": {}}})
    assert none == check_spec(GOOD | {"governance": {}}) and "privacy" not in none["governance"]
    assert subdao_params(none)["privacy"] == {} and "privacy" not in terms_of(subdao_params(none))
    network = {"model_class": "mlp", "label": {"name": "y", "classes": ["a", "b"]}}
    network |= {"interpretable": False}
    for raw in (
        GOOD | {"governance": {"privacy": budget | {"rounds": 101}}},
        GOOD | {"governance": {"privacy": []}},
        GOOD | network | {"gates": [], "governance": {"privacy": budget}},
    ):
        with pytest.raises(SpecError) as caught:
            check_spec(raw)
        assert caught.value.field == "governance.privacy"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_anything_at_all_is_checked_or_refused_in_words(value: Any) -> None:
    with pytest.raises(SpecError):
        check_spec(value)


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_a_field_of_any_content_is_checked_or_refused_in_words(key: str, value: Any) -> None:
    spec = {**GOOD, key: value}
    try:
        once = check_spec(spec)
    except SpecError:
        return
    assert check_spec(once) == once


def test_its_subdao_begins_with_the_prices_of_its_terms() -> None:
    terms = {
        "tiers": [{"from_rows": 1_000, "off_bps": 1_000}],
        "plans": [{"name": "basic", "rows": 100, "days": 30, "off_bps": 500}],
        "rebate_bps": 2_000,
    }
    params = subdao_params(check_spec({**GOOD, "terms": terms}))
    assert {name: params[name] for name in terms} == terms
    plain = subdao_params(check_spec(GOOD))
    assert (plain["tiers"], plain["plans"], plain["rebate_bps"]) == ([], [], 0)


SERIES = {"time": "day", "step": "day", "lags": 2, "split": "2024-01-01"}


def forecast(**changes) -> dict:
    series = {k: v for k, v in (SERIES | changes).items() if v is not None}
    label = {"name": "load", "min": 0, "max": 9, "series": series}
    gates = [{"metric": "skill", "min_milli": 100}, {"metric": "mae_skill", "min_milli": 0}]
    about = {"model_class": "forecaster", "label": label, "gates": gates}
    return {k: v for k, v in (GOOD | about).items() if k not in ("features", "standard")}


def test_a_forecasters_features_are_the_last_values_of_its_label() -> None:
    spec = check_spec(forecast(lags=3, season=7, id="ward"))
    assert [feature["name"] for feature in spec["features"]] == ["t-1", "t-2", "t-3", "t-7"]
    assert {(feature["min"], feature["max"]) for feature in spec["features"]} == {("0", "9")}
    assert spec["standard"] == "time-series" and spec["label"]["series"]["horizon"] == 1
    assert check_spec(json.loads(json.dumps(spec))) == spec
    # a season within the lags is among them already
    assert len(check_spec(forecast(lags=8, season=7))["features"]) == 8


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"time": None}, "label.series.time"),
        ({"time": "load"}, "label.series.time"),
        ({"id": "day"}, "label.series.id"),
        ({"step": "fortnight"}, "label.series.step"),
        ({"lags": 0}, "label.series.lags"),
        ({"lags": 101}, "label.series.lags"),
        ({"season": 1}, "label.series.season"),
        ({"horizon": 2}, "label.series.horizon"),
        ({"split": None}, "label.series.split"),
        ({"split": "soon"}, "label.series.split"),
        ({"split": "2024-01-01", "step": "number"}, "label.series.split"),
    ],
)
def test_a_series_that_lies_in_no_time_is_named(changes, field) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec(forecast(**changes))
    assert caught.value.field == field


def test_a_forecaster_takes_no_features_of_another_kind_and_no_bundles() -> None:
    for wrong, field in (
        ({"features": [{"name": "age"}]}, "features"),
        ({"standard": "hl7-fhir-r4"}, "standard"),
        ({"strata": {"column": "day", "values": ["a", "b"]}}, "strata.column"),
    ):
        with pytest.raises(SpecError) as caught:
            check_spec(forecast() | wrong)
        assert caught.value.field == field


STAGE = {"name": "stage", "type": "category", "levels": ["I", "II", 3]}
ASTHMA = {"name": "asthma", "type": "boolean", "system": "http://snomed.info/sct"}
ASTHMA |= {"code": "195967001", "resource": "Condition"}


def test_features_may_be_categories_and_conditions() -> None:
    spec = check_spec(GOOD | {"features": [STAGE, ASTHMA | {"active": True}, {"name": "age"}]})
    assert check_spec(spec) == spec
    stage, asthma, age = spec["features"]
    assert stage == STAGE | {"levels": ["I", "II", "3"], "unit": "", "min": None, "max": None}
    assert asthma == ASTHMA | {"active": True, "unit": "", "min": None, "max": None}
    assert "levels" not in age and age["type"] == "number"
    whole = [f"{place}" for place in range(50)]
    assert check_spec(GOOD | {"features": [STAGE | {"levels": whole}]})


@pytest.mark.parametrize(
    ("feature", "field"),
    [
        (STAGE | {"levels": ["I"]}, "features[0].levels"),
        (STAGE | {"levels": [f"{place}" for place in range(51)]}, "features[0].levels"),
        (STAGE | {"levels": ["1", "1.0"]}, "features[0].levels"),
        (STAGE | {"levels": ["I", ""]}, "features[0].levels[1]"),
        (STAGE | {"levels": ["I", "=II"]}, "features[0].levels[1]"),
        (STAGE | {"levels": None}, "features[0].levels"),
        (STAGE | {"min": 1}, "features[0].min"),
        (STAGE | {"unit": "mm"}, "features[0].unit"),
        (STAGE | {"type": "stages"}, "features[0].type"),
        (STAGE | {"type": "boolean"}, "features[0].levels"),
        (STAGE | {"resource": "Condition", "system": "s", "code": "c"}, "features[0].type"),
        (ASTHMA | {"code": ""}, "features[0].code"),
        (ASTHMA | {"resource": "Medication"}, "features[0].resource"),
        (ASTHMA | {"active": 1}, "features[0].active"),
        ({"name": "wheezes", "type": "boolean", "active": True}, "features[0].active"),
    ],
)
def test_categories_that_make_no_sense_are_refused_by_name(feature: Any, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_spec(GOOD | {"features": [feature]})
    assert refused.value.field == field


@pytest.mark.parametrize(
    "other", [{"name": "stage=II"}, STAGE | {"name": "stage=II", "levels": ["I", "II"]}]
)
def test_no_two_encoded_columns_have_one_name(other: Any) -> None:
    """A site's own weights name them."""
    levels = ["I", "II", "II=II"]
    with pytest.raises(SpecError, match="“stage=II"):
        check_spec(GOOD | {"features": [STAGE | {"levels": levels}, other]})


def test_so_many_columns_as_a_model_takes_are_counted_with_their_levels() -> None:
    wide = [
        {"name": f"f{n}", "type": "category", "levels": [f"{place}" for place in range(50)]}
        for n in range(5)
    ]
    assert check_spec(GOOD | {"features": wide[:4]})
    with pytest.raises(SpecError, match="245 columns") as refused:
        check_spec(GOOD | {"features": wide})
    assert refused.value.field == "features"
