"""The node set, as its operators publish it."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from apps.compute import refreshing, services
from apps.compute.control import ControlError
from apps.core.clock import now as clock_now
from apps.core.errors import DomainError

logger = logging.getLogger(__name__)


@shared_task(name="flai.sync_nodes")
def sync_nodes() -> None:
    services.nodes_sync()


@shared_task(name="flai.refresh_shares")
def refresh_shares() -> None:
    """Once an epoch; while a node is away, at the next look."""
    now = clock_now()
    if refreshing.refresh_due(now=now):
        try:
            refreshing.refresh(now=now)
        except (ControlError, DomainError) as error:
            logger.warning("shares are not refreshed: %s", error.code)


@worker_ready.connect
def at_start(**kwargs: Any) -> None:
    """Rounds may open at once; a list that is not there yet is found by the sweep."""
    try:
        services.nodes_sync()
    except DomainError as error:
        logger.warning("no node set yet: %s", error.code)
