"""A query's computation: claim, run on the nodes, then charge or release.

An edge: it talks to the nodes between transactions, so it reads the clock itself. The hold is
posted in the same transaction that stores the sealed output, so a buyer pays exactly for what can
be fetched; whatever goes wrong before leaves the hold to be tried again, or freed.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from apps.compute import control
from apps.compute import services as compute
from apps.compute.availability import nodes_missed
from apps.compute.models import Job, JobState
from apps.core.clock import now as clock_now
from apps.core.errors import Conflict
from apps.core.events import DISPATCH, emit
from apps.core.joined import UNWAITED, prepared
from apps.core.live import changed
from apps.core.notes import Listener, announce
from apps.core.subscriptions import handlers_for
from apps.core.sweeping import each
from apps.core.transactions import clocks_agree, durable
from apps.core.wake import wake, wake_once
from apps.listings import serving
from apps.listings.channels import ENDED_CHANNEL, HELD_CHANNEL
from apps.listings.epochs import epoch_begin, epoch_end
from apps.listings.events import QueryReleased, QuerySettled
from apps.listings.models import Query
from apps.listings.portions import give_back
from apps.listings.pricing import CURRENCY
from apps.notify.services import DELIVER, call_body, tell
from apps.protocol import jobs, wire
from apps.subdaos.models import Dao, Epoch
from apps.wallets import ledger, log
from apps.wallets.models import Transfer

logger = logging.getLogger(__name__)
AWAY = ("node_down", "peer_lost")
SEEN_MAX = 500
THREADS = 8  # of all versions; two of each at most work, the others only leave word
SETTLED = "inference.settled"


@dataclass
class Claimed:
    """A query that this worker has in hand, and its listing, as `listings_claim` gives them.

    payer: "pid/purpose" of the account that it is held on.
    """

    id: uuid.UUID
    buyer_id: uuid.UUID
    buyer_pid: str
    payer: str
    rows: int
    price_micro: int
    hold_id: uuid.UUID
    ticket_id: str
    upload: bytes
    listing_id: uuid.UUID
    slug: str
    dao_id: uuid.UUID
    payee_id: uuid.UUID
    payee_pid: str
    job: Job
    nodes_ms: float = 0.0


Answered = Sequence[tuple[Claimed, compute.Outcome]]

_lanes = serving.Lanes()
_turns = serving.Turns()
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="queries")


def listen() -> Listener:
    """Serve queries in this process as soon as they are held; the sweep finds what was missed."""
    listener = Listener(HELD_CHANNEL, lambda note: _threads.submit(_serve, *note.split()))
    listener.listen()
    return listener


def _serve(version_id: str, query_id: str = "") -> None:
    try:
        queries_run(version_id=version_id, first=query_id)
    except Exception:  # the sweep comes round again
        logger.exception("queries of version %s", version_id)
    finally:
        connection.close()


def queries_run(*, version_id: Any, first: str = "") -> int:
    """Serve a version's waiting queries, bundle by bundle, until none is due. Returns how many.

    first: the query that was held just now. While no lane works nothing else waits, so it is
    claimed without a look at what does.
    """
    key = str(version_id)
    bundles = _bundles(version_id, first if _lanes.idle(key) else "")

    def serve_next() -> int:
        query_ids = next(bundles)
        try:
            return _run(query_ids)
        finally:
            _turns.done(key, query_ids)

    return _lanes.serve(key, serve_next, patience_s=_turns.patience_s(key))


def _bundles(version_id: Any, first: str) -> Iterator[list[Any]]:
    if first:
        yield [first]
    while True:
        yield _next_bundle(version_id)


def query_run(*, query_id: Any) -> bool:
    """Run a due query once, alone; True when it ended (settled or released)."""
    query = Query.objects.select_related("job").defer("upload").get(pk=query_id)
    if not compute.job_answers(query.job):
        return _look_again(query)
    ended_before = query.ended_at is not None
    _run([query.id])
    query.refresh_from_db(fields=["ended_at"])
    return query.ended_at is not None and not ended_before


# Each buyer's oldest first, so that however many one of them has waiting, the others are seen.
_DUE = """
SELECT id, buyer_id, rows, created_at, job_id, attempt FROM (
    SELECT q.id, q.buyer_id, q.rows, q.created_at, q.job_id, j.attempt,
        row_number() OVER (PARTITION BY q.buyer_id ORDER BY q.created_at) AS turn
    FROM listings_query q JOIN compute_job j ON j.id = q.job_id
    WHERE q.version_id = %(version)s AND q.ended_at IS NULL
        AND q.expires_at > %(now)s + interval '5 seconds'
        AND (j.state = 'queued' AND j.due_at <= %(now)s
            OR j.state = 'running' AND j.lease_until <= %(now)s)
) due ORDER BY turn, created_at LIMIT %(limit)s
"""


def _next_bundle(version_id: Any) -> list[Any]:
    """Ids of the queries to be served next. Those that failed before only if all nodes answer."""
    now = clock_now()
    seen = prepared(_DUE, {"version": version_id, "now": now, "limit": SEEN_MAX})
    again = [row for row in seen if row[-1]]
    if again and not compute.job_answers(Job.objects.get(pk=again[0][-2])):
        for query in Query.objects.select_related("job").filter(pk__in=[row[0] for row in again]):
            _look_again(query)
        seen = [row for row in seen if not row[-1]]
    waiting = [serving.Waiting(*row[:4]) for row in seen]
    return [query.query_id for query in _turns.pick(waiting, now=now, model=str(version_id))]


def _run(query_ids: Sequence[Any]) -> int:
    """Claim, compute together, charge or release each for itself. Returns how many were claimed."""
    claimed = _claim_all(query_ids)
    if not claimed:
        return 0
    began = time.monotonic()
    said: list[compute.Outcome | control.ControlError]
    try:
        said = compute.jobs_dispatch([(q.job, q.ticket_id, json.loads(q.upload)) for q in claimed])
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


# A claim that is lost with the database's machine is made again, and the nodes give the same answer
# to the same attempt.
_CLAIM = f"SELECT c.* FROM listings_claim(%s::uuid[], %s::timestamptz, %s) AS c, {UNWAITED}"


def _claim_all(query_ids: Sequence[Any]) -> list[Claimed]:
    """Those of these queries that are due and that no other worker has: one round trip."""
    if not query_ids:
        return []
    clocks_agree()
    with connection.cursor() as cursor:
        margin_s = int(compute.LEASE_MARGIN_S)
        cursor.execute(_CLAIM, [list(query_ids), clock_now(), margin_s])
        claimed = [_claimed(*row) for row in cursor.fetchall()]
    if claimed:
        changed("nodes", *{f"wallet:{query.buyer_id}" for query in claimed})
    return claimed


def _claimed(*row: Any) -> Claimed:
    *facts, job_pk, job_id, attempt, descriptor = row
    job = Job(
        pk=job_pk,
        job_id=job_id,
        kind="query",
        attempt=attempt,
        descriptor=json.loads(descriptor),
        state=JobState.RUNNING,
    )
    job._state.adding, job._state.db = False, connection.alias
    return Claimed(*facts, job=job)


def _settle(answered: Answered) -> None:
    """Charge in the epoch of now; one that is over is ended before, in its own transaction.

    What another worker has taken is left to it.
    """
    dao_id = answered[0][0].dao_id
    while answered:
        now = clock_now()
        epoch = _epoch(dao_id, now)
        code, facts = _charge(answered, epoch, now)
        match code:
            case "settled":
                return _tell_settled(answered, int(facts["calls"]))
            case "taken":
                answered = [one for one in answered if str(one[0].id) not in facts]
            case "epoch_changed":
                _epochs.pop(dao_id, None)
            case "epoch_over":
                _epochs.pop(dao_id, None)
                epoch_end(epoch_id=epoch.id, now=now)
            case "hold_expired" | "hold_resolved" if len(answered) > 1:
                for one in answered:  # the others' payments don't wait for this one's reason
                    _settle([one])
                return
            case "hold_expired" | "hold_resolved":
                return _too_late(*answered[0], now)
            case _:
                raise ledger.refusal(code, Transfer(id=answered[0][0].hold_id))


# The open epoch by SubDAO, as this process last read it; `listings_settle` confirms it.
_epochs: dict[uuid.UUID, Epoch] = {}


def _epoch(dao_id: uuid.UUID, now: datetime) -> Epoch:
    epoch = _epochs.get(dao_id)  # another thread may forget it at any time
    if epoch is None:
        with durable():
            epoch = epoch_begin(dao=Dao.objects.get(pk=dao_id), now=now)
        _epochs[dao_id] = epoch
    return epoch


def _charge(answered: Answered, epoch: Epoch, now: datetime) -> tuple[str, Any]:
    """Post the holds, store receipts and sealed outputs: what `listings_settle` answers."""
    clocks_agree()
    settled = [
        _settlement(query, outcome, answer, epoch, now)
        for (query, outcome), answer in zip(answered, compute.answers_json(
            [(query.job, outcome) for query, outcome in answered]
        ))
    ]  # fmt: skip
    event = QuerySettled.event_name()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT * FROM listings_settle(%s, %s, %s::jsonb, %s, %s, %s, %s, %s::timestamptz)",
            [
                *(answered[0][0].dao_id, epoch.id, json.dumps(settled)),
                *(event, bool(handlers_for(event)), SETTLED, ENDED_CHANNEL, now),
            ],
        )
        code, facts = cursor.fetchone()
    return code, json.loads(facts) if facts else None


def _settlement(
    query: Claimed, outcome: compute.Outcome, answer: dict[str, Any], epoch: Epoch, now: datetime
) -> dict[str, Any]:
    """One query's part of what `listings_settle` is handed."""
    post = ledger.posted(
        query.hold_id,
        debit=f"{query.payer}/{CURRENCY}",
        credit=f"{query.payee_pid}/revenue/{CURRENCY}",
        amount_micro=query.price_micro,
        kind="listings.query",
        ref=("listings.query", query.id),
    )
    leaf = {
        "query": str(query.id),
        "hold": str(query.hold_id),
        "epoch": epoch.number,
        "job": query.job.job_id,
        "receipts": [wire.digest(jobs.RECEIPT_DOMAIN, a.receipt) for a in outcome.answers],
        **_who_computed(query, outcome),
    }
    outputs = [
        {"node": a.member.name, "fingerprint": a.member.fingerprint, "blob": a.sealed}
        for a in outcome.answers
    ]
    state = Query.State.SETTLED
    mark = {"state": str(state), "at": now.isoformat(), "nodes_ms": query.nodes_ms}
    return answer | {
        "query": str(query.id),
        "post": str(post.id),
        "tail": post.tail,
        "leaf": log.leaf_bytes("listings.query_settled", leaf, now=now).decode(),
        "outputs": outputs,
        "mark": mark,
        "told": call_body(SETTLED, _told(query, query.slug, state), now),
    }


def _tell_settled(answered: Answered, calls: int) -> None:
    first = answered[0][0]
    buyers = {f"wallet:{query.buyer_id}" for query, _ in answered}
    changed("nodes", f"wallet:{first.payee_id}", *buyers)
    if handlers_for(QuerySettled.event_name()):
        wake_once(DISPATCH)
    if calls:
        wake_once(DELIVER)


def _too_late(query: Claimed, outcome: compute.Outcome, now: datetime) -> None:
    """The nodes have answered, but the hold is gone: what they did is kept, nothing is charged."""
    with durable():
        held = _lock(query.id)
        if held.state == Query.State.RUNNING and compute.jobs_answered(
            [(query.job, outcome)], commits=False, now=now
        ):
            _release(held, "The hold expired before the answer was there.", now)


def _who_computed(query: Claimed, outcome: compute.Outcome) -> dict[str, Any]:
    """Where not all nodes of the set did: they alone are paid for it."""
    signers = [answer.member.fingerprint for answer in outcome.answers]
    return {} if signers == query.job.descriptor["nodes"] else {"nodes": signers}


def _not_now(query: Claimed, error: control.ControlError) -> bool:
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
    give_back(query)
    log.append(
        "listings.query_released",
        {"query": str(query.id), "hold": str(query.hold_id), "job": query.job.job_id},
        now=now,
    )
    emit(QueryReleased(query_id=str(query.id), listing_id=str(query.listing_id)), now=now)
    told = _told(query, query.listing.slug, query.state, reason)
    tell([(query.buyer_id, "inference.released", told)], now=now)
    announce(ENDED_CHANNEL, query.id)


def _told(
    query: Query | Claimed, slug: str, state: str, reason: str | None = None
) -> dict[str, Any]:
    """What a buyer's own program is told: ids and amounts; it fetches the sealed answer itself."""
    return {
        "id": str(query.id),
        "state": str(state),
        "listing": slug,
        "rows": query.rows,
        "price_micro": str(query.price_micro),
        "reason": reason or None,
    }


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
