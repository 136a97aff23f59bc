"""No address holds a NUL: PostgreSQL has no text for it, so every look-up by such a name would
break. Said once here, for pages and API alike.
"""

from __future__ import annotations

from collections.abc import Awaitable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import BadRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from apps.core.csp import Handler


class WellFormedMiddleware:
    """Answers 400 to a NUL in the path or the query."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        query = request.META.get("QUERY_STRING", "")
        if "\0" in request.path or "\0" in query or "%00" in query:
            raise BadRequest("NUL in the address")
        return self.get_response(request)
