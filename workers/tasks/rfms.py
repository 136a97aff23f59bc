"""Crowdfunds are awarded when full and refunded when their deadline passes."""

from __future__ import annotations

from celery import shared_task

from apps.core.clock import now
from apps.rfms import services


@shared_task(name="flai.award")
def award(rfm_id: str) -> None:
    """Found the SubDAO if nothing is missing."""
    services.award_if_ready(rfm_id=rfm_id, now=now())


@shared_task(name="flai.close_crowdfund")
def close_crowdfund(rfm_id: str) -> None:
    """Fail and refund at the deadline; wakes itself until every backer is repaid."""
    services.close_due(rfm_id=rfm_id, now=now())
