"""Reads of RFMs, their crowdfunds and their course."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from apps.accounts.models import Party
from apps.core.errors import NotFound
from apps.participants import selectors as participants
from apps.participants.attestations import schema_hash
from apps.protocol.rfm_spec import schema_of
from apps.rfms.models import Crowdfund, Pledge, Rfm, Status
from apps.rfms.permissions import award_waits_for
from apps.subdaos.models import Dao

_STATUS = {
    Status.DRAFT: Q(submitted_at=None),
    Status.VOTING: Q(submitted_at__isnull=False, approved_at=None, rejected_at=None),
    Status.REJECTED: Q(rejected_at__isnull=False),
    Status.FUNDING: Q(approved_at__isnull=False, awarded_at=None, failed_at=None),
    Status.AWARDED: Q(awarded_at__isnull=False),
    Status.FAILED: Q(failed_at__isnull=False),
}
_RELATED = ("submitter", "subdao", "call", "crowdfund", "proposal")


def rfm_list(*, status: str | None = None, viewer: Party | None = None) -> QuerySet[Rfm]:
    """Newest first, for `brief`; drafts are seen by their author only. An unknown status lists
    nothing."""
    rows = Rfm.objects.select_related("submitter", "subdao", "crowdfund").filter(
        Q(submitted_at__isnull=False) | Q(submitter=viewer)
        if viewer
        else Q(submitted_at__isnull=False)
    )
    if status:
        rows = rows.filter(_STATUS[Status(status)]) if status in set(Status) else rows.none()
    return rows.order_by("-created_at", "-id")


def rfm_by_slug(slug: str) -> Rfm:
    """Raises NotFound."""
    rfm = Rfm.objects.select_related(*_RELATED).filter(slug=slug).first()
    if rfm is None:
        raise NotFound("rfm_not_found", "There is no request with this name.")
    return rfm


def parent_of(rfm: Rfm) -> Dao | None:
    """The SubDAO whose model it forks, whose members decide on it."""
    slug = rfm.spec.get("parent")
    return Dao.objects.select_related("party", "asset").get(slug=slug) if slug else None


def rfm_seen_by(slug: str, viewer: Party | None) -> Rfm:
    """As `rfm_by_slug`; another's draft is not found."""
    rfm = rfm_by_slug(slug)
    if rfm.status is Status.DRAFT and (viewer is None or rfm.submitter_id != viewer.id):
        raise NotFound("rfm_not_found", "There is no request with this name.")
    return rfm


def standing(fund: Crowdfund) -> QuerySet[Pledge]:
    """Pledges that are neither withdrawn nor refunded."""
    return Pledge.objects.filter(crowdfund=fund, withdrawn_at=None, refunded_at=None)


def pledged_by_party(fund: Crowdfund) -> dict[UUID, int]:
    """{party id: micro-units that stand}."""
    sums = standing(fund).order_by().values_list("party").annotate(Sum("amount_micro"))
    return dict(sums)


def pledged_micro(fund: Crowdfund, party: Party) -> int:
    return standing(fund).filter(party=party).aggregate(sum=Sum("amount_micro"))["sum"] or 0


def backers(fund: Crowdfund) -> int:
    """How many parties' pledges stand."""
    return standing(fund).order_by().values("party").distinct().count()


def timeline(rfm: Rfm) -> list[dict[str, Any]]:
    """[{state, at, text}] of what has happened, in order."""
    fund: Crowdfund | None = getattr(rfm, "crowdfund", None)
    steps = [
        ("draft", rfm.created_at, "Written"),
        ("voting", rfm.submitted_at, "Sent to the SuperDAO's vote"),
        ("rejected", rfm.rejected_at, "Not approved"),
        ("funding", rfm.approved_at, "Approved; crowdfund and applications open"),
        ("filled", fund.filled_at if fund else None, "Target reached"),
        ("awarded", rfm.awarded_at, "SubDAO founded"),
        ("failed", rfm.failed_at, "Failed; every backer is refunded"),
        ("refunded", fund.refunded_at if fund else None, "All refunds paid"),
    ]
    return [{"state": state, "at": at, "text": text} for state, at, text in steps if at]


def brief(rfm: Rfm) -> dict[str, Any]:
    """One RFM as lists give it: what its own row and those joined to it say."""
    fund: Crowdfund | None = getattr(rfm, "crowdfund", None)
    return {
        "slug": rfm.slug,
        "title": rfm.title,
        "status": rfm.status.value,
        "objective": rfm.objective,
        "spec_hash": rfm.spec_hash,
        "submitter": {"slug": rfm.submitter.slug, "name": rfm.submitter.name},
        "proposal_id": str(rfm.proposal_id) if rfm.proposal_id else None,
        "crowdfund": _fund_brief(fund) if fund else None,
        "subdao": rfm.subdao.slug if rfm.subdao else None,
        "created_at": rfm.created_at,
    }


def describe(rfm: Rfm, viewer: Party | None = None) -> dict[str, Any]:
    """One RFM as the API gives it."""
    fund: Crowdfund | None = getattr(rfm, "crowdfund", None)
    counts = participants.counts(rfm.call) if rfm.call else None
    return {
        "slug": rfm.slug,
        "title": rfm.title,
        "status": rfm.status.value,
        "spec": rfm.spec,
        "spec_hash": rfm.spec_hash,
        "schema_hash": schema_hash_of(rfm),
        "submitter": {"slug": rfm.submitter.slug, "name": rfm.submitter.name},
        "proposal_id": str(rfm.proposal_id) if rfm.proposal_id else None,
        "crowdfund": _fund(fund, viewer) if fund else None,
        "applications": counts,
        "waits_for": (
            award_waits_for(rfm, counts) if counts and rfm.status is Status.FUNDING else []
        ),
        "subdao": rfm.subdao.slug if rfm.subdao else None,
        "created_at": rfm.created_at,
        "timeline": timeline(rfm),
    }


def schema_hash_of(rfm: Rfm) -> str:
    return schema_hash(schema_of(rfm.spec))


def _fund_brief(fund: Crowdfund) -> dict[str, Any]:
    return {
        "target_micro": str(fund.target_micro),
        "raised_micro": str(fund.raised_micro),
        "deadline_at": fund.deadline_at,
        "sdt_supply_micro": str(fund.sdt_supply_micro),
        "filled_at": fund.filled_at,
    }


def _fund(fund: Crowdfund, viewer: Party | None) -> dict[str, Any]:
    return {
        **_fund_brief(fund),
        "backers": backers(fund),
        "my_pledge_micro": str(pledged_micro(fund, viewer)) if viewer else None,
    }


def describe_pledge(pledge: Pledge) -> dict[str, Any]:
    return {
        "id": str(pledge.id),
        "asked_micro": str(pledge.asked_micro),
        "amount_micro": str(pledge.amount_micro),
        "pledged_at": pledge.pledged_at.isoformat(),
    }
