"""Idempotency-Key: a retried POST gets the first answer, and the effect happens once.

The answer is stored in the transaction of the effect. A second request with the same key waits for
the first one's transaction, then gets its answer; with another body it gets a conflict. Refusals
(problem details) are not stored: they wrote nothing, so the same key may try again.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.db import connection
from rest_framework.exceptions import APIException, NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from apps.core.clock import now
from apps.core.errors import BadInput, Conflict, DomainError, Forbidden
from apps.core.models import IdempotentCall
from apps.core.transactions import joinable

HEADER = "Idempotency-Key"
KEY_MAX = 200


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"
    text = "This Idempotency-Key was used for another request already."


class CallTaken(IdempotencyConflict):
    """The key was used, whatever for: `first_answer` looks what the answer was."""


def key_of(request: Request, *, required: bool = True) -> str | None:
    """The request's key. Raises BadInput for one that is missing (if required) or not printable."""
    key = request.headers.get(HEADER)
    if key is None and not required:
        return None
    if not key:
        raise BadInput(
            "idempotency_key_required", f"Send an {HEADER} header: a new UUID for each payment."
        )
    if len(key) > KEY_MAX or not key.isascii() or not key.isprintable():
        raise BadInput("idempotency_key_shape", f"The {HEADER} is too long or not printable ASCII.")
    return key


@dataclass(frozen=True)
class Call:
    """A request that may come again: who asks, under which key, for what (`digest_of`)."""

    actor_id: uuid.UUID
    key: str
    digest: str


def call_of(request: Request) -> Call:
    """Raises BadInput without a key, or as `key_of`."""
    return Call(_actor_id(request), key_of(request) or "", digest_of(request))


def answered(call: Call) -> Response | None:
    """The answer that this call got already. Raises IdempotencyConflict where its key was used for
    another request."""
    held = IdempotentCall.objects.filter(actor_id=call.actor_id, key=call.key).first()
    if held is None:
        return None
    if held.digest != call.digest:
        raise IdempotencyConflict()
    return Response(
        json.loads(held.response), status=held.status, headers={"Idempotency-Replayed": "true"}
    )


def first_answer(call: Call, make: Callable[[], Response]) -> Response:
    """What `make` gives; where it refuses a call that was answered already, that answer. A retry is
    not refused for what has changed since.

    For a view whose effect stores its answer by itself, in one statement that refuses a key which
    was used (CallTaken). Raises IdempotencyConflict, or what `make` raises.
    """
    try:
        return make()
    except (DomainError, APIException):
        first = answered(call)
        if first is None:
            raise
        return first


def effect_id(request: Request, *, required: bool = True) -> uuid.UUID | None:
    """An id for the effect (a transfer, a query) that is fixed by actor and key; without a key
    (unless it is required) None."""
    if key_of(request, required=required) is None:
        return None
    return uuid.uuid5(_actor_id(request), f"flai/effect/{key_of(request)}")


def digest_of(request: Request) -> str:
    """SHA-256 over method, path and body; JSON bodies by value, so that spacing does not matter.

    Without `signed`: a retry signs anew, with the next nonce, and still asks for the same.
    """
    asked = request.data
    if isinstance(asked, dict):
        asked = {name: value for name, value in asked.items() if name != "signed"}
    body = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    text = "\n".join((request.method or "", request.get_full_path(), body))
    return hashlib.sha256(text.encode()).hexdigest()


def idempotent(
    view: Callable[..., Response] | None = None, *, required: bool = True
) -> Callable[..., Any]:
    """Decorator for a DRF view method: `@idempotent` or `@idempotent(required=False)`.

    The method runs inside one durable transaction, which its services join (`durable()`); its
    `Response.data` must be JSON. Raises BadInput, IdempotencyConflict.
    """
    if view is None:
        return lambda view_: idempotent(view_, required=required)

    @wraps(view)
    def once(self: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        _actor_id(request)  # who is nobody is told so first
        if key_of(request, required=required) is None:
            return view(self, request, *args, **kwargs)
        call = call_of(request)
        with joinable():
            call_id = _begun(call)
            if call_id is None:
                first = answered(call)
                assert first is not None
                return first
            response = view(self, request, *args, **kwargs)
            IdempotentCall.objects.filter(pk=call_id).update(
                status=response.status_code, response=json.dumps(response.data, cls=JSONEncoder)
            )
            return response

    once.idempotency_required = required  # type: ignore[attr-defined] # the description says so
    return once


def _begun(call: Call) -> int | None:
    """The id of a new call, or None when the key was used; waits for another transaction that is
    inserting the same key."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {IdempotentCall._meta.db_table} "
            "(actor_id, key, digest, response, created_at) VALUES (%s, %s, %s, '', %s) "
            "ON CONFLICT (actor_id, key) DO NOTHING RETURNING id",
            [call.actor_id, call.key, call.digest, now()],
        )
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def _actor_id(request: Request) -> uuid.UUID:
    if not request.user.is_authenticated:
        raise NotAuthenticated()
    party = request.user.acting_party
    if party is None:
        raise Forbidden("no_party", "Your sign-in acts for no party.")
    return party.id
