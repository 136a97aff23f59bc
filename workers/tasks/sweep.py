"""The net under every wake-up: finds what is due and does it, or wakes who does.

A message that was lost, a worker that died, a deadline that passed while nobody was there: the
database says what is due. One part's trouble does not keep the others from their turn, nor one
row's the other rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from celery import current_app, shared_task

import flai_site.wiring  # noqa: F401 - ties handlers to events
from apps.compute import selectors as compute
from apps.compute import services as nodes
from apps.core import handlers
from apps.core.clock import now as clock_now
from apps.exchange import vaults
from apps.governance import executing
from apps.listings import epochs, plans
from apps.listings import running as queries
from apps.listings import selectors as listings
from apps.notify import services as webhooks
from apps.rfms import services as rfms
from apps.training import deadlines, submissions
from apps.training import running as training_jobs
from apps.training import selectors as training
from apps.wallets import ledger, low_balance

logger = logging.getLogger(__name__)
_published: float | None = None


@shared_task(name="flai.sweep")
def sweep() -> None:
    for part in PARTS:
        try:
            part(clock_now())
        except Exception:  # the next part's work is not this one's fault; all come round again
            logger.exception("sweep: %s failed", part.__name__)


def sync_nodes(now: datetime) -> None:
    """At a worker's start, and whenever the operators publish another list."""
    global _published
    changed = nodes.nodes_published_at()
    if changed is not None and changed != _published:
        nodes.nodes_sync()
        _published = changed


def dispatch_events(now: datetime) -> None:
    handlers.dispatch_due(clock=clock_now)


def deliver_shares(now: datetime) -> None:
    for submission_id in training.shares_due(now=now):
        current_app.send_task("flai.deliver_share", [str(submission_id)])
    for submission_id in training.withdrawals_due(now=now):
        current_app.send_task("flai.withdraw_share", [str(submission_id)])


def deliver_webhooks(now: datetime) -> None:
    if webhooks.due(now=now):
        current_app.send_task(webhooks.DELIVER)


def run_jobs(now: datetime) -> None:
    due = [job.pk for job in compute.jobs_due(now=now)]
    for round_id in training.rounds_of_jobs(due):
        current_app.send_task("flai.run_round", [str(round_id)])
    for version_id in listings.versions_of_jobs(due):
        current_app.send_task("flai.run_queries", [str(version_id)])


def catch_up(now: datetime) -> None:
    nodes.jobs_catch_up(now=now)


def govern(now: datetime) -> None:
    executing.sweep_due(now=now)


def fund(now: datetime) -> None:
    rfms.sweep_due(now=now)


def reject_versions(now: datetime) -> None:
    training_jobs.versions_reject_defeated(now=now)


def expire_queries(now: datetime) -> None:
    queries.queries_expire(now=now)


def go_on_with_rounds(now: datetime) -> None:
    deadlines.rounds_go_on(now=now)


def expire_uploads(now: datetime) -> None:
    submissions.shares_expire(now=now)


def expire_holds(now: datetime) -> None:
    ledger.sweep_expired(now=now)


def release_unstaked(now: datetime) -> None:
    vaults.release_due(now=now)


def settle_epochs(now: datetime) -> None:
    epochs.epochs_settle(now=now)


def end_plans(now: datetime) -> None:
    plans.subscriptions_end(now=now)


def watch_balances(now: datetime) -> None:
    low_balance.balances_watch(now=now)


PARTS: list[Callable[[datetime], None]] = [
    sync_nodes,
    dispatch_events,
    deliver_shares,
    deliver_webhooks,
    run_jobs,
    catch_up,
    govern,
    fund,
    reject_versions,
    expire_queries,
    expire_uploads,
    go_on_with_rounds,
    expire_holds,
    end_plans,
    watch_balances,
    release_unstaked,
    settle_epochs,
]
