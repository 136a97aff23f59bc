"""What a round opened, as evidence for the vote: metrics in thousandths, and the gates they meet.

A stratum with too few cases, or one that would give such a stratum away, opens no count and no
metric; a gate that asks for it is not met, because nothing shows that it is. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.metrics import auc_interval, called_positive, share_interval, spread_interval

Json = dict[str, Any]
METRIC_NAMES = {
    "auc": "AUC",
    "accuracy": "Accuracy",
    "r2": "R²",
    "c_index": "C-index",
    "skill": "Skill against the naive forecast",
    "mae_skill": "Skill in absolute error",
    "precision": "Precision",
    "recall": "Recall",
    "log_loss": "Log-loss",
}
WITH_INTERVAL = ("auc", "accuracy", "recall", "precision", "c_index", "r2", "log_loss", "skill")
LEAST = -1.0  # of R² and skill: the circuit opens none below
# What stands for a version at a glance: the first of these that its class measures.
LEADING = ("auc", "accuracy", "r2", "c_index")


def leading(evidence: Mapping[str, Any]) -> str:
    """The metric that a page shows first."""
    return next((name for name in LEADING if f"{name}_milli" in evidence), LEADING[0])


def evidence_of(
    openings: Mapping[str, Any],
    *,
    strata: Sequence[str],
    gates: Sequence[Mapping[str, Any]],
    season: int = 0,
) -> Json:
    """The evidence object of a model version.

    {"auc_milli", "auc_by_stratum": {name: milli | null} and so for each metric that was opened,
    "intervals": {metric: {"all": [low, high] milli | null, "by_stratum": {name: …}}} at 95 %,
    "support", "calibration", "training": {"improved", "curve_milli"} of steps on shared rows,
    "gates": [{"metric", "stratum", "min_milli", "got_milli", "met"}]}

    `openings` are the round circuit's, per-stratum lists in the order of `strata`; `gates` the
    SubDAO's: {"metric", "min_milli", "per_stratum"}; `season` a forecaster's, 0 where it has none.
    """
    evidence: Json = {"support": _support(openings.get("support"), strata)}
    for name in sorted(openings):
        metric = name.removesuffix("_strata_milli")
        if metric != name:
            evidence[f"{metric}_milli"] = openings.get(f"{metric}_milli")
            evidence[f"{metric}_by_stratum"] = _by_name(strata, openings[name])
    evidence["intervals"] = {
        name: {
            "all": _interval(name, evidence, None),
            "by_stratum": {
                stratum: _interval(name, evidence, stratum)
                for stratum in evidence[f"{name}_by_stratum"]
            },
        }
        for name in WITH_INTERVAL
        if f"{name}_by_stratum" in evidence and name not in _unsure(evidence, season)
    }
    evidence |= {name: openings[name] for name in ("calibration", "classes") if name in openings}
    if "improved" in openings:
        evidence["training"] = {name: openings[name] for name in ("improved", "curve_milli")}
    evidence["gates"] = [
        line for gate in gates for line in _gate_lines(gate, evidence, strata=strata)
    ]
    return evidence


def interval_of(evidence: Mapping[str, Any], metric: str, stratum: str | None) -> list[int] | None:
    """[low, high] in thousandths, None where there is none."""
    found = (evidence.get("intervals") or {}).get(metric) or {}
    ends: list[int] | None = (
        found.get("all") if stratum is None else (found.get("by_stratum") or {}).get(stratum)
    )
    return ends


def _cell(evidence: Json, stratum: str | None) -> Any:
    support = evidence["support"] or {}
    return support.get("all") if stratum is None else support.get("by_stratum", {}).get(stratum)


def _unsure(evidence: Json, season: int) -> tuple[str, ...]:
    """Metrics without an interval: a series' rows are no independent draws, and of R² and of skill
    against a season ago intervals as for such are far too narrow (docs/learning.md)."""
    if "skill_by_stratum" not in evidence:
        return ()
    return ("r2", "skill") if season else ("r2",)


def _interval(metric: str, evidence: Json, stratum: str | None) -> list[int] | None:
    """Of what was opened: of R², skill and log-loss with their spread, which earlier releases had
    not."""

    def of(name: str) -> float | None:
        by_stratum = evidence.get(f"{name}_by_stratum", {})
        milli = evidence.get(f"{name}_milli") if stratum is None else by_stratum.get(stratum)
        return None if milli is None else milli / 1000

    value, cell = of(metric), _cell(evidence, stratum)
    if value is None or not cell:
        return None
    rows, ups = cell["rows"], cell.get("positives", 0)
    counts = {"recall": ups, "accuracy": rows}
    if metric in ("r2", "skill", "log_loss"):
        spread = of(f"{metric}_spread")
        if spread is None:
            return None
        if metric != "log_loss":  # 1 − R² is what a mean square is divided by another
            least, most = spread_interval(1 - value, spread, rows)
            ends = max(1 - most, LEAST), 1 - least
        else:
            ends = spread_interval(value, spread, rows)
    elif metric == "auc":
        ends = auc_interval(value, ups, rows - ups)
    elif metric == "c_index":  # of an AUC of those with the event and all rows: wide, not narrow
        if not ups:
            return None
        ends = auc_interval(value, ups, rows)
    else:
        right, found = of("accuracy"), of("recall")
        if right is not None and found is not None:
            counts["precision"] = called_positive(rows, ups, right, found)
        if not counts.get(metric):
            return None
        ends = share_interval(value, counts[metric])
    return [round(1000 * end) for end in ends]


def all_met(evidence: Mapping[str, Any]) -> bool:
    """Whether every gate is met."""
    return all(gate["met"] for gate in evidence["gates"])


def _gate_lines(gate: Mapping[str, Any], evidence: Json, *, strata: Sequence[str]) -> list[Json]:
    metric, least = gate["metric"], int(gate["min_milli"])
    got: list[tuple[str | None, int | None]] = [(None, evidence.get(f"{metric}_milli"))]
    if gate.get("per_stratum"):
        by_stratum = evidence.get(f"{metric}_by_stratum", {})
        got += [(name, by_stratum.get(name)) for name in strata]
    return [
        {
            "metric": metric,
            "stratum": stratum,
            "min_milli": least,
            "got_milli": value,
            "met": value is not None and value >= least,
        }
        for stratum, value in got
    ]


def _by_name(strata: Sequence[str], values: Any) -> Json:
    return dict(zip(strata, values or [None] * len(strata), strict=True))


def _support(support: Any, strata: Sequence[str]) -> Any:
    """Rows (and positives) over all, then by stratum, under the strata's names; None if hidden."""
    if not isinstance(support, list):
        return support
    rows = [[count] if isinstance(count, int) else count for count in support]
    pairs = [count and dict(zip(("rows", "positives"), count, strict=False)) for count in rows]
    return {"all": pairs[0], "by_stratum": dict(zip(strata, pairs[1:], strict=True))}
