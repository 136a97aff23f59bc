"""What RFMs do when something happened elsewhere; tied in flai_site/wiring.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.rfms import services
from apps.rfms.models import Rfm


def proposal_ended(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """governance.ProposalDefeated, governance.ProposalExpired: the request is not approved."""
    if payload["kind"] in services.APPROVALS:
        rfm_id = services.rfm_of_ref(payload["ref"])
        services.rfm_reject(rfm_id=rfm_id, proposal_id=payload["proposal_id"], now=now)


def proposal_taken_back(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """governance.ProposalCanceled: the request is its author's draft again."""
    if payload["kind"] in services.APPROVALS:
        rfm_id = services.rfm_of_ref(payload["ref"])
        services.rfm_take_back(rfm_id=rfm_id, proposal_id=payload["proposal_id"], now=now)


def award_if_ready(payload: dict[str, Any], *, event_id: UUID, now: datetime) -> None:
    """rfms.CrowdfundFilled, participants.ApplicationVerified: perhaps the last thing missing."""
    if "rfm_id" in payload:
        rfm = Rfm.objects.filter(id=payload["rfm_id"]).first()
    else:
        rfm = Rfm.objects.filter(call_id=payload["call_id"]).first()
    if rfm is not None and rfm.awarded_at is None and rfm.failed_at is None:
        services.award_if_ready(rfm_id=rfm.id, now=now)
