"""Answers to what no view answered: problem details under /api/, a page elsewhere."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults

from apps.core.problems import CONTENT_TYPE, problem


def bad_request(request: HttpRequest, exception: Exception, **kwargs: Any) -> HttpResponse:
    text = "The request is not well formed."
    return _problem(request, 400, "bad_input", text) or defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception, **kwargs: Any) -> HttpResponse:
    text = "There is nothing at this address."
    return _problem(request, 404, "not_found", text) or defaults.page_not_found(request, exception)


def server_error(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    """The fault itself is in the server's log only: its text may not be safe to show."""
    text = "The server met a fault that nobody foresaw. It is logged."
    return _problem(request, 500, "internal_error", text) or defaults.server_error(request)


def _problem(request: HttpRequest, status: int, code: str, text: str) -> HttpResponse | None:
    if not request.path.startswith("/api/"):
        return None
    return JsonResponse(problem(status, code, text), status=status, content_type=CONTENT_TYPE)
