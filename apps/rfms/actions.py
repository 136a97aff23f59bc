"""Kinds of proposals about Requests-for-Model."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.rfms import services
from apps.rfms.models import Rfm
from apps.subdaos.models import Dao


@action(services.APPROVE, house="super", by_system=True)
class Approve:
    """{"rfm": id, "spec_hash"}: open the crowdfund and the call for participants.

    Its author submits a request: POST /rfms/{slug}/submit/ makes this proposal.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"rfm", "spec_hash"} or not isinstance(payload["rfm"], str):
            raise BadInput("bad_payload", "Give rfm and spec_hash, and nothing else.")
        rfm = _rfm(payload["rfm"])
        if rfm is None or rfm.approved_at or rfm.rejected_at:
            raise BadInput("unknown_rfm", "There is no such request to decide on.")
        if rfm.submitted_at is not None:
            raise BadInput("already_submitted", "This request is being voted on already.")
        if rfm.spec.get("parent") != (dao.slug if dao.kind == Dao.Kind.SUB else None):
            raise BadInput("another_parent", "Another DAO decides on this request.")
        if payload["spec_hash"] != rfm.spec_hash:
            raise BadInput("spec_changed", "The request has another spec hash.")
        return {"rfm": str(rfm.id), "spec_hash": rfm.spec_hash}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        rfm = _rfm(payload["rfm"])
        assert rfm is not None
        return [
            {"label": f"Request “{rfm.title}”", "before": "in vote", "after": "open for funding"},
            {
                "label": "Funding target (USDC micro-units)",
                "before": None,
                "after": rfm.spec["funding"]["target_micro"],
            },
            {
                "label": "Price of one query (USDC micro-units)",
                "before": None,
                "after": rfm.spec["price_micro"],
            },
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        services.rfm_approve(
            rfm_id=payload["rfm"],
            spec_hash_voted=payload["spec_hash"],
            proposal_id=proposal_id,
            now=now,
        )


@action(services.FORK, house="sbgt", by_system=True)
class Fork(Approve):
    """{"rfm": id, "spec_hash"}: open the crowdfund for a model that goes on from this one.

    Who has staked enough submits a request whose spec names its `parent`.
    """


def _rfm(rfm_id: str) -> Rfm | None:
    try:
        return Rfm.objects.filter(id=UUID(rfm_id)).first()
    except ValueError:
        return None
