"""Sealed shares to the nodes, and the rounds' jobs."""

from __future__ import annotations

from celery import shared_task

from apps.training import running, submissions


@shared_task(name="flai.deliver_share")
def deliver_share(submission_id: str) -> None:
    submissions.share_deliver(submission_id=submission_id)


@shared_task(name="flai.withdraw_share")
def withdraw_share(submission_id: str) -> None:
    submissions.share_forget(submission_id=submission_id)


@shared_task(name="flai.run_round")
def run_round(round_id: str) -> None:
    running.round_run(round_id=round_id)
