"""What anybody may know of rounds and versions. Reads only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from apps.accounts.models import Party
from apps.compute.models import Node
from apps.compute.selectors import descriptors_of, job_json
from apps.core.errors import NotFound
from apps.protocol.tickets import KEPT
from apps.subdaos.models import Dao
from apps.training.models import (
    OPEN_PHASES,
    UNSENT,
    Member,
    ModelVersion,
    Phase,
    Round,
    Score,
    Submission,
)
from apps.training.privacy import noise_json
from apps.training.services import keep_until, round_ticket, rows_most

Json = dict[str, Any]


def rounds(dao: Dao) -> QuerySet[Round]:
    return Round.objects.filter(dao=dao).select_related("dao").order_by("-number")


def rounds_of(party: Party) -> QuerySet[Round]:
    """The open rounds that this party is a member of, and was not left out of."""
    mine = Member.objects.filter(party=party, left_phase="")
    found = Round.objects.filter(phase__in=OPEN_PHASES, pk__in=mine.values("round"))
    return found.select_related("dao").order_by("expires_at", "id")


def round_get(round_id: Any) -> Round:
    """Raises NotFound."""
    found = (
        Round.objects.select_related(
            "dao__party", "moments_job", "round_job", "start__round", "summed__moments_job"
        )
        .filter(pk=round_id)
        .first()
    )
    if found is None:
        raise NotFound("round_not_found", "There is no such round.")
    return found


def current_round(dao: Dao) -> Json | None:
    """The open round, else the last one: {id, number, phase}."""
    found = rounds(dao).filter(phase__in=OPEN_PHASES).first() or rounds(dao).first()
    return round_brief(found) if found else None


def versions(dao: Dao) -> QuerySet[ModelVersion]:
    return (
        ModelVersion.objects.filter(dao=dao)
        .select_related("dao", "round", "proposal")
        .order_by("-number")
    )


def version_get(dao: Dao, number: int) -> ModelVersion:
    """Raises NotFound."""
    found = versions(dao).filter(number=number).first()
    if found is None:
        raise NotFound("version_not_found", "This SubDAO has no such version.")
    return found


def submission_get(round_id: Any, share_id: str) -> Submission:
    """Raises NotFound."""
    found = Submission.objects.filter(round_id=round_id, share_id=share_id).first()
    if found is None:
        raise share_not_found()
    return found


def share_not_found() -> NotFound:
    return NotFound("share_not_found", "This round has no such share.")


def scores(held: Round) -> list[Json]:
    """φ by custodian, best first."""
    rows = Score.objects.filter(round=held).select_related("party").order_by("-phi_milli", "id")
    return [{"party": party_json(row.party), "phi_milli": row.phi_milli} for row in rows]


def party_json(party: Party) -> Json:
    return {"slug": party.slug, "name": party.name, "pid": party.pid}


def round_brief(held: Round) -> Json:
    return {
        "id": str(held.id),
        "dao": held.dao.slug,
        "number": held.number,
        "phase": held.phase,
        "stage": held.stage,
        "opened_at": held.opened_at.isoformat(),
        "closed_at": held.closed_at.isoformat() if held.closed_at else None,
    }


def awaited(held: Round) -> list[Member]:
    """The members for whose part this phase waits: sums and numbers of rows, then updates and
    holdouts. None of those whose share is on its way to the nodes."""
    members = held.members.filter(left_phase="").select_related("party")
    members = members.order_by("role", "party__name")
    if held.phase not in (Phase.MOMENTS, Phase.NORMALISING, Phase.UPDATES):
        return []
    sent = set(
        held.submissions.filter(stage=held.stage)
        .exclude(state__in=UNSENT)
        .values_list("party_id", flat=True)
    )
    if held.phase == Phase.UPDATES:
        return [m for m in members if m.party_id not in sent]
    counted = [m for m in members if m.role == "validator" or held.shares_rows]
    silent = [m for m in counted if m.key not in held.rows]
    if held.phase == Phase.NORMALISING:
        return silent if held.normalisation is not None else []
    unsent = [m for m in members if m.role == "custodian" and m.party_id not in sent]
    return unsent + [m for m in silent if m not in unsent]


def round_json(held: Round) -> Json:
    """A round as the API shows it; `ticket` is exactly what a ticket must carry now."""
    accepting = held.phase in (Phase.MOMENTS, Phase.UPDATES)
    ticket = round_ticket(held) if accepting else None
    version = ModelVersion.objects.filter(round=held).first()
    rows = Submission.objects.filter(round=held).select_related("party").order_by("created_at")
    # Agents train when they see it, so it shows once every ticket's parameters are fixed.
    known = held.phase not in (Phase.MOMENTS, Phase.NORMALISING)
    job = held.round_job or held.moments_job
    return {
        **round_brief(held),
        "roster": held.roster,
        "roster_hash": held.roster_hash,
        "nodes": [node.descriptor for node in _nodes(held)],
        "circuit": ticket["circuits"][0] if ticket else None,
        "circuits_hash": held.circuits_hash,
        "params": ticket["params"] if ticket else None,
        "ticket": ticket,
        "rows": _rows_by_slug(held),
        "rows_max": {
            role: rows_most(held, role)
            for role in ("validator", *(("custodian",) if held.shares_rows else ()))
        },
        "strata": held.strata,
        "scoring": held.scoring,
        "model_class": held.model_class,
        "training": held.training,
        "schedule": held.schedule,
        "privacy": noise_json(held),
        "start": _start(held),
        "normalisation": held.normalisation if known else None,
        "summed": _summed(held),
        "submissions": [
            {
                "party": party_json(row.party),
                "stage": row.stage,
                "slot": row.slot,
                "state": row.state,
                "share_id": row.share_id,
                "ticket_id": row.ticket_id,
                "kept": row.ticket["type"] == KEPT,
            }
            for row in rows
        ],
        "scores": scores(held) or None,
        "evidence": version.evidence if version else None,
        "version": version_json(version) if version else None,
        "reason": held.reason or None,
        "left_out": [
            {"party": party_json(member.party), "phase": member.left_phase}
            for member in held.members.exclude(left_phase="").select_related("party")
        ],
        "waits_for": [party_json(member.party) for member in awaited(held)],
        "waits_until": held.due_at.isoformat() if held.due_at else None,
        "expires_at": held.expires_at.isoformat(),
        "keep_until": keep_until(held),
        "progress": held.progress,
        "job": job_json(job),
    }


def _start(held: Round) -> Json | None:
    """The version that the steps go on from."""
    return held.start and {"version": held.start.number, "model": held.start.model}


def _summed(held: Round) -> Json | None:
    """The earlier round whose sums gave the normalisation that this one keeps, its job and nodes:
    those of now may follow them."""
    if held.summed is None or held.summed.moments_job is None:
        return None
    job = held.summed.moments_job
    shown = {**(job_json(job) or {}), "nodes": descriptors_of(job)}
    return {"round": str(held.summed_id), "job": shown}


def version_json(version: ModelVersion) -> Json:
    return {
        "number": version.number,
        "model": version.model,
        "status": version.status,
        "evidence": version.evidence,
        "round": str(version.round_id),
        "proposal": str(version.proposal_id) if version.proposal_id else None,
        "created_at": version.created_at.isoformat(),
        "decided_at": version.decided_at.isoformat() if version.decided_at else None,
    }


def _nodes(held: Round) -> list[Node]:
    return list(Node.objects.filter(fingerprint__in=held.nodes).order_by("index"))


def _rows_by_slug(held: Round) -> Json:
    members = Member.objects.filter(round=held).select_related("party")
    counted = [m for m in members if m.role == "validator" or held.shares_rows]
    return {m.party.slug: held.rows.get(m.key) for m in counted}


def shares_due(*, now: datetime, limit: int = 100) -> list[Any]:
    """Ids of sealed shares that wait to be handed to the nodes."""
    rows = Submission.objects.filter(
        state=Submission.State.RECEIVED, sealed__isnull=False, due_at__lte=now
    )
    return list(rows.order_by("due_at").values_list("id", flat=True)[:limit])


def withdrawals_due(*, now: datetime, limit: int = 100) -> list[Any]:
    """Ids of shares that their owners have taken back, and some node has not heard of."""
    rows = Submission.objects.filter(state=Submission.State.WITHDRAWING, due_at__lte=now)
    return list(rows.order_by("due_at").values_list("id", flat=True)[:limit])


def rounds_of_jobs(job_ids: list[Any]) -> list[Any]:
    """Ids of the rounds that these jobs are for."""
    rows = Round.objects.filter(Q(moments_job__in=job_ids) | Q(round_job__in=job_ids))
    return list(rows.values_list("id", flat=True))
