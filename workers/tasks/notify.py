"""Calls to the addresses that parties registered."""

from __future__ import annotations

from celery import shared_task

from apps.notify import services


@shared_task(name=services.DELIVER)
def deliver_webhooks() -> None:
    """Until nothing is due, or for so many calls: the sweep comes again."""
    services.deliver_due()
