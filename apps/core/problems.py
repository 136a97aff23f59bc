"""Every error as RFC 9457 problem details, application/problem+json.

{"type", "title", "status", "code", "detail", …the error's own facts}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DataError, OperationalError
from django.http import Http404
from psycopg.errors import LockNotAvailable
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.core.errors import DomainError

CONTENT_TYPE = "application/problem+json"
logger = logging.getLogger(__name__)
_RESERVED = ("type", "title", "status", "code", "detail")


def problem(status: int, code: str, detail: str, facts: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The body of one problem."""
    body = {
        "type": f"urn:flai:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    return body | {k: v for k, v in facts.items() if k not in _RESERVED}


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's hook. Unknown exceptions pass (flai_site.errors answers them): their text may not be
    safe to show."""
    headers: dict[str, str] = {}
    if isinstance(exc, DomainError):
        body = problem(exc.status, exc.code, exc.text, _json(exc.args_))
        if "retry_after_s" in exc.args_:
            headers["Retry-After"] = str(exc.args_["retry_after_s"])
    elif isinstance(exc, Http404):
        body = problem(404, "not_found", "There is nothing at this address.")
    elif isinstance(exc, PermissionDenied):
        body = problem(403, "forbidden", "You may not do this.")
    elif isinstance(exc, ValidationError):
        body = problem(400, "invalid", " ".join(exc.messages))
    elif isinstance(exc, DataError):  # a NUL inside a JSON value, a number beyond its column
        body = problem(400, "bad_input", "A value in the request cannot be stored.")
    elif isinstance(exc, OperationalError) and isinstance(exc.__cause__, LockNotAvailable):
        logger.error("a lock was not to be had in time", exc_info=exc)  # its holder is at fault
        body = problem(503, "busy", "Somebody else holds what this needs. Ask again in a moment.")
        headers["Retry-After"] = "1"
    elif isinstance(exc, exceptions.ValidationError):
        body = problem(400, "invalid", _first_text(exc.detail), {"errors": exc.detail})
    elif isinstance(exc, exceptions.APIException):
        if (challenge := getattr(exc, "auth_header", None)) is not None:
            headers["WWW-Authenticate"] = challenge
        if (wait_s := getattr(exc, "wait", None)) is not None:
            headers["Retry-After"] = str(int(wait_s) + 1)
        code = exc.get_codes() if isinstance(exc.get_codes(), str) else "invalid"
        body = problem(exc.status_code, code, _first_text(exc.detail))
    else:
        return None
    set_rollback()
    return Response(body, status=body["status"], headers=headers, content_type=CONTENT_TYPE)


def _json(facts: dict[str, Any]) -> dict[str, Any]:
    plain = (str, int, bool, list, dict, type(None))
    return {k: v if isinstance(v, plain) else str(v) for k, v in facts.items()}


def _first_text(detail: Any, path: str = "") -> str:
    if isinstance(detail, dict):
        key, value = next(iter(detail.items()))
        return _first_text(value, path if key == "non_field_errors" else f"{path}{key}: ")
    if isinstance(detail, list):
        return _first_text(detail[0], path) if detail else path.rstrip(": ")
    return f"{path}{detail}"
