"""Proposals move on at the end of voting and of the timelock."""

from __future__ import annotations

from celery import shared_task

from apps.core.clock import now
from apps.governance import executing


@shared_task(name="flai.execute_proposal")
def execute_proposal(proposal_id: str) -> None:
    """Snapshot, conclude, execute: whatever is due on this proposal."""
    executing.advance(proposal_id=proposal_id, now=now())
