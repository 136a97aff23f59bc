"""A query's computation: claim, run on the nodes, then charge or release.

An edge: it talks to the nodes between transactions, so it reads the clock itself. The hold is
posted in the same transaction that stores the sealed output, so a buyer pays exactly for what can
be fetched; whatever goes wrong before leaves the hold to be tried again, or freed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q

from apps.compute import control
from apps.compute import services as compute
from apps.compute.availability import nodes_missed
from apps.compute.models import JobState
from apps.core.clock import now as clock_now
from apps.core.errors import Conflict
from apps.core.events import emit, emit_all
from apps.core.live import changed
from apps.core.sweeping import each
from apps.core.transactions import durable
from apps.core.wake import wake
from apps.listings import serving
from apps.listings.epochs import EpochOver, epoch_end, epoch_for_payment
from apps.listings.events import QueryReleased, QuerySettled
from apps.listings.models import Query
from apps.listings.waiting import announce
from apps.notify.services import tell
from apps.wallets import ledger, log
from apps.wallets.errors import HoldExpired, HoldResolved

logger = logging.getLogger(__name__)
AWAY = ("node_down", "peer_lost")
SEEN_MAX = 500


_lanes = serving.Lanes()


def queries_run(*, version_id: Any) -> int:
    """Serve a version's waiting queries, bundle by bundle, until none is due. Returns how many."""
    return _lanes.serve(str(version_id), lambda: _run(_next_bundle(version_id)))


def query_run(*, query_id: Any) -> bool:
    """Run a due query once, alone; True when it ended (settled or released)."""
    query = Query.objects.select_related("job").defer("upload").get(pk=query_id)
    if not compute.job_answers(query.job):
        return _look_again(query)
    ended_before = query.ended_at is not None
    _run([query.id])
    query.refresh_from_db(fields=["ended_at"])
    return query.ended_at is not None and not ended_before


def _next_bundle(version_id: Any) -> list[Any]:
    """Ids of the queries to be served next. Those that failed before only if all nodes answer."""
    now = clock_now()
    due = (
        Query.objects.filter(version_id=version_id, ended_at=None, expires_at__gt=now)
        .filter(
            Q(job__state=JobState.QUEUED, job__due_at__lte=now)
            | Q(job__state=JobState.RUNNING, job__lease_until__lte=now)
        )
        .order_by("created_at")
        .select_related("job")
        .only("id", "buyer_id", "rows", "created_at", "job__attempt", "job__descriptor")
    )
    seen = list(due[:SEEN_MAX])
    again = [query for query in seen if query.job.attempt]
    if again and not compute.job_answers(again[0].job):
        for query in again:
            _look_again(query)
        seen = [query for query in seen if not query.job.attempt]
    waiting = [serving.Waiting(q.id, q.buyer_id, q.rows, q.created_at) for q in seen]
    return [query.query_id for query in serving.pick(waiting, now=now)]


def _run(query_ids: Sequence[Any]) -> int:
    """Claim, compute together, charge or release each for itself. Returns how many were claimed."""
    claimed = _claim_all(query_ids)
    if not claimed:
        return 0
    began = time.monotonic()
    said: list[compute.Outcome | control.ControlError]
    try:
        said = compute.jobs_dispatch(
            [(q.job, q.ticket_id, json.loads(bytes(q.upload or b"{}"))) for q in claimed]
        )
    except control.ControlError as error:
        said = [error] * len(claimed)
    nodes_ms = round(1000 * (time.monotonic() - began), 1)
    answered = []
    for query, one in zip(claimed, said):
        query.nodes_ms = nodes_ms
        if isinstance(one, control.ControlError):
            _not_now(query, one)
        elif any(answer.sealed is None for answer in one.answers):
            _not_now(query, control.Final("bad_answer", "A node returned no output."))
        else:
            answered.append((query, one))
    if answered:
        _settle(answered)
    return len(claimed)


def _look_again(query: Query) -> bool:
    """A node is still away: leave the attempt for when it is back."""
    with durable():
        job = compute.job_deferred(query.job_id, now=clock_now())
        if job is not None:
            wake("flai.run_queries", query.version_id, eta=job.due_at)
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


def _claim_all(query_ids: Sequence[Any]) -> list[Query]:
    """Those of these queries that are due and that no other worker has."""
    if not query_ids:
        return []
    now = clock_now()
    with durable():
        open_ = {
            query.job_id: query
            for query in _locked(query_ids, skip_locked=True)
            if query.ended_at is None and query.expires_at > now
        }
        jobs = compute.jobs_claim(list(open_), now=now)
        claimed = [open_[job.pk] for job in jobs]
        for query, job in zip(claimed, jobs):
            query.job = job
            query.state = Query.State.RUNNING
            _mark(query, now, attempt=job.attempt, together=len(jobs))
        if claimed:
            Query.objects.bulk_update(claimed, ["state", "timeline"])
    return claimed


def _settle(answered: Sequence[tuple[Query, compute.Outcome]]) -> None:
    """Charge in the epoch of now; one that is over is ended before, in its own transaction."""
    while True:
        now = clock_now()
        try:
            return _charge(answered, now)
        except EpochOver as over:
            epoch_end(epoch_id=over.epoch_id, now=now)
        except (HoldExpired, HoldResolved):
            for one in answered:  # the others' payments don't wait for this one's reason
                _settle([one])
            return


def _charge(answered: Sequence[tuple[Query, compute.Outcome]], now: datetime) -> None:
    """Post the holds, store receipts and sealed outputs: all in one transaction.

    Raises EpochOver; HoldExpired and HoldResolved when there are several, of which one has ended.
    """
    with durable():
        held = {query.pk: query for query in _locked([query.pk for query, _ in answered])}
        mine = [
            (held[query.pk], query, outcome)
            for query, outcome in answered
            if held[query.pk].state == Query.State.RUNNING
        ]
        if not mine:
            return
        epoch = epoch_for_payment(mine[0][0].listing, now=now)
        pairs = [(query.job, outcome) for _, query, outcome in mine]
        recorded = {job.pk for job in compute.jobs_answered(pairs, commits=False, now=now)}
        paid = [entry for entry in mine if entry[0].job_id in recorded]
        if not paid:
            return
        try:
            ledger.post_pendings([row.hold_id for row, _, _ in paid], now=now)
        except (HoldExpired, HoldResolved):
            if len(answered) > 1:
                raise
            _release(paid[0][0], "The hold expired before the answer was there.", now)
            return
        for row, query, outcome in paid:
            row.outputs = [
                {
                    "node": answer.member.name,
                    "fingerprint": answer.member.fingerprint,
                    "blob": answer.sealed,
                }
                for answer in outcome.answers
            ]
            row.state, row.epoch, row.ended_at = Query.State.SETTLED, epoch, now
            row.upload, row.reason = None, ""
            _mark(row, now, nodes_ms=query.nodes_ms)
        rows = [row for row, _, _ in paid]
        fields = ["outputs", "state", "epoch", "ended_at", "upload", "reason", "timeline"]
        Query.objects.bulk_update(rows, fields)
        leaves = [
            (
                "listings.query_settled",
                {
                    "query": str(row.id),
                    "hold": str(row.hold_id),
                    "epoch": epoch.number,
                    "job": query.job.job_id,
                    "receipts": [answer.signature for answer in outcome.answers],
                    **_who_computed(query, outcome),
                },
                row.id,
            )
            for row, query, outcome in paid
        ]
        log.append_all(leaves, now=now)
        emit_all([QuerySettled(str(row.id), str(row.listing_id)) for row in rows], now=now)
        tell([(row.buyer_id, "inference.settled", _told(row)) for row in rows], now=now)
        announce(*(row.id for row in rows))


def _who_computed(query: Query, outcome: compute.Outcome) -> dict[str, Any]:
    """Where not all nodes of the set did: they alone are paid for it."""
    signers = [answer.member.fingerprint for answer in outcome.answers]
    return {} if signers == query.job.descriptor["nodes"] else {"nodes": signers}


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
                wake("flai.run_queries", held.version_id, eta=query.job.due_at)
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
    tell([(query.buyer_id, "inference.released", _told(query))], now=now)
    announce(query.id)


def _told(query: Query) -> dict[str, Any]:
    """What a buyer's own program is told: ids and amounts; it fetches the sealed answer itself."""
    return {
        "id": str(query.id),
        "state": str(query.state),
        "listing": query.listing.slug,
        "rows": query.rows,
        "price_micro": str(query.price_micro),
        "reason": query.reason or None,
    }


def _lock(query_id: Any) -> Query:
    (query,) = _locked([query_id])
    return query


def _locked(query_ids: Sequence[Any], *, skip_locked: bool = False) -> list[Query]:
    """The rows, locked in the order of their ids."""
    return list(
        Query.objects.select_for_update(of=("self",), skip_locked=skip_locked)
        .filter(pk__in=query_ids)
        .select_related("job", "listing__dao__party", "version")
        .order_by("id")
    )


def _mark(query: Query, now: datetime, **facts: Any) -> None:
    changed(f"wallet:{query.buyer_id}")
    query.timeline = [
        *query.timeline, {"state": str(query.state), "at": now.isoformat(), **facts}
    ]  # fmt: skip
