"""`/api/v1/listings` is `/api/v1/listings/`: the API answers to both, without a redirect, which a
POST would not survive.
"""

from __future__ import annotations

from collections.abc import Awaitable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import is_valid_path

from apps.core.csp import Handler

PREFIX = "/api/"


class ApiSlashMiddleware:
    """Adds the slash to an address of the API that has one in the table."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        path = request.path_info
        lacks = path.startswith(PREFIX) and not path.endswith("/") and not is_valid_path(path)
        if lacks and is_valid_path(path + "/"):
            request.path_info, request.path = path + "/", request.path + "/"
        return self.get_response(request)
