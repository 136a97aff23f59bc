"""What the companies of the story ask for, as RFM specs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

PRICE_MICRO = 500_000
TARGET_MICRO = 12_000_000_000
GATE_MILLI = 850
EPOCH_S = 5
VOTE_MIN_S = max(3, int(os.environ.get("FLAI_VOTING_PERIOD_MIN_S") or 0))  # as the site has it
VOTE_MAX_S = 60
OPEN_VOTE_S = 7 * 24 * 3600
OPEN_FUNDING_S = 30 * 24 * 3600
MIN_ROWS = 10
HIDDEN = 64  # units of a network that is asked for


def main_request(
    sites: Mapping[str, Any],
    *,
    custodians: int,
    validators: int,
    network: bool = False,
    vote_s: int = VOTE_MIN_S,
) -> dict[str, Any]:
    """The request of the story, with the schema that the sites' files have."""
    strata = sites["strata"]
    label: dict[str, Any] = {"name": sites["label"], "positive": sites["positive"]}
    if network:
        label = {"name": sites["label"], "classes": ["0", "1"]}
    return {
        "title": f"Predict {sites['label']}"[:120],
        "spec": {
            "objective": f"Predict “{sites['label']}” for one patient, from routine measurements, "
            "with a model that can be explained. No patient's row leaves a hospital.",
            "kind": "federated_learning",
            "model_class": "mlp" if network else "logistic",
            **({"hidden": [HIDDEN]} if network else {}),
            "interpretable": not network,
            "standard": "tabular-csv",
            "features": sites["features"],
            "label": label,
            "strata": strata,
            "gates": [
                {
                    "metric": "accuracy" if network else "auc",
                    "min_milli": GATE_MILLI,
                    "per_stratum": bool(strata),
                }
            ],
            "governance": _governance(vote_s)
            | {"min_custodians": max(3, custodians), "min_validators": validators},
            "price_micro": str(PRICE_MICRO),
            "funding": {"target_micro": str(TARGET_MICRO), "deadline_s": 3600},
            "terms": {},
        },
    }


def vote_s(pace_s: float) -> int:
    """How long a vote lasts where the voters took `pace_s` to open their accounts and stake: a busy
    machine needs more than an idle one."""
    return max(VOTE_MIN_S, min(VOTE_MAX_S, math.ceil(pace_s)))


def open_crowdfund(vote_s: int) -> dict[str, Any]:
    """A second request, approved and partly funded: left for the visitor."""
    return {
        "title": "Readmission within 30 days",
        "spec": {
            "objective": "Predict whether a patient is readmitted within 30 days of discharge.",
            "features": [
                {"name": "age", "unit": "years", "min": 0, "max": 120},
                {"name": "length_of_stay", "unit": "days", "min": 0, "max": 365},
                {"name": "previous_admissions", "unit": "count", "min": 0, "max": 200},
                {"name": "creatinine", "unit": "µmol/l", "min": 10, "max": 2000},
            ],
            "label": {"name": "readmitted", "positive": "1"},
            "strata": {"column": "ward", "values": ["medicine", "surgery"]},
            "gates": [{"metric": "auc", "min_milli": 700, "per_stratum": True}],
            "governance": _governance(vote_s),
            "price_micro": "250000",
            "funding": {"target_micro": "8000000000", "deadline_s": OPEN_FUNDING_S},
            "terms": {},
        },
    }


def open_proposal() -> dict[str, Any]:
    """A third request, whose vote stays open: left for the visitor."""
    return {
        "title": "Early warning of sepsis",
        "spec": {
            "objective": "Predict sepsis six hours before it shows, from vital signs on the ward.",
            "features": [
                {"name": "heart_rate", "unit": "1/min", "min": 0, "max": 300},
                {"name": "temperature", "unit": "°C", "min": 25, "max": 45},
                {"name": "lactate", "unit": "mmol/l", "min": 0, "max": 40},
            ],
            "label": {"name": "sepsis", "positive": "1"},
            "strata": {"column": "site_type", "values": ["urban", "rural"]},
            "gates": [{"metric": "auc", "min_milli": 800, "per_stratum": True}],
            "governance": _governance(OPEN_VOTE_S),
            "price_micro": "400000",
            "funding": {"target_micro": "20000000000", "deadline_s": OPEN_FUNDING_S},
            "terms": {},
        },
    }


def _governance(voting_period_s: int) -> dict[str, Any]:
    return {
        "voting_delay_s": 0,
        "voting_period_s": voting_period_s,
        "timelock_s": 0,
        "epoch_s": EPOCH_S,
        "min_validators": 1,
        "min_custodians": 3,
        "min_rows": MIN_ROWS,
    }
