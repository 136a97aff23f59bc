"""Endpoints are registered; calls are written with what they tell of, and made afterwards.

A call comes at least once and carries the same id at every attempt: the receiver keeps the ids.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpcore
from django.conf import settings
from django.db import connection
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from apps.accounts.models import Party
from apps.core.clock import now as clock_now
from apps.core.clock import unix_ms
from apps.core.errors import BadInput, Conflict, NotFound
from apps.core.transactions import durable, require_transaction
from apps.core.wake import wake_once
from apps.notify import outside
from apps.notify.models import EVENTS, Delivery, Endpoint
from apps.protocol import webhooks

logger = logging.getLogger(__name__)
DELIVER = "flai.deliver_webhooks"
ENDPOINTS_MAX = 10
LEASE = timedelta(seconds=3 * outside.DEADLINE_S)
# After the first attempt; then the call is given up, and can be made again by hand.
BACKOFF_S = (5, 30, 120, 600, 3600, 3 * 3600, 8 * 3600, 24 * 3600)
PING = "webhook.ping"
THREADS = 4
PARTY_MAX = 2  # of them, for one party


class StillPending(Conflict):
    code = "still_pending"
    text = "This call is still being made."


def endpoint_create(
    *, party: Party, url: str, events: Sequence[str], now: datetime
) -> tuple[Endpoint, str]:
    """Register an address. Returns (row, the secret that signs its calls).

    Raises BadInput for an address that is not public or an unknown event, Conflict for too many.
    """
    unknown = set(events) - set(EVENTS)
    if unknown or not events:
        raise BadInput("bad_events", f"Events are of {', '.join(EVENTS)}.", field="events")
    outside.check_url(url)
    with durable():
        Party.objects.select_for_update(no_key=True).get(id=party.id)
        if Endpoint.objects.filter(party=party, removed_at=None).count() >= ENDPOINTS_MAX:
            raise Conflict("too_many_webhooks", f"Remove one first: {ENDPOINTS_MAX} are in use.")
        endpoint = Endpoint.objects.create(
            party=party, url=url, events=[e for e in EVENTS if e in events], created_at=now
        )
    return endpoint, webhooks.secret_text(_key(endpoint))


def endpoint_remove(*, party: Party, endpoint_id: UUID, now: datetime) -> None:
    """It is not called any more, not even for what waits. Raises NotFound."""
    with durable():
        endpoint = endpoint_get(party, endpoint_id)
        endpoint.removed_at = now
        endpoint.save(update_fields=["removed_at"])
        Delivery.objects.filter(endpoint=endpoint, state=Delivery.State.PENDING).update(
            state=Delivery.State.FAILED, ended_at=now, answer="removed"
        )


def endpoint_rotate(*, party: Party, endpoint_id: UUID) -> tuple[Endpoint, str]:
    """A new secret for the calls from now on. Raises NotFound."""
    with durable():
        endpoint = endpoint_get(party, endpoint_id)
        Endpoint.objects.filter(pk=endpoint.pk).update(generation=F("generation") + 1)
        endpoint.refresh_from_db(fields=["generation"])
    return endpoint, webhooks.secret_text(_key(endpoint))


def endpoint_get(party: Party, endpoint_id: UUID) -> Endpoint:
    """A party's own endpoint. Raises NotFound."""
    found = Endpoint.objects.filter(pk=endpoint_id, party=party, removed_at=None).first()
    if found is None:
        raise NotFound("webhook_not_found", "You have no such webhook.")
    return found


def tell(told: Iterable[tuple[UUID, str, dict[str, Any]]], *, now: datetime) -> int:
    """Write the calls that parties want: (party's id, event, data) each. Returns how many.

    Inner writer; `data` holds ids and amounts, never inputs or answers.
    """
    require_transaction("notify.tell")
    told = list(told)
    endpoints = list(
        Endpoint.objects.filter(party__in={party for party, _, _ in told}, removed_at=None)
    )
    calls = [
        _call(endpoint, event, data, now)
        for party, event, data in told
        for endpoint in endpoints
        if endpoint.party_id == party and event in endpoint.events
    ]
    if calls:
        Delivery.objects.bulk_create(calls)
        wake_once(DELIVER)
    return len(calls)


def ping(*, party: Party, endpoint_id: UUID, now: datetime) -> Delivery:
    """A call that says nothing, to try an address out. Raises NotFound, Conflict while another
    such call is being made."""
    with durable():
        Party.objects.select_for_update(no_key=True).get(id=party.id)
        endpoint = endpoint_get(party, endpoint_id)
        if endpoint.deliveries.filter(event=PING, state=Delivery.State.PENDING).exists():
            raise StillPending()
        call = _call(endpoint, PING, {}, now)
        call.save()
        wake_once(DELIVER)
    return call


def redeliver(*, party: Party, delivery_id: UUID, now: datetime) -> Delivery:
    """Make an ended call again, under its own id. Raises NotFound, Conflict."""
    with durable():
        call = (
            Delivery.objects.select_for_update(of=("self",))
            .select_related("endpoint")
            .filter(pk=delivery_id, endpoint__party=party, endpoint__removed_at=None)
            .first()
        )
        if call is None:
            raise NotFound("delivery_not_found", "You have no such call.")
        if call.state == Delivery.State.PENDING:
            raise StillPending()
        call.state, call.ended_at, call.attempts, call.due_at = Delivery.State.PENDING, None, 0, now
        call.save()
        wake_once(DELIVER)
    return call


def deliver() -> None:
    """Make the calls that are due, on threads of their own: whoever asks does not wait for what
    strangers answer. At most THREADS of them call at a time in this process."""
    if _free.acquire(blocking=False):
        threading.Thread(target=_deliver, name="webhooks", daemon=True).start()


_free = threading.BoundedSemaphore(THREADS)


def _deliver() -> None:
    try:
        deliver_due(claimed=deliver)
    except Exception:  # the sweep comes round again
        logger.exception("webhooks")
    finally:
        _free.release()
        connection.close()


def deliver_due(
    *,
    limit: int = 20,
    post: outside.Post = outside.post,
    claimed: Callable[[], None] = lambda: None,
) -> int:
    """Make the calls that are due. An edge: reads the clock, holds no connection while it calls.

    claimed: told of each call before it is made. Returns how many were tried.
    """
    for tried in range(limit):
        call = _claim(clock_now())
        if call is None:
            return tried
        claimed()
        connection.close()
        delivered, answer = _try(call, post)
        _record(call, delivered, answer, clock_now())
    return limit


def due(*, now: datetime) -> bool:
    """Whether a call waits to be made."""
    return Delivery.objects.filter(state=Delivery.State.PENDING, due_at__lte=now).exists()


def _claim(now: datetime) -> Delivery | None:
    """The oldest call of the endpoint whose turn it is: one at a time to each endpoint, PARTY_MAX
    to each party, and of the others the party that has waited for its turn the longest."""
    waiting = Delivery.objects.filter(state=Delivery.State.PENDING, due_at__lte=now)
    others = Endpoint.objects.filter(party=OuterRef("party"), called_at__isnull=False)
    calling = (
        others.filter(calling_until__gt=now)
        .order_by()
        .values("party")
        .annotate(count=Count("id"))
        .values("count")
    )
    last = others.order_by("-called_at").values("called_at")[:1]
    with durable():
        endpoint = (
            Endpoint.objects.select_for_update(skip_locked=True, no_key=True)
            .filter(Q(calling_until=None) | Q(calling_until__lte=now))
            .filter(id__in=waiting.values("endpoint"))
            .annotate(turn=Subquery(last), calls=Coalesce(Subquery(calling), 0))
            .filter(calls__lt=PARTY_MAX)
            .order_by(F("turn").asc(nulls_first=True), F("called_at").asc(nulls_first=True))
            .first()
        )
        if endpoint is None:
            return None
        call = (
            waiting.filter(endpoint=endpoint)
            .select_for_update(skip_locked=True)
            .order_by("due_at")
            .first()
        )
        if call is not None:
            call.attempts += 1
            call.due_at = now + LEASE
            call.save(update_fields=["attempts", "due_at"])
            endpoint.calling_until, endpoint.called_at = call.due_at, now
            endpoint.save(update_fields=["calling_until", "called_at"])
            call.endpoint = endpoint
    return call


def _try(call: Delivery, post: outside.Post) -> tuple[bool, str]:
    """(whether it was taken, what came back in words that show nothing of the other side)."""
    body, timestamp = call.body.encode(), unix_ms(clock_now()) // 1000
    signature = webhooks.sign(_key(call.endpoint), id=str(call.id), timestamp=timestamp, body=body)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flai-webhooks/1",
        "webhook-id": str(call.id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }
    try:
        status = post(call.endpoint.url, body, headers)
    except outside.Refused as error:
        return False, str(error)
    except (httpcore.TimeoutException, TimeoutError):
        return False, "no answer in time"
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        return False, f"no connection ({type(error).__name__})"
    return 200 <= status < 300, f"answered {status}"


def _record(call: Delivery, delivered: bool, answer: str, now: datetime) -> None:
    """Unless somebody else took it meanwhile, as after a lease that ran out."""
    facts: dict[str, Any] = {"answer": answer[:200]}
    if delivered:
        facts |= {"state": Delivery.State.DELIVERED, "ended_at": now}
    elif call.attempts > len(BACKOFF_S):
        facts |= {"state": Delivery.State.FAILED, "ended_at": now}
    else:
        facts |= {"due_at": now + timedelta(seconds=BACKOFF_S[call.attempts - 1])}
    with durable():
        Delivery.objects.filter(
            pk=call.pk, state=Delivery.State.PENDING, attempts=call.attempts
        ).update(**facts)
        Endpoint.objects.filter(pk=call.endpoint_id, calling_until=call.due_at).update(
            calling_until=None
        )


def call_body(event: str, data: dict[str, Any], now: datetime) -> str:
    """What a call says; the same to every endpoint of a party."""
    content = {"type": event, "timestamp": now.isoformat(), "data": data}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _call(endpoint: Endpoint, event: str, data: dict[str, Any], now: datetime) -> Delivery:
    body = call_body(event, data, now)
    return Delivery(endpoint=endpoint, event=event, body=body, due_at=now, created_at=now)


def _key(endpoint: Endpoint) -> bytes:
    """An endpoint's signing key, from the site's secret: the database alone can't sign."""
    name = f"flai/webhook/v1/{endpoint.id}/{endpoint.generation}"
    return hmac.new(settings.SECRET_KEY.encode(), name.encode(), hashlib.sha256).digest()
