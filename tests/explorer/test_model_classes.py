"""Pages of other model classes: the guided form's labels, and evidence without an AUC."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.template.loader import render_to_string

from apps.explorer.formatting import quoted
from apps.explorer.listings import CALL_SHELL
from apps.explorer.rfm_form import RfmForm, feature_lines, feature_rows, initial_from
from apps.protocol.evidence import evidence_of
from apps.protocol.rfm_spec import check_features, check_spec

FILLED = {
    "title": "Grades",
    "objective": "Grade a biopsy",
    "standard": "tabular-csv",
    "features": "age\ndose",
    "label_name": "grade",
    "auc_min": "0.6",
    "price": "0.50",
    "target": "1000",
    "deadline": "30 d",
    "voting_delay_s": "0",
    "voting_period_s": "3 d",
    "timelock_s": "0",
    "quorum_bps": "20",
    "threshold_bps": "50",
    "epoch_s": "7 d",
    "min_custodians": "3",
    "min_validators": "1",
    "min_rows": "20",
    "share_sbgt": "60",
    "share_sdt": "28",
    "share_treasury": "12",
}


@pytest.mark.parametrize(
    ("model_class", "label", "spec_label", "metric", "wrong"),
    [
        ("logistic", {"label_positive": "1"}, {"positive": "1"}, "auc", "label_positive"),
        (
            "multinomial",
            {"label_classes": "low, high"},
            {"classes": ["low", "high"]},
            "accuracy",
            "label_classes",
        ),
        (
            "linear",
            {"label_min": "0", "label_max": "9"},
            {"min": "0", "max": "9"},
            "r2",
            "label_max",
        ),
        (
            "forecaster",
            {
                "label_min": "0", "label_max": "9", "series_time": "day", "series_step": "day",
                "series_lags": "3", "series_split": "2024-01-01", "skill_min": "0.1",
            },
            {
                "min": "0", "max": "9",
                "series": {
                    "time": "day", "step": "day", "lags": 3, "horizon": 1, "split": "2024-01-01",
                },
            },
            "r2",
            "label_max",
        ),
        ("poisson", {"label_max": "9"}, {"min": "0", "max": "9"}, "r2", None),
        (
            "cox",
            {"label_event": "dead", "label_max": "9"},
            {"event": "dead", "occurred": "1", "min": "0", "max": "9"},
            "c_index",
            "label_event",
        ),
    ],
)  # fmt: skip
def test_the_form_asks_for_the_label_of_each_class(
    model_class: str, label: Any, spec_label: Any, metric: str, wrong: str | None
) -> None:
    form = RfmForm(FILLED | {"model_class": model_class} | label)
    assert form.is_valid(), form.errors
    spec = form.cleaned_data["spec"]
    assert spec["label"] == {"name": "grade", **spec_label}
    assert spec["gates"][0]["metric"] == metric
    again = RfmForm(initial_from("Grades", spec))
    assert again.is_valid() and again.cleaned_data["spec"] == spec
    assert [gate["metric"] for gate in spec["gates"][1:]] == ["skill"] * ("skill_min" in label)
    if wrong:
        empty = RfmForm(FILLED | {"model_class": model_class})
        assert not empty.is_valid() and list(empty.errors) == [wrong]


def test_the_form_takes_categories_and_yes_or_no() -> None:
    lines = 'age, a, 0, 120\nstage, category, I, "II, III"\nsmoker, Boolean'
    about = {"model_class": "logistic", "label_positive": "1"}
    form = RfmForm(FILLED | about | {"features": lines})
    assert form.is_valid(), form.errors
    spec = form.cleaned_data["spec"]
    assert spec["features"][1]["levels"] == ["I", "II, III"]
    assert [f["type"] for f in spec["features"]] == ["number", "category", "boolean"]
    assert initial_from("Grades", spec)["features"] == lines.replace("Boolean", "boolean")
    coded = {"system": "http://snomed.info/sct", "code": "77176002", "resource": "Condition"}
    rich = check_spec(spec | {"features": [*spec["features"][:2], spec["features"][2] | coded]})
    again = RfmForm(initial_from("Grades", rich), base=rich)
    assert again.is_valid() and again.cleaned_data["spec"] == rich and again.kept == ["codes"]
    # the code of a Condition stays with a feature that is yes or no alone
    other = RfmForm(initial_from("Grades", rich) | {"features": "smoker, packs, 0, 9"}, base=rich)
    assert other.is_valid() and "code" not in other.cleaned_data["spec"]["features"][0]
    for wrong, said in (
        ("age\nstage, category, I", "Line 2: Must have 2 to 50 entries."),
        ("smoker, boolean, never", "Line 1: Only a category has levels to name."),
        ("stage, category, I, I", "Line 1: A level is listed twice."),
        ("age\nsmoker, Bool", "Line 2: “Bool” is no unit. Did you mean “smoker, boolean”?"),
        (
            "stage, categorical, I, II",
            "Line 1: “categorical” is no unit. Did you mean “stage, category”?",
        ),
        (
            "stage, I, II, III",
            "Line 1: Must be a number. Of a column of words: its name, category, and its levels.",
        ),
    ):
        refused = RfmForm(FILLED | about | {"features": wrong})
        assert refused.errors["features"] == [said]


def test_a_number_stays_one_whatever_its_unit_is_called() -> None:
    """Requests by program, and older ones, may say so."""
    units = ("boolean", "Category", "bool", "number", "mm", "")
    told = [{"name": f"f{place}", "unit": unit, "max": "9"} for place, unit in enumerate(units)]
    features = check_features(told)
    assert check_features(feature_rows(feature_lines(features))) == features


def test_the_shells_block_writes_its_rows_and_runs_nothing_of_them(tmp_path: Path) -> None:
    table = [["END"], ["touch PWNED; :"]]
    names, row = (",".join(map(quoted, cells)) for cells in table)
    block = CALL_SHELL.format(url="http://x", slug="s", names=names, row=row)
    (tmp_path / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "python3").chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash"], input=block, text=True, cwd=tmp_path, env={"PATH": path}, check=True)
    assert list(csv.reader((tmp_path / "row.csv").open())) == table
    assert not (tmp_path / "PWNED").exists()


def test_the_form_asks_for_the_units_of_hidden_layers() -> None:
    about = {"model_class": "mlp2", "label_classes": "low, high", "interpretable": ""}
    form = RfmForm(FILLED | about | {"hidden": "64, 8"})
    assert form.is_valid(), form.errors
    spec = form.cleaned_data["spec"]
    assert spec["hidden"] == [64, 8]
    again = RfmForm(initial_from("Grades", spec))
    assert again.is_valid() and again.cleaned_data["spec"] == spec
    plain = RfmForm(FILLED | about)
    assert plain.is_valid() and "hidden" not in plain.cleaned_data["spec"]
    for wrong in ("64", "64, many", "64, 1025"):
        refused = RfmForm(FILLED | about | {"hidden": wrong})
        assert not refused.is_valid() and list(refused.errors) == ["hidden"]


def test_the_form_keeps_what_it_does_not_ask_for() -> None:
    """A request made by program: its tiers, gates and codes survive the browser's form."""
    form = RfmForm(FILLED | {"model_class": "logistic", "label_positive": "1"})
    assert form.is_valid() and form.kept == []
    plain = form.cleaned_data["spec"]
    first, *rest = plain["features"]
    rich = check_spec(
        plain
        | {
            "features": [first | {"code": "21889-1", "system": "http://loinc.org"}, *rest],
            "gates": [*plain["gates"], {"metric": "recall", "min_milli": 700}],
            "governance": plain["governance"] | {"late_quorum_s": 3600},
            "funding": plain["funding"] | {"sdt_supply_micro": "5000000"},
            "terms": plain["terms"]
            | {
                "tiers": [{"from_rows": 1000, "off_bps": 500}],
                "rebate_bps": 250,
                "custodians_bps": 7000,
                "validators_bps": 2000,
            },
        }
    )
    again = RfmForm(initial_from("Grades", rich) | {"price": "0.75"}, base=rich)
    assert again.is_valid(), again.errors
    assert again.cleaned_data["spec"] == rich | {"price_micro": "750000"}
    assert again.kept == [
        "late quorum s", "sdt supply", "custodians", "validators", "rebate", "tiers",
        "gate on recall", "codes",
    ]  # fmt: skip


def test_an_auc_is_shown_with_its_interval_and_a_hidden_one_without() -> None:
    openings = {
        "support": [[200, 80], [190, 75], None],
        "auc_milli": 912,
        "auc_strata_milli": [905, None],
    }
    evidence = evidence_of(openings, strata=["north", "south"], gates=[])
    low, high = evidence["intervals"]["auc"]["all"]
    assert 850 < low < 912 < high < 960
    assert evidence["intervals"]["auc"]["by_stratum"]["south"] is None
    page = render_to_string("explorer/_evidence.html", {"evidence": evidence})
    assert page.count(f"0.{low} to 0.{high}") == 2  # in the chart's words and in the table


def test_evidence_of_a_regression_leads_with_r_squared() -> None:
    openings = {
        "support": [60, 30, None],
        "r2_milli": 712,
        "r2_strata_milli": [-40, None],
        "r2_spread_milli": 600,
        "r2_spread_strata_milli": [900, None],
    }
    gates = [{"metric": "r2", "min_milli": 600, "per_stratum": True}]
    evidence = evidence_of(openings, strata=["north", "south"], gates=gates)
    assert [gate["met"] for gate in evidence["gates"]] == [True, False, False]
    assert evidence["support"]["by_stratum"] == {"north": {"rows": 30}, "south": None}
    page = render_to_string("explorer/_evidence.html", {"evidence": evidence})
    assert "R² on the half" in page and "0.712" in page and "−0.040" in page
    low, high = evidence["intervals"]["r2"]["all"]
    assert low < 712 < high and f'<td class="num">0.{low} to 0.{high}</td>' in page
    assert "0.900" not in page  # what the spread is for is the interval
    assert "AUC" not in page and "Calibration" not in page
    assert page.count(">hidden<") == 1 and "too even" not in page
    openings |= {"support": [60, 30, 30]}  # told, and yet no R²
    evidence = evidence_of(openings, strata=["north", "south"], gates=gates)
    page = render_to_string("explorer/_evidence.html", {"evidence": evidence})
    assert ">too even<" in page and ">hidden<" not in page


def test_the_form_asks_for_a_privacy_budget_and_takes_it_away_again() -> None:
    model = {"model_class": "logistic", "label_positive": "1"}
    budget = {"epsilon_milli": 8_500, "rounds": 4, "clip_milli": 500}
    filled = {"epsilon": "8.5", "privacy_rounds": "4", "clip": "0.5"}
    form = RfmForm(FILLED | model | filled)
    assert form.is_valid(), form.errors
    spec = form.cleaned_data["spec"]
    assert spec["governance"]["privacy"] == budget
    again = RfmForm(initial_from("Grades", spec), base=spec)
    assert again.is_valid() and again.cleaned_data["spec"] == spec and not again.kept
    none = RfmForm(FILLED | model | {"epsilon": ""}, base=spec)
    assert none.is_valid() and "privacy" not in none.cleaned_data["spec"]["governance"]
    for wrong in (
        model | filled | {"epsilon": "0.05"},
        {"model_class": "mlp", "label_classes": "low, high", "interpretable": ""} | filled,
    ):
        form = RfmForm(FILLED | wrong)
        assert not form.is_valid() and set(form.errors) == {"epsilon"}


def test_the_form_names_what_is_wrong_with_a_series() -> None:
    about = {"model_class": "forecaster", "label_min": "0", "label_max": "9", "features": ""}
    series = {"series_time": "day", "series_step": "day", "series_lags": "3"}
    for said, field in (({}, "series_split"), ({"series_split": "soon"}, "series_split")):
        form = RfmForm(FILLED | about | series | said)
        assert not form.is_valid() and list(form.errors) == [field]
    assert list(RfmForm(FILLED | about | {"series_split": "2024"}).errors) == ["series_time"]
    # what another class's rows are made of is asked for as before
    plain = RfmForm(FILLED | {"model_class": "logistic", "label_positive": "1", "features": ""})
    assert list(plain.errors) == ["features"]
