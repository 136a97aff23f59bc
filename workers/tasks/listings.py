"""Paid queries, and the division of what they earned."""

from __future__ import annotations

from celery import shared_task

from apps.core.clock import now
from apps.listings import catalogue, epochs, running


@shared_task(name="flai.run_queries")
def run_queries(version_id: str) -> None:
    """Whatever waits for this version, together."""
    running.queries_run(version_id=version_id)


@shared_task(name="flai.count_use")
def count_use() -> None:
    """How often each model was asked lately."""
    catalogue.count_use(now=now())


@shared_task(name="flai.settle_epoch")
def settle_epoch(epoch_id: str) -> None:
    epochs.epoch_settle(epoch_id=epoch_id, now=now())
