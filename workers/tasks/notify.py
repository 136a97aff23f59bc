"""Calls to the addresses that parties registered."""

from __future__ import annotations

from celery import shared_task

from apps.notify import services


@shared_task(name=services.DELIVER)
def deliver_webhooks() -> None:
    """Sees to it that they are made, and does not wait: the sweep asks again while one is due."""
    services.deliver()
