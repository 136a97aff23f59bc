"""What a round's page shows of the rounds before it: the metric, each site's φ, and points."""

from __future__ import annotations

from typing import Any

from apps.explorer.pictures import Traced, phi_by_round, traced
from apps.protocol.evidence import METRIC_NAMES, interval_of, leading
from apps.subdaos.models import SbgtCheckpoint
from apps.training.models import ModelVersion, Round, Score

ROUNDS_SHOWN = 8
HOLDERS_SHOWN = 25
WHY = {"round": "took part", "decay": "sat it out: fades by λ"}


def history(held: Round) -> dict[str, Any]:
    """{"metric", "phi", "points"}, each empty where there is nothing; three queries."""
    first = held.number - ROUNDS_SHOWN + 1
    made = ModelVersion.objects.filter(
        dao=held.dao_id, round__number__range=(first, held.number)
    ).order_by("round__number")
    versions = list(made.values_list("round__number", "evidence"))
    scored = Score.objects.filter(
        round__dao=held.dao_id, round__number__range=(first, held.number)
    ).values_list("round__number", "party__name", "phi_milli")
    return {
        "metric": metric_over_rounds(versions),
        "phi": phi_by_round(scored),
        "points": points_after(held) if held.closed_at else [],
    }


def metric_over_rounds(versions: list[tuple[int, dict[str, Any]]]) -> Traced | None:
    """The leading metric of the last version, over the rounds that measured it."""
    if not versions:
        return None
    metric = leading(versions[-1][1])
    gates = versions[-1][1].get("gates") or []
    gate = next((g for g in gates if (g["metric"], g.get("stratum")) == (metric, None)), None)
    rows = [
        (f"Round {number}", evidence.get(f"{metric}_milli"), interval_of(evidence, metric, None))
        for number, evidence in versions
    ]
    return traced(rows, of=METRIC_NAMES[metric], by="Round", goal_milli=gate and gate["min_milli"])


def curve(epochs: list[dict[str, Any]]) -> Traced | None:
    """The learning curve, where it was opened."""
    rows = [(f"Epoch {at}", epoch["gain_milli"], None) for at, epoch in enumerate(epochs, 1)]
    return traced(rows, of="Under that of score 0 by", by="Epoch")


def points_after(held: Round) -> list[dict[str, Any]]:
    """π of members and holders as the round left it, the largest first, so many."""
    rows = SbgtCheckpoint.objects.filter(dao=held.dao_id, ref=str(held.id), reason__in=WHY)
    found = rows.order_by("-points_micro", "id").values_list(
        "party__name", "points_micro", "reason"
    )
    return [
        {"name": name, "points_micro": micro, "why": WHY[reason]}
        for name, micro, reason in found[:HOLDERS_SHOWN]
    ]
