"""A query's computation: claim, run on the nodes, then charge or release.

An edge: it talks to the nodes between transactions, so it reads the clock itself. The hold is
posted in the same transaction that stores the sealed output, so a buyer pays exactly for what can
be fetched; whatever goes wrong before leaves the hold to be tried again, or freed.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

from apps.compute import control
from apps.compute import services as compute
from apps.compute.availability import nodes_missed
from apps.compute.models import JobState
from apps.core.clock import now as clock_now
from apps.core.errors import Conflict
from apps.core.events import emit
from apps.core.live import changed
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.listings.epochs import EpochOver, epoch_for_payment, epoch_settle
from apps.listings.events import QueryReleased, QuerySettled
from apps.listings.models import Query
from apps.listings.waiting import announce
from apps.wallets import ledger, log
from apps.wallets.errors import HoldExpired, HoldResolved

logger = logging.getLogger(__name__)
AWAY = ("node_down", "peer_lost")


def query_run(*, query_id: Any) -> bool:
    """Run a due query once; True when it ended (settled or released)."""
    waiting = Query.objects.select_related("job").get(pk=query_id)
    if not compute.job_answers(waiting.job):
        return _look_again(waiting)
    query = _claim(query_id)
    if query is None:
        return False
    try:
        outcome = compute.job_dispatch(
            query.job,
            ticket_ids=[query.ticket_id],
            uploads=[json.loads(bytes(query.upload or b"{}"))],
        )
        if any(answer.sealed is None for answer in outcome.answers):
            raise control.Final("bad_answer", "A node returned no output.")
    except control.ControlError as error:
        return _not_now(query, error)
    return _settle(query, outcome)


def _look_again(query: Query) -> bool:
    """A node is still away: leave the attempt for when it is back."""
    with durable():
        job = compute.job_deferred(query.job_id, now=clock_now())
        if job is not None:
            wake("flai.run_query", query.id, eta=job.due_at)
    return False


def queries_expire(*, now: datetime, limit: int = 100) -> int:
    """Release queries whose hold has run out and that no worker holds. Returns how many."""
    due = Query.objects.filter(
        state__in=(Query.State.HELD, Query.State.RUNNING), expires_at__lte=now
    ).order_by("expires_at")
    return each(
        due,
        lambda query_id: _expire(query_id, now),
        now=now,
        limit=limit,
        log=logger,
        what="expiry of query",
    )


def _expire(query_id: Any, now: datetime) -> bool:
    with durable():
        query = _lock(query_id)
        if query.state not in (Query.State.HELD, Query.State.RUNNING):
            return False
        job = query.job
        if job.state == JobState.RUNNING and job.lease_until > now:
            return False
        if not compute.job_failed(job, code="expired", reason=EXPIRED, now=now):
            return False
        _release(query, EXPIRED, now)
    return True


def query_cancel(*, query_id: Any, now: datetime) -> None:
    """Its buyer takes a query back that no worker has begun. Raises Conflict."""
    with durable():
        query = _lock(query_id)
        if query.state == Query.State.RELEASED:
            return
        if query.state != Query.State.HELD or query.job.state != JobState.QUEUED:
            raise Conflict("already_running", "The nodes have begun: it is answered, or released.")
        if compute.job_failed(query.job, code="cancelled", reason=CANCELLED, now=now):
            _release(query, CANCELLED, now)


CANCELLED = "You cancelled it."
EXPIRED = "The nodes could not compute this before the ticket expired."


def _claim(query_id: Any) -> Query | None:
    now = clock_now()
    with durable():
        query = _lock(query_id)
        if query.state not in (Query.State.HELD, Query.State.RUNNING) or query.expires_at <= now:
            return None
        job = compute.job_claim(query.job_id, now=now)
        if job is None:
            return None
        query.job = job
        query.state = Query.State.RUNNING
        _mark(query, now, attempt=job.attempt)
        query.save(update_fields=["state", "timeline"])
    return query


def _settle(query: Query, outcome: compute.Outcome) -> bool:
    """Charge in the epoch of now; one that is over is settled before, in its own transaction."""
    while True:
        now = clock_now()
        try:
            return _charge(query, outcome, now)
        except EpochOver as over:
            epoch_settle(epoch_id=over.epoch_id, now=now)


def _charge(query: Query, outcome: compute.Outcome, now: datetime) -> bool:
    with durable():
        held = _lock(query.id)
        if held.state != Query.State.RUNNING:
            return False
        # First, since the job in hand is only rolled back in the database.
        epoch = epoch_for_payment(held.listing, now=now)
        if not compute.job_answered(query.job, outcome, commits=False, now=now):
            return False
        try:
            ledger.post_pending(held.hold_id, now=now)
        except (HoldExpired, HoldResolved):
            _release(held, "The hold expired before the answer was there.", now)
            return True
        held.outputs = [
            {
                "node": answer.member.name,
                "fingerprint": answer.member.fingerprint,
                "blob": answer.sealed,
            }
            for answer in outcome.answers
        ]
        held.state, held.epoch, held.ended_at, held.upload = Query.State.SETTLED, epoch, now, None
        _mark(held, now)
        held.save()
        log.append(
            "listings.query_settled",
            {
                "query": str(held.id),
                "hold": str(held.hold_id),
                "epoch": epoch.number,
                "job": query.job.job_id,
                "receipts": [answer.signature for answer in outcome.answers],
            },
            now=now,
            ref=held.id,
        )
        emit(QuerySettled(query_id=str(held.id), listing_id=str(held.listing_id)), now=now)
        announce(held.id)
    return True


def _not_now(query: Query, error: control.ControlError) -> bool:
    """Try again while the hold lives; a refusal releases it at once."""
    if error.code in AWAY:
        nodes_missed()
    now = clock_now()
    with durable():
        held = _lock(query.id)
        if held.state != Query.State.RUNNING:
            return False
        if isinstance(error, control.Retryable) and now < held.expires_at:
            if compute.job_postponed(query.job, error, now=now) is not None:
                held.reason = error.text
                held.save(update_fields=["reason"])
                wake("flai.run_query", held.id, eta=query.job.due_at)
            return False
        if not compute.job_failed(query.job, code=error.code, reason=error.text, now=now):
            return False
        _release(held, error.text, now)
    return True


def _release(query: Query, reason: str, now: datetime) -> None:
    """Free the hold: the buyer pays nothing. The sealed row is dropped."""
    ledger.void_pending(query.hold_id, now=now)  # voided already, by its expiry, is as good
    query.state, query.reason, query.ended_at, query.upload = (
        Query.State.RELEASED,
        reason,
        now,
        None,
    )
    _mark(query, now)
    query.save()
    log.append(
        "listings.query_released",
        {"query": str(query.id), "hold": str(query.hold_id), "job": query.job.job_id},
        now=now,
    )
    emit(QueryReleased(query_id=str(query.id), listing_id=str(query.listing_id)), now=now)
    announce(query.id)


def _lock(query_id: Any) -> Query:
    return (
        Query.objects.select_for_update(of=("self",))
        .select_related("job", "listing__dao__party", "version")
        .get(pk=query_id)
    )


def _mark(query: Query, now: datetime, **facts: Any) -> None:
    changed(f"wallet:{query.buyer_id}")
    query.timeline = [
        *query.timeline, {"state": str(query.state), "at": now.isoformat(), **facts}
    ]  # fmt: skip
