"""Kinds of proposals that change training: accept a version, open another round."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import action
from apps.core.errors import Conflict, NotFound
from apps.core.events import emit
from apps.core.live import changed
from apps.protocol.evidence import METRIC_NAMES
from apps.subdaos.services import dao_lock
from apps.training.events import VersionAccepted
from apps.training.models import ModelVersion
from apps.training.services import round_open, why_not
from apps.wallets import log

Payload = dict[str, Any]


@action("training.accept_version", house="sbgt")
class AcceptVersion:
    """The version goes into service: queries are served by it from now on."""

    def validate(self, payload: Payload, dao: Any) -> Payload:
        version = _version(payload, dao)
        if version.status != ModelVersion.Status.PROPOSED:
            raise Conflict("version_decided", "This version has been decided on already.")
        # The hash of the proposal covers the evidence that is voted on.
        return {
            "version": str(version.id),
            "number": version.number,
            "model": version.model,
            "evidence": version.evidence,
        }

    def describe(self, payload: Payload, dao: Any) -> list[dict[str, Any]]:
        serving = (
            ModelVersion.objects.filter(dao=dao, status=ModelVersion.Status.ACCEPTED)
            .order_by("-number")
            .first()
        )
        before = serving.evidence if serving else {}
        after = payload["evidence"]
        lines = [
            {
                "label": "Serving version",
                "before": str(serving.number) if serving else "none",
                "after": str(payload["number"]),
            }
        ]
        for metric, label in METRIC_NAMES.items():
            key = f"{metric}_milli"
            if key not in after:
                continue
            lines.append(
                {
                    "label": label,
                    "before": _milli(before.get(key)),
                    "after": _milli(after.get(key)),
                }
            )
        for gate in after["gates"]:
            where = f" in {gate['stratum']}" if gate["stratum"] else ""
            name, least = METRIC_NAMES[gate["metric"]], _milli(gate["min_milli"])
            lines.append(
                {
                    "label": f"Gate: {name}{where} ≥ {least}",
                    "before": "",
                    "after": f"{_milli(gate['got_milli'])} "
                    + ("— met" if gate["met"] else "— not met"),
                }
            )
        return lines

    def execute(self, payload: Payload, *, dao: Any, proposal_id: UUID, now: datetime) -> None:
        version = _version(payload, dao, lock=True)
        if version.status != ModelVersion.Status.PROPOSED:
            raise Conflict("version_decided", "This version has been decided on already.")
        version.status, version.decided_at = ModelVersion.Status.ACCEPTED, now
        version.save(update_fields=["status", "decided_at"])
        changed(f"subdao:{dao.id}")
        log.append(
            "training.version_accepted",
            {
                "dao": dao.party.pid,
                "version": version.number,
                "model": version.model,
                "proposal": str(proposal_id),
            },
            now=now,
        )
        emit(VersionAccepted(version_id=str(version.id), dao_id=str(dao.id)), now=now)


@action("training.open_round", house="sbgt")
class OpenRound:
    """Train again: a new round with the roster of that moment."""

    def validate(self, payload: Payload, dao: Any) -> Payload:
        return {}

    def describe(self, payload: Payload, dao: Any) -> list[dict[str, Any]]:
        return [{"label": "Training round", "before": why_not(dao) or "none open", "after": "open"}]

    def execute(self, payload: Payload, *, dao: Any, proposal_id: UUID, now: datetime) -> None:
        round_open(dao=dao_lock(dao), now=now)


def _version(payload: Payload, dao: Any, *, lock: bool = False) -> ModelVersion:
    rows = ModelVersion.objects.select_for_update() if lock else ModelVersion.objects
    try:
        version = rows.filter(dao=dao, pk=UUID(str(payload.get("version")))).first()
    except ValueError:
        version = None
    if version is None:
        raise NotFound("version_not_found", "This SubDAO has no such version.")
    return version


def _milli(value: int | None) -> str:
    return "not measurable" if value is None else f"{value / 1000:.3f}"
