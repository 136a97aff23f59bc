"""Paid queries, and the division of what they earned."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready

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


@worker_ready.connect
def at_start(**kwargs: Any) -> None:
    """A worker hears of new queries from the database; a message would come later and cost more."""
    running.listen()
