"""The ε ledger of a SubDAO: what its rounds with noise have spent of its budget. Reads only.

A round spends ρ when its nodes have signed for a model, for some may keep it from then on, even if
the round fails in the end. One that is void, or fails before, makes none. Rounds without noise
spend nothing, and are not covered.
"""

from __future__ import annotations

from typing import Any

from django.db.models import BigIntegerField, Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast, Coalesce, JSONObject

from apps.protocol import privacy
from apps.protocol.circuits.noise import CLIP, RHO
from apps.subdaos.models import Dao
from apps.subdaos.selectors import budget_of
from apps.training.models import Phase, Round, Training

Json = dict[str, Any]


def with_spending(daos: QuerySet[Dao]) -> QuerySet[Dao]:
    """Each with `spending`: of its rounds that made a model how many, how many of them with noise,
    and their Σρ; None where there is none."""
    signed_for = Q(phase=Phase.DONE) | Q(round_job__model__gt="")
    rho = Cast(KeyTextTransform(RHO, "privacy"), BigIntegerField())
    sums = JSONObject(
        made=Count("pk"), noised=Count("pk", filter=~Q(privacy={})), rho_micro=Coalesce(Sum(rho), 0)
    )
    made = Round.objects.filter(signed_for, dao=OuterRef("pk")).order_by().values("dao")
    return daos.annotate(spending=Subquery(made.annotate(sums=sums).values("sums")))


def _spending(dao: Dao) -> dict[str, int]:
    if not hasattr(dao, "spending"):
        dao = with_spending(Dao.objects.only("pk")).get(pk=dao.pk)
    return dao.spending or {"made": 0, "noised": 0, "rho_micro": 0}  # type: ignore[attr-defined]


def why_no_round(dao: Dao) -> str | None:
    """Why the budget allows no further round, or None."""
    budget = budget_of(dao)
    if budget is None:
        return None
    if dao.params.get("training", {}).get("kind") == Training.SECURE_SGD:
        return (
            "Steps on shared rows make no noise, and this SubDAO has a privacy budget; vote for "
            "fedavg (subdaos.set_training) or for no budget (subdaos.set_privacy)."
        )
    spent = _spending(dao)["rho_micro"]
    if budget.rounds_left(spent):
        return None
    return (
        f"The privacy budget is used up: models made so far have spent ε = "
        f"{privacy.epsilon_milli(spent) / 1000:.3f} of {budget.epsilon_milli / 1000:.3f}, and "
        "another round would go beyond it; vote for a larger one (subdaos.set_privacy)."
    )


def budget_json(dao: Dao) -> Json | None:
    """The budget, what is spent and what is left; None where there never was one."""
    budget, sums = budget_of(dao), _spending(dao)
    if budget is None and not sums["noised"]:
        return None
    spent = sums["rho_micro"]
    return {
        "epsilon_milli": budget.epsilon_milli if budget else None,
        "delta_exponent": privacy.DELTA_EXPONENT,
        "clip_milli": budget.clip_milli if budget else None,
        "rounds": budget.rounds if budget else None,
        "rounds_spent": sums["noised"],
        "rounds_left": budget.rounds_left(spent) if budget else None,
        "rounds_without_noise": sums["made"] - sums["noised"],
        "spent_epsilon_milli": privacy.epsilon_milli(spent),
    }


def made_a_model(held: Round) -> bool:
    """Have its nodes signed for one, whatever became of the round?"""
    return held.phase == Phase.DONE or bool(held.round_job and held.round_job.model)


def noise_json(held: Round) -> Json | None:
    """What one round's model tells of one site's update, given φ; None where it has no noise."""
    if not held.privacy:
        return None
    return {
        "epsilon_milli": privacy.epsilon_milli(held.privacy[RHO]),
        "delta_exponent": privacy.DELTA_EXPONENT,
        "clip_milli": held.privacy[CLIP],
        "rho_micro": held.privacy[RHO],
    }
