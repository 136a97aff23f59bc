"""Has the nodes sign the log's newest head."""

from __future__ import annotations

from celery import shared_task

from apps.compute import cosigning


@shared_task(name="flai.cosign_log")
def cosign_log() -> None:
    cosigning.collect()
